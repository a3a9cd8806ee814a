//! Which stream of tor's belongs to which dial.
//!
//! A dial takes a ticket before it opens its SOCKS connection and gives it as the user name, so that the stream's first
//! event says whose it is whatever the order in which tor reads its sockets. The lease on the circuit is kept here from
//! then until tor says that the stream is gone: a dial that is dropped half-way, a client that vanishes and a tunnel
//! that ends hours later all give their place back in the same way, once.
//!
//! Next: [`super::engine`] feeds events in; `dial/tor.rs` waits for what comes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::circuit::Lease;
use super::control::{Addr, Answer};
use super::engine::Engine;
use super::event::{CircuitId, StreamId};
use super::fault::StreamFault;
use crate::route::Isolation;

/// A stream was seen and is being attached.
#[derive(Debug)]
pub struct Seen {
    /// When its event was read.
    pub at: Instant,
    /// The answer to ATTACHSTREAM, which is on its way.
    pub answer: Answer,
}

/// What a SOCKS user name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Username {
    /// A dial that waits for this stream on a circuit of its own.
    Ticket(u64),
    /// An onion service: the choice of a circuit is tor's, which isolates by user name.
    Onion(Isolation),
}

impl Username {
    /// The text of it.
    pub fn write(self) -> String {
        match self {
            Self::Ticket(ticket) => format!("e{ticket:016x}"),
            Self::Onion(Isolation(key)) => format!("o{key:016x}"),
        }
    }

    /// Reads one of ours.
    pub fn read(text: &str) -> Option<Self> {
        // Digits alone: a number may also be read with a sign.
        let is_ours = |digits: &str| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = |digits: &str| is_ours(digits).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        match text.split_at_checked(1)? {
            ("e", digits) => number(digits).map(Self::Ticket),
            ("o", digits) => number(digits).map(|key| Self::Onion(Isolation(key))),
            _ => None,
        }
    }
}

/// A dial that has taken a ticket. Dropping it gives up the wait; a stream that exists by then lives on until tor says
/// that it is gone, because whoever holds its socket decides that.
#[derive(Debug)]
pub struct Expected {
    engine: Arc<Engine>,
    ticket: u64,
    run: u64,
    circuit: CircuitId,
    /// When its circuit was completed.
    pub built: Instant,
    /// Where to ask for it.
    pub addr: Addr,
    /// Resolves once the stream was seen.
    pub seen: oneshot::Receiver<Seen>,
    /// Resolves if the stream ends before it is open.
    pub end: oneshot::Receiver<StreamFault>,
}

impl Expected {
    /// The SOCKS user name to give.
    pub fn username(&self) -> String {
        Username::Ticket(self.ticket).write()
    }

    /// Its circuit, to be doubted if the answer is long in coming.
    pub fn doubt(&self) -> Doubt {
        Doubt { engine: self.engine.clone(), run: self.run, circuit: self.circuit }
    }

    /// tor said that it knows no such circuit: nobody shall be put on it again.
    pub fn circuit_is_missing(&self) {
        self.engine.missing(self.run, self.circuit);
    }
}

/// A circuit from which an answer is awaited.
#[derive(Debug)]
pub struct Doubt {
    engine: Arc<Engine>,
    run: u64,
    circuit: CircuitId,
}

impl Doubt {
    /// Finds out whether the circuit died or hangs; if so, who waits is told.
    pub fn voice(self) {
        self.engine.doubt(self.run, self.circuit);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.engine.streams().forget(self.ticket);
    }
}

struct Waiting {
    lease: Lease,
    seen: oneshot::Sender<Seen>,
    end: oneshot::Sender<StreamFault>,
}

struct Known {
    lease: Lease,
    end: Option<oneshot::Sender<StreamFault>>,
}

struct Inner {
    /// Starts anywhere, so that tickets of an earlier gateway on the same tor are not taken for ours.
    next: u64,
    waiting: HashMap<u64, Waiting>,
    known: HashMap<StreamId, Known>,
}

/// The streams of one engine.
pub struct Streams {
    inner: Mutex<Inner>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { next: rand::random(), waiting: HashMap::new(), known: HashMap::new() }) }
    }
}

// Leases must not be dropped while the lock is held: giving a place back takes the lock of the circuits, and whoever
// holds that may be about to take this one. So every method below moves them out first.
impl Streams {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ticket for a stream that will be put on the lease's circuit.
    pub(super) fn expect(&self, lease: Lease, addr: Addr, built: Instant) -> Expected {
        let ((seen, on_seen), (end, on_end)) = (oneshot::channel(), oneshot::channel());
        let (engine, run, circuit) = (lease.engine.clone(), lease.run, lease.circuit);
        let mut inner = self.inner();
        let ticket = inner.next;
        inner.next = inner.next.wrapping_add(1);
        inner.waiting.insert(ticket, Waiting { lease, seen, end });
        drop(inner);
        Expected { engine, ticket, run, circuit, built, addr, seen: on_seen, end: on_end }
    }

    /// A stream with this ticket is there. Returns the circuit for it, and whom to tell.
    pub(super) fn arrived(&self, ticket: u64, stream: StreamId) -> Option<(CircuitId, oneshot::Sender<Seen>)> {
        let mut inner = self.inner();
        let Waiting { lease, seen, end } = inner.waiting.remove(&ticket)?;
        let circuit = lease.circuit;
        inner.known.insert(stream, Known { lease, end: Some(end) });
        Some((circuit, seen))
    }

    /// A stream came to nothing, but is still there: its dial is told. Returns its circuit.
    pub(super) fn failed(&self, stream: StreamId, fault: StreamFault) -> Option<CircuitId> {
        let mut inner = self.inner();
        let known = inner.known.get_mut(&stream)?;
        if let Some(end) = known.end.take() {
            let _ = end.send(fault); // a dial that gave up needs no reason
        }
        Some(known.lease.circuit)
    }

    /// Nothing will be answered over this circuit: the dials that wait are told.
    pub(super) fn unanswered(&self, circuit: CircuitId) {
        let mut inner = self.inner();
        let on_it = inner.known.values_mut().filter(|known| known.lease.circuit == circuit);
        let ends: Vec<_> = on_it.filter_map(|known| known.end.take()).collect();
        drop(inner);
        for end in ends {
            let _ = end.send(StreamFault::Unanswered); // a dial that gave up needs no reason
        }
    }

    /// A stream is gone, and its place is free.
    pub(super) fn gone(&self, stream: StreamId, fault: StreamFault) {
        let known = self.inner().known.remove(&stream);
        if let Some(Known { end: Some(end), lease: _lease }) = known {
            let _ = end.send(fault);
        }
    }

    fn forget(&self, ticket: u64) {
        let waiting = self.inner().waiting.remove(&ticket);
        drop(waiting);
    }

    /// The engine is gone, and every stream with it.
    pub(super) fn lost(&self) {
        let mut inner = self.inner();
        let (waiting, known) = (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.known));
        drop(inner);
        let pending = known.into_values().filter_map(|known| known.end);
        for end in waiting.into_values().map(|waiting| waiting.end).chain(pending) {
            let _ = end.send(StreamFault::EngineLost);
        }
    }

    /// Keeps only the streams that tor still has: after events were missed.
    pub(super) fn keep(&self, alive: impl Fn(StreamId) -> bool) {
        let mut inner = self.inner();
        let all = std::mem::take(&mut inner.known);
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) = all.into_iter().partition(|(id, _)| alive(*id));
        inner.known = kept;
        drop(inner);
        drop(gone);
    }

    /// Streams that exist or are about to.
    pub fn len(&self) -> usize {
        let inner = self.inner();
        inner.waiting.len() + inner.known.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_is_read_back_and_no_other_is_ours() {
        for name in [Username::Ticket(0), Username::Ticket(u64::MAX), Username::Onion(Isolation(7))] {
            assert_eq!(Username::read(&name.write()), Some(name));
        }
        for other in ["", "e", "e1", "x0000000000000000", "e000000000000000g", "éé00000000000000", "e+00000000000000f"]
        {
            assert_eq!(Username::read(other), None, "{other}");
        }
    }
}
