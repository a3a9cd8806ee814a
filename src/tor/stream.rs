//! Finds the dial that a stream of tor belongs to.
//!
//! A dial takes a ticket, a number that it sends as its SOCKS username. The stream's first event contains the username,
//! so it names the dial, in whatever order tor reads its sockets. The lease on the circuit stays here until tor says that
//! the stream has ended. So its place is given back exactly once, whether a dial was dropped, a client vanished or a
//! stream ended after hours.
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

/// A stream that tor has reported and that is being attached.
#[derive(Debug)]
pub struct Seen {
    /// When its event was read.
    pub at: Instant,
    /// The coming answer to ATTACHSTREAM.
    pub answer: Answer,
}

/// The meaning of a SOCKS username.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Username {
    /// The ticket of a dial that chose its circuit.
    Ticket(u64),
    /// A stream to an onion service: tor chooses the circuit, and isolates by username.
    Onion(Isolation),
}

impl Username {
    pub fn write(self) -> String {
        match self {
            Self::Ticket(ticket) => format!("e{ticket:016x}"),
            Self::Onion(Isolation(key)) => format!("o{key:016x}"),
        }
    }

    /// Parses a username of ours; `None` for any other.
    pub fn read(text: &str) -> Option<Self> {
        // Hex digits only: `from_str_radix` would also accept a sign.
        let is_ours = |digits: &str| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = |digits: &str| is_ours(digits).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        match text.split_at_checked(1)? {
            ("e", digits) => number(digits).map(Self::Ticket),
            ("o", digits) => number(digits).map(|key| Self::Onion(Isolation(key))),
            _ => None,
        }
    }
}

/// A dial that has taken a ticket. Dropping it ends the wait. A stream that exists by then lives until its socket is
/// closed.
#[derive(Debug)]
pub struct Expected {
    engine: Arc<Engine>,
    ticket: u64,
    run: u64,
    circuit: CircuitId,
    /// When its circuit was completed.
    pub built: Instant,
    /// The SOCKS port to connect to.
    pub addr: Addr,
    /// Resolves once tor has reported the stream.
    pub seen: oneshot::Receiver<Seen>,
    /// Resolves if the stream ends before it is open.
    pub end: oneshot::Receiver<StreamFault>,
}

impl Expected {
    /// The SOCKS username to send.
    pub fn username(&self) -> String {
        Username::Ticket(self.ticket).write()
    }

    /// A handle to have the circuit tested if the answer takes long.
    pub fn doubt(&self) -> Doubt {
        Doubt { engine: self.engine.clone(), run: self.run, circuit: self.circuit }
    }

    /// Notes that tor does not know the circuit, so it gets no more streams.
    pub fn circuit_is_missing(&self) {
        self.engine.missing(self.run, self.circuit);
    }
}

/// A circuit on which a dial waits for an answer.
#[derive(Debug)]
pub struct Doubt {
    engine: Arc<Engine>,
    run: u64,
    circuit: CircuitId,
}

impl Doubt {
    /// Has the engine test whether the circuit is dead or hangs. If so, the waiting dials get an error.
    pub fn test(self) {
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
    /// Starts at a random number, so that tickets of an earlier gateway on the same tor are not taken for ours.
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

// A lease must not be dropped while this lock is held. Dropping it takes the lock of the circuits, and a task that holds
// that lock may wait for this one. So every method moves leases out first.
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

    /// Notes a stream with this ticket. Returns its circuit, and the sender to its dial.
    pub(super) fn arrived(&self, ticket: u64, stream: StreamId) -> Option<(CircuitId, oneshot::Sender<Seen>)> {
        let mut inner = self.inner();
        let Waiting { lease, seen, end } = inner.waiting.remove(&ticket)?;
        let circuit = lease.circuit;
        inner.known.insert(stream, Known { lease, end: Some(end) });
        Some((circuit, seen))
    }

    /// Gives a fault to the dial of a stream that failed but still exists. Returns its circuit.
    pub(super) fn failed(&self, stream: StreamId, fault: StreamFault) -> Option<CircuitId> {
        let mut inner = self.inner();
        let known = inner.known.get_mut(&stream)?;
        if let Some(end) = known.end.take() {
            let _ = end.send(fault); // fails if the dial gave up
        }
        Some(known.lease.circuit)
    }

    /// Gives an error to all dials that wait on a circuit that does not answer.
    pub(super) fn unanswered(&self, circuit: CircuitId) {
        let mut inner = self.inner();
        let on_it = inner.known.values_mut().filter(|known| known.lease.circuit == circuit);
        let ends: Vec<_> = on_it.filter_map(|known| known.end.take()).collect();
        drop(inner);
        for end in ends {
            let _ = end.send(StreamFault::Unanswered); // fails if the dial gave up
        }
    }

    /// Notes that a stream has ended, and frees its place.
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

    /// Ends all streams, because the engine was lost.
    pub(super) fn lost(&self) {
        let mut inner = self.inner();
        let (waiting, known) = (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.known));
        drop(inner);
        let pending = known.into_values().filter_map(|known| known.end);
        for end in waiting.into_values().map(|waiting| waiting.end).chain(pending) {
            let _ = end.send(StreamFault::EngineLost);
        }
    }

    /// Keeps only the streams that tor still has, in case events were missed.
    pub(super) fn keep(&self, alive: impl Fn(StreamId) -> bool) {
        let mut inner = self.inner();
        let all = std::mem::take(&mut inner.known);
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) = all.into_iter().partition(|(id, _)| alive(*id));
        inner.known = kept;
        drop(inner);
        drop(gone);
    }

    /// Number of streams that exist or are expected.
    pub fn len(&self) -> usize {
        let inner = self.inner();
        inner.waiting.len() + inner.known.len()
    }

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
