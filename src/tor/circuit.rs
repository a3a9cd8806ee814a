//! Circuits: which circuits are built, for which requests, and which streams may use them.
//!
//! Every circuit costs its guard (the first relay) some work, and relays refuse clients that build too many circuits.
//! So circuits are built at a limited rate, and spare circuits (built before a request needs them) are kept only for
//! wanted exits. A spare circuit is replaced only after it was used, so a thousand idle routes cost no builds.
//!
//! A spare circuit has no owner until its first stream. From then on the circuit belongs to the isolation key of that
//! stream (which streams may share a circuit). So a spare circuit can serve whichever request comes first, and streams
//! of two keys never share a circuit.
//!
//! The module [`pool`] decides all of this and does no I/O: its inputs are times and events, and its outputs are
//! effects (actions that the caller must carry out). This module adds a lock around the pool, the senders that wake
//! waiting requests, and [`Lease`]. Dropping a lease frees the place of a stream on its circuit.
//!
//! Next: [`pool`]; [`build_rate`] limits the rate of builds; [`super::engine`] carries out effects and reports events.

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

use build_rate::BuildClass;
use pool::Requester;

pub mod build_rate;
pub mod pool;

/// The requirements of a stream for its circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The relay through which the stream leaves the Tor network.
    pub exit: Fingerprint,
    /// The number of relays in the circuit: 2 or 3.
    pub hops: u8,
    /// The isolation key: streams with the same key may share a circuit.
    pub isolation: Isolation,
    /// Whether a client or the tester of exits waits for the circuit. Builds for clients go first.
    pub class: BuildClass,
    /// The engine of the route, if the route has an engine of its own. `None` if the route shares engines with others.
    pub own: Option<OwnEngine>,
}

impl Way {
    pub(super) fn requester(&self) -> Requester {
        Requester { isolation: self.isolation, class: self.class }
    }
}

/// A circuit as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
pub struct CircuitStatus {
    pub engine: EngineId,
    /// The circuit's id, which tor chose.
    pub id: CircuitId,
    /// The relays of the circuit: guard first, exit last.
    pub path: Arc<[Fingerprint]>,
    /// The state of the circuit: `spare` (never used), `used`, `dirty` (too old for new streams) or `doomed` (tor will
    /// close it soon).
    pub state: &'static str,
    /// The number of streams on the circuit now.
    pub streams: u16,
    /// The time since the circuit was built.
    pub age: Duration,
}

/// The right to put one stream on one circuit. Dropping the lease frees the place on the circuit for another stream.
pub struct Lease {
    pub(super) engine: Arc<Engine>,
    /// The number of the run of tor that the circuit belongs to. Each run of tor counts its circuit ids from 1 again.
    pub(super) run: u64,
    pub(super) circuit: CircuitId,
    pub(super) path: Arc<[Fingerprint]>,
}

impl Lease {
    pub fn circuit(&self) -> CircuitId {
        self.circuit
    }

    /// Returns the circuit's relays, from guard to exit.
    pub fn path(&self) -> &Arc<[Fingerprint]> {
        &self.path
    }

    pub fn engine(&self) -> EngineId {
        self.engine.id()
    }

    /// Registers the stream that will use this lease, before the dial connects to the SOCKS port. `ipv6` is true if the
    /// route allows targets over IPv6.
    pub fn expect(self, ipv6: bool) -> Result<Expected, LeaseFault> {
        let engine = self.engine.clone();
        let live = engine.live().filter(|live| live.run == self.run).ok_or(LeaseFault::Lost)?;
        if !engine.act(|circuits, _| circuits.has(self.circuit)) {
            return Err(LeaseFault::Lost);
        }
        let addr = if ipv6 { live.socks6.clone() } else { live.socks.clone() };
        Ok(engine.streams().expect(self, addr))
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
