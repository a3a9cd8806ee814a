//! Circuits: what is built, for whom, and who may use it.
//!
//! A circuit to a chosen exit costs tens of milliseconds and a few kilobytes, but each one costs its guard work, and
//! relays defend themselves against whoever asks for too many. So circuits are kept warm only for exits that are
//! wanted, built at a polite pace, and a spare is replaced only once somebody used it: a thousand idle routes cost no
//! builds at all. Isolation is decided late: a spare belongs to nobody until its first stream, and from then on to one
//! isolation key for good, so that a spare serves whoever comes first and no two keys ever share a circuit.
//!
//! All of that is [`pool`], which is pure: time comes in, effects come out. What is around it is little: a lock, the
//! senders of those who wait, and a [`Lease`] whose drop gives a stream's place back.
//!
//! Next: [`pool`] decides; [`pace`] says how fast; [`super::engine`] carries effects out and feeds events in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Engine, EngineId};
use super::event::CircuitId;
use super::fault::LeaseFault;
use super::stream::Expected;
use crate::exit::Fingerprint;
use crate::route::{Isolation, OwnEngine};

pub mod build_rate;
pub mod pool;

/// Which way a stream is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The relay that it leaves from.
    pub exit: Fingerprint,
    /// Relays in the circuit: 2 or 3.
    pub hops: u8,
    /// With whom it may share a circuit.
    pub isolation: Isolation,
    /// The engine that carries it, where that is not one of those that carry all.
    pub own: Option<OwnEngine>,
}

/// A circuit as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitStatus {
    /// The engine that holds it.
    pub engine: EngineId,
    /// tor's name for it.
    pub id: CircuitId,
    /// Its relays: guard first, exit last.
    pub path: Arc<[Fingerprint]>,
    /// `spare`, `used`, `dirty` or `doomed`.
    pub state: &'static str,
    /// Streams on it now.
    pub streams: u16,
    /// Since it was built.
    pub age: Duration,
}

/// A place for one stream on one circuit; dropping it gives the place back.
pub struct Lease {
    pub(super) engine: Arc<Engine>,
    /// The run of tor that the circuit belongs to: ids start anew with each.
    pub(super) run: u64,
    pub(super) circuit: CircuitId,
    pub(super) path: Arc<[Fingerprint]>,
}

impl Lease {
    /// The circuit.
    pub fn circuit(&self) -> CircuitId {
        self.circuit
    }

    /// Its relays: guard first, exit last.
    pub fn path(&self) -> &Arc<[Fingerprint]> {
        &self.path
    }

    /// The engine that holds it.
    pub fn engine(&self) -> EngineId {
        self.engine.id()
    }

    /// Takes a ticket for the stream that it is for. `ipv6` is for routes that opted in to targets over IPv6.
    pub fn expect(self, ipv6: bool) -> Result<Expected, LeaseFault> {
        let engine = self.engine.clone();
        let live = engine.live().filter(|live| live.run == self.run).ok_or(LeaseFault::Lost)?;
        let built = engine.act(|circuits, _| circuits.built_at(self.circuit)).ok_or(LeaseFault::Lost)?;
        let addr = if ipv6 { live.socks6.clone() } else { live.socks.clone() };
        Ok(engine.streams().expect(self, addr, built))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.engine.release(self.run, self.circuit);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} on engine {})", self.circuit, self.engine.id())
    }
}
