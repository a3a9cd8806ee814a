//! Circuits: which are built, for whom, and which streams may use them.
//!
//! Every circuit costs its guard work, and relays refuse clients that ask for too many. So circuits are kept ready only
//! for wanted exits, built at a limited pace, and a spare is replaced only once it was used: a thousand idle routes cost
//! no builds. A spare has no owner until its first stream. From then on it belongs to that stream's isolation key, so a
//! spare serves the first request that comes, and two keys never share a circuit.
//!
//! [`pool`] decides all of this. It is pure: time and events go in, effects come out. Around it are a lock, the senders
//! of waiting requests, and [`Lease`], whose drop gives a stream's place back.
//!
//! Next: [`pool`]; [`build_rate`] limits the pace; [`super::engine`] carries effects out and feeds events in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::engine_id::EngineId;
use super::event::CircuitId;
use super::fault::LeaseFault;
use super::stream::Expected;
use crate::exit::Fingerprint;
use crate::route::{Isolation, OwnEngine};

pub mod build_rate;
pub mod pool;

/// What a stream asks of its circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The relay that the stream leaves from.
    pub exit: Fingerprint,
    /// Relays in the circuit: 2 or 3.
    pub hops: u8,
    /// Streams with the same key may share a circuit.
    pub isolation: Isolation,
    /// The engine of the route, if the route has an engine of its own.
    pub own: Option<OwnEngine>,
}

/// A circuit as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
pub struct CircuitStatus {
    pub engine: EngineId,
    /// tor's id of the circuit.
    pub id: CircuitId,
    /// Its relays: guard first, exit last.
    pub path: Arc<[Fingerprint]>,
    /// `spare`, `used`, `dirty` or `doomed`.
    pub state: &'static str,
    /// Streams on the circuit now.
    pub streams: u16,
    /// Time since it was built.
    pub age: Duration,
}

/// The right to put one stream on one circuit. Dropping it gives the place back.
pub struct Lease {
    pub(super) engine: Arc<Engine>,
    /// The run of tor that the circuit belongs to: tor counts ids from 1 again in each run.
    pub(super) run: u64,
    pub(super) circuit: CircuitId,
    pub(super) path: Arc<[Fingerprint]>,
}

impl Lease {
    pub fn circuit(&self) -> CircuitId {
        self.circuit
    }

    /// The circuit's relays, from guard to exit.
    pub fn path(&self) -> &Arc<[Fingerprint]> {
        &self.path
    }

    pub fn engine(&self) -> EngineId {
        self.engine.id()
    }

    /// Registers the stream that will use this lease. `ipv6` is for routes that allow targets over IPv6.
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
