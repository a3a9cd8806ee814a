//! The circuits of one engine: which to lend, which to build, which to close. Pure.
//!
//! Every method takes the time and adds [`Effect`]s: start a build, close a circuit, answer a waiting request. The owner
//! takes the effects and carries them out. So each rule in here has a test without a tor process.
//!
//! A request for a circuit gets the first of these that exists: a circuit of its own isolation key that is not busy; a
//! spare, which then belongs to that key; a busy circuit of that key; a doomed one of that key. Otherwise it waits for a
//! build, together with all requests for the same. A circuit is *doomed* when tor will close it soon, which some failures
//! of a target cause. It is used only while its replacement is being built.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::build_rate::BuildRate;
use crate::exit::Fingerprint;
use crate::route::Isolation;
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;
use crate::tor::path::Link;

mod lend;
#[cfg(test)]
mod tests;
mod upkeep;

/// Failed builds in a row before the waiting requests get an error. If one middle in ten is bad, three in a row fail for
/// one request in a thousand.
const ATTEMPTS: u32 = 3;

/// A build that takes longer gets a second one in parallel, on another middle, if a request waits for it. About the
/// slowest tenth of builds on the public network takes longer.
const SLOW_BUILD: Duration = Duration::from_secs(3);

/// A circuit that carried more bytes than this in the last second is busy: new streams use other circuits. It is half of
/// what one circuit carried on loopback when its congestion window was the limit (8.5 MB/s).
const BUSY_BYTES: u64 = 4_000_000;

/// A circuit with this many streams is busy too. Any value from 6 to 16 does; a browser opens six to a host.
const BUSY_STREAMS: u16 = 8;

/// The most circuits of one isolation key to one exit. Four together carried 20 MB/s on loopback, six 25.
const PARALLEL: usize = 4;

/// Pause after the first failed build of a spare. It doubles with each failure.
const SPARE_PAUSE: Duration = Duration::from_secs(10);

/// The longest such pause.
const SPARE_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// Circuits with the same key and isolation are interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The last relay.
    pub exit: Fingerprint,
    /// Number of relays: 2 or 3.
    pub hops: u8,
    /// The target's port, if connections to it last for hours: such a circuit uses relays that stay up.
    pub lasting: Option<u16>,
}

/// Id of a build, from its start in the queue to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub u64);

/// Id of a request that waits for a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// Something that the owner of the pool must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Choose a path and build it; then call [`Pool::launched`] or [`Pool::build_failed`].
    Build { build: BuildId, key: Key },
    /// Close a circuit.
    Close(CircuitId),
    /// Give a place on a circuit to a waiting request. If the request is gone: [`Pool::release`].
    Grant { waiter: WaiterId, circuit: CircuitId, path: Arc<[Fingerprint]> },
    /// Give an error to a waiting request.
    Refuse { waiter: WaiterId, fault: LeaseFault },
}

/// The pool's answer to a request for a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// A place on this circuit.
    Lent(CircuitId, Arc<[Fingerprint]>),
    /// Wait for [`Effect::Grant`] or [`Effect::Refuse`].
    Wait(WaiterId),
}

/// The settings that the pool needs; the fields of [`crate::tor::Settings`] explain them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub rate: f64,
    pub burst: u32,
    pub build: Duration,
    pub streams: u16,
    pub dirty: Duration,
    pub idle: Duration,
}

/// A complete circuit.
#[derive(Clone, Debug)]
struct Circuit {
    key: Key,
    path: Arc<[Fingerprint]>,
    built: Instant,
    /// The isolation key that it belongs to; `None` for a spare.
    owner: Option<Isolation>,
    first_use: Option<Instant>,
    last_use: Instant,
    streams: u16,
    /// tor will close it soon: lent only if there is nothing better.
    doomed: bool,
    /// A stream got no answer over it: it is not lent any more.
    hung: bool,
    /// Bytes in the last second as tor last reported them, and when.
    carried: (u64, Instant),
    /// A stream on it has reached its target.
    proven: bool,
}

impl Circuit {
    fn is_dirty(&self, dirty: Duration, now: Instant) -> bool {
        self.first_use.is_some_and(|first| now.saturating_duration_since(first) >= dirty)
    }

    fn is_busy(&self, now: Instant) -> bool {
        // tor reports once a second, and only circuits that carried data, so an old report has no meaning.
        let fresh = now.saturating_duration_since(self.carried.1) < Duration::from_secs(3);
        self.streams >= BUSY_STREAMS || (fresh && self.carried.0 > BUSY_BYTES)
    }
}

/// A build that is queued or under way.
#[derive(Clone, Debug)]
struct Build {
    key: Key,
    /// The isolation key that it is for; `None` for a spare.
    owner: Option<Isolation>,
    state: BuildState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BuildState {
    /// Waits for a token of the [`BuildRate`].
    Queued,
    /// tor was asked to build it.
    Started(Instant),
    /// tor has given it a circuit id.
    Launched(Instant, CircuitId),
}

impl BuildState {
    fn since(self) -> Option<Instant> {
        match self {
            Self::Queued => None,
            Self::Started(at) | Self::Launched(at, _) => Some(at),
        }
    }
}

/// Requests that wait for the same circuit.
#[derive(Clone, Debug, Default)]
struct Group {
    waiters: VecDeque<WaiterId>,
    failures: u32,
}

/// Recent failures of spares to one exit.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
}

/// The circuits of one engine.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    pace: BuildRate,
    circuits: HashMap<CircuitId, Circuit>,
    /// Complete circuits by key.
    by_key: HashMap<Key, Vec<CircuitId>>,
    builds: BTreeMap<BuildId, Build>,
    /// Builds by the circuit id that tor gave them.
    launched: HashMap<CircuitId, BuildId>,
    /// Queued builds that a request waits for, in order of arrival.
    awaited: VecDeque<BuildId>,
    /// Queued builds of spares.
    spares: VecDeque<BuildId>,
    groups: HashMap<(Key, Isolation), Group>,
    /// How many spares to keep, by key.
    wanted: BTreeMap<Key, u8>,
    trouble: HashMap<Key, Trouble>,
    next: u64,
    effects: Vec<Effect>,
}

/// Numbers for an engine's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Complete circuits.
    pub circuits: usize,
    /// Builds queued or under way.
    pub building: usize,
    /// Complete circuits that were never used.
    pub spares: usize,
    /// Streams on all circuits.
    pub streams: usize,
}

/// One circuit, as [`Pool::views`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
pub struct View {
    /// tor's name for it.
    pub id: CircuitId,
    /// Its relays.
    pub path: Arc<[Fingerprint]>,
    /// `spare`, `used`, `dirty` or `doomed`.
    pub state: &'static str,
    /// Streams on it.
    pub streams: u16,
    /// Since it was built.
    pub age: Duration,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            pace: BuildRate::new(limits.rate, limits.burst, now),
            circuits: HashMap::new(),
            by_key: HashMap::new(),
            builds: BTreeMap::new(),
            launched: HashMap::new(),
            awaited: VecDeque::new(),
            spares: VecDeque::new(),
            groups: HashMap::new(),
            wanted: BTreeMap::new(),
            trouble: HashMap::new(),
            next: 0,
            effects: Vec::new(),
        }
    }

    /// Changes the limits, for existing circuits too.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.pace.set(limits.rate, limits.burst);
    }

    /// Takes the effects that have collected.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            circuits: self.circuits.len(),
            building: self.builds.len(),
            spares: self.circuits.values().filter(|circuit| circuit.owner.is_none()).count(),
            streams: self.circuits.values().map(|circuit| usize::from(circuit.streams)).sum(),
        }
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn views(&self, now: Instant) -> Vec<View> {
        let view = |(id, circuit): (&CircuitId, &Circuit)| View {
            id: *id,
            path: circuit.path.clone(),
            state: match circuit {
                Circuit { doomed: true, .. } => "doomed",
                Circuit { owner: None, .. } => "spare",
                circuit if circuit.is_dirty(self.limits.dirty, now) => "dirty",
                _ => "used",
            },
            streams: circuit.streams,
            age: now.saturating_duration_since(circuit.built),
        };
        self.circuits.iter().map(view).collect()
    }

    /// True if this circuit, or its build, belongs to this pool.
    pub fn knows(&self, circuit: CircuitId) -> bool {
        self.circuits.contains_key(&circuit) || self.launched.contains_key(&circuit)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
