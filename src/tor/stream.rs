//! Finds the dial that a stream of tor belongs to.
//!
//! Each dial gets a ticket number, which the dial sends to tor as its SOCKS username. tor's first event about the
//! stream contains this username, which identifies the dial.
//!
//! A lease is the right of a stream to one place on a circuit. This module keeps the lease until tor reports the end of
//! the stream. So the place on the circuit is freed exactly once, even if the dial was dropped, the client vanished or
//! the stream ended after hours.
//!
//! Next: [`super::engine`] reports events to this module; `dial/tor.rs` waits for the results.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::circuit::Lease;
use super::control::{Addr, Answer};
use super::engine::Engine;
use super::event::{CircuitId, StreamId};
use super::fault::StreamFault;
use super::version::Version;
use crate::route::Isolation;

/// A stream that tor has reported and that is being attached to its circuit.
#[derive(Debug)]
pub struct Seen {
    /// The time when tor's event about the new stream was read.
    pub at: Instant,
    /// The answer to the command ATTACHSTREAM, which tor may not have sent yet.
    pub answer: Answer,
}

/// The meaning of a SOCKS username that this gateway generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Username {
    /// A stream of a dial, for a circuit that the gateway chose. The number (the ticket) says which dial it is.
    Ticket(u64),
    /// A stream to an onion service. tor chooses the circuit. Streams with different usernames do not share circuits.
    Onion(Isolation),
}

impl Username {
    pub fn write(self) -> String {
        match self {
            Self::Ticket(ticket) => format!("e{ticket:016x}"),
            Self::Onion(Isolation(key)) => format!("o{key:016x}"),
        }
    }

    /// Parses a username that this gateway generated. Returns `None` for any other username.
    pub fn read(text: &str) -> Option<Self> {
        // Only hex digits are allowed. `from_str_radix` alone would also accept a sign.
        let is_ours = |digits: &str| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = |digits: &str| is_ours(digits).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        match text.split_at_checked(1)? {
            ("e", digits) => number(digits).map(Self::Ticket),
            ("o", digits) => number(digits).map(|key| Self::Onion(Isolation(key))),
            _ => None,
        }
    }
}

/// A dial that has a ticket number (its SOCKS username) and waits for its stream. Dropping this value ends the wait. If
/// tor has already opened the stream by then, the stream lives until its socket is closed.
#[derive(Debug)]
pub struct Expected {
    engine: Arc<Engine>,
    ticket: u64,
    run: u64,
    circuit: CircuitId,
    /// The SOCKS port of the engine that the dial must connect to.
    pub addr: Addr,
    /// Resolves once tor has reported the stream.
    pub seen: oneshot::Receiver<Seen>,
    /// Resolves if the stream ends before it is open.
    pub end: oneshot::Receiver<StreamFault>,
}

impl Expected {
    /// Returns the SOCKS username that the dial must send.
    pub fn username(&self) -> String {
        Username::Ticket(self.ticket).write()
    }

    /// Returns true if this version of tor may report success for a stream that the exit ended without a reason.
    pub fn may_be_false_success(&self) -> bool {
        self.engine.version().is_some_and(|version| version < Version::KNOWS_MISSING_REASON)
    }

    /// Returns a handle with which the dial can request a test of its circuit if the target's answer takes long.
    pub fn doubt(&self) -> Doubt {
        Doubt { engine: self.engine.clone(), run: self.run, circuit: self.circuit }
    }

    /// Records that tor does not know the circuit. The circuit then gets no more streams.
    pub fn circuit_is_missing(&self) {
        self.engine.missing(self.run, self.circuit);
    }
}

/// A circuit on which a dial has waited long for an answer.
#[derive(Debug)]
pub struct Doubt {
    engine: Arc<Engine>,
    run: u64,
    circuit: CircuitId,
}

impl Doubt {
    /// Makes the engine build a test circuit over the first two relays of this circuit. If a relay does not answer, the
    /// dials that wait on this circuit get an error. Returns when the latest test circuit was sent: now, or a moment
    /// ago. Returns `None` if none was sent.
    pub fn test(&self) -> Option<Instant> {
        self.engine.doubt(self.run, self.circuit)
    }

    /// Registers one more stream on the same circuit, with which a dial tests the exit. Returns `None` if the circuit
    /// does not exist any more.
    pub fn probe(&self) -> Option<Expected> {
        self.engine.lend_again(self.run, self.circuit)?.expect(false).ok()
    }

    /// Returns true if the first relay of this circuit has answered after the time `since`.
    pub fn first_hop_answered(&self, since: Instant) -> bool {
        self.engine.first_hop_of_answered(self.run, self.circuit, since)
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
    /// The next ticket number. The first one is random, because tor may still have streams of an earlier gateway, and
    /// their ticket numbers must not be equal to ours.
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

// A lease must not be dropped while the lock of `Streams` is held, because this could be a deadlock: dropping a lease
// takes the lock of the circuits, and a task that holds the lock of the circuits may wait for the lock of `Streams`. So
// every method moves leases out of the locked data and drops them later.
impl Streams {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the stream of a dial that will use the circuit of `lease`, and gives it a number by which tor's events
    /// are matched to the dial.
    pub(super) fn expect(&self, lease: Lease, addr: Addr) -> Expected {
        let ((seen, on_seen), (end, on_end)) = (oneshot::channel(), oneshot::channel());
        let (engine, run, circuit) = (lease.engine.clone(), lease.run, lease.circuit);
        let mut inner = self.inner();
        let ticket = inner.next;
        inner.next = inner.next.wrapping_add(1);
        inner.waiting.insert(ticket, Waiting { lease, seen, end });
        drop(inner);
        Expected { engine, ticket, run, circuit, addr, seen: on_seen, end: on_end }
    }

    /// Records that tor reported a stream with this ticket number. Returns the circuit to attach the stream to, and the
    /// channel to the waiting dial. Returns `None` if no dial waits under this number.
    pub(super) fn arrived(&self, ticket: u64, stream: StreamId) -> Option<(CircuitId, oneshot::Sender<Seen>)> {
        let mut inner = self.inner();
        let Waiting { lease, seen, end } = inner.waiting.remove(&ticket)?;
        let circuit = lease.circuit;
        inner.known.insert(stream, Known { lease, end: Some(end) });
        Some((circuit, seen))
    }

    /// Reports a fault to the dial of a stream that failed but still exists in tor. Returns the circuit of the stream,
    /// or `None` if the stream is not known.
    pub(super) fn failed(&self, stream: StreamId, fault: StreamFault) -> Option<CircuitId> {
        let mut inner = self.inner();
        let known = inner.known.get_mut(&stream)?;
        if let Some(end) = known.end.take() {
            let _ = end.send(fault); // fails if the dial gave up
        }
        Some(known.lease.circuit)
    }

    /// Reports `fault` to all dials that wait on a circuit that does not answer.
    pub(super) fn unanswered(&self, circuit: CircuitId, fault: StreamFault) {
        self.end_waits(fault, |on| on == circuit);
    }

    /// Reports `fault` to all dials that wait for an answer on any circuit of this engine.
    pub(super) fn all_unanswered(&self, fault: StreamFault) {
        self.end_waits(fault, |_| true);
    }

    fn end_waits(&self, fault: StreamFault, over: impl Fn(CircuitId) -> bool) {
        let mut inner = self.inner();
        let on_it = inner.known.values_mut().filter(|known| over(known.lease.circuit));
        let ends: Vec<_> = on_it.filter_map(|known| known.end.take()).collect();
        drop(inner);
        for end in ends {
            let _ = end.send(fault); // fails if the dial gave up
        }
    }

    /// Records that a stream has ended, and frees its place on the circuit.
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

    /// Ends all streams because the engine was lost.
    pub(super) fn lost(&self) {
        let mut inner = self.inner();
        let (waiting, known) = (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.known));
        drop(inner);
        let pending = known.into_values().filter_map(|known| known.end);
        for end in waiting.into_values().map(|waiting| waiting.end).chain(pending) {
            let _ = end.send(StreamFault::EngineLost);
        }
    }

    /// Removes all streams that tor does not have any more, because events about ended streams may have been missed.
    /// `alive` returns true for a stream that tor still has.
    pub(super) fn keep(&self, alive: impl Fn(StreamId) -> bool) {
        let mut inner = self.inner();
        let all = std::mem::take(&mut inner.known);
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) = all.into_iter().partition(|(id, _)| alive(*id));
        inner.known = kept;
        drop(inner);
        drop(gone);
    }

    /// Returns the number of streams that exist or are expected.
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
