//! The circuits of one engine: which are lent to whom, which are to be built, which are to go. Pure.
//!
//! Every method takes the time and leaves [`Effect`]s behind, which the owner takes and carries out: start a build,
//! close a circuit, tell somebody who waits. So that each rule in here has a test without a tor.
//!
//! Who asks for a circuit gets, in this order: one of their own that is not busy; a spare, which becomes theirs; one of
//! their own that is busy; one of their own that is doomed but still there; or they wait, together with all who ask
//! for the same, for one build. A circuit is *doomed* once tor will close it (some failures of a target do that):
//! it is used only while its replacement is being built.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::build_rate::BuildRate;
use crate::exit::Fingerprint;
use crate::route::Isolation;
use crate::tor::engine::Link;
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;

mod lend;
#[cfg(test)]
mod tests;
mod upkeep;

/// Builds that may fail in a row before those who wait are told. Arbitrary: with one bad middle in ten, three in a row
/// fail for one request in a thousand.
const ATTEMPTS: u32 = 3;

/// A build that takes this long gets a second one beside it on another middle, if somebody waits. Arbitrary: about
/// the slowest tenth of the public network's circuits.
const SLOW_BUILD: Duration = Duration::from_secs(3);

/// A circuit that carried more than this in the last second is busy: new streams go elsewhere. Half of what one circuit
/// carried before its congestion window was the limit, measured on loopback (8.5 MB/s).
const BUSY_BYTES: u64 = 4_000_000;

/// Streams from which on a circuit counts as busy as well. Arbitrary; a browser opens six to a host.
const BUSY_STREAMS: u16 = 8;

/// Circuits that one isolation key may hold to one exit. Four of them together carried 20 MB/s on loopback, six 25.
const PARALLEL: usize = 4;

/// Pause after the first failed build of a spare; doubles with each failure.
const SPARE_PAUSE: Duration = Duration::from_secs(10);

/// Longest such pause: an exit that is down for hours comes back within it.
const SPARE_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// What makes circuits interchangeable apart from isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The last relay.
    pub exit: Fingerprint,
    /// Relays in all: 2 or 3.
    pub hops: u8,
    /// The port, if connections to it last for hours: such a circuit is made of relays that stay up.
    pub lasting: Option<u16>,
}

/// A build, from the wish to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub u64);

/// Somebody who waits for a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// What the owner of a pool must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Choose a path and build; then say [`Pool::launched`] or [`Pool::build_failed`].
    Build {
        /// Which build.
        build: BuildId,
        /// To where.
        key: Key,
    },
    /// Close a circuit.
    Close(CircuitId),
    /// Tell somebody that a place is theirs. If they are gone: [`Pool::release`].
    Grant {
        /// Whom.
        waiter: WaiterId,
        /// On which circuit.
        circuit: CircuitId,
        /// IpVersion which relays.
        path: Arc<[Fingerprint]>,
    },
    /// Tell somebody that nothing came of it.
    Refuse {
        /// Whom.
        waiter: WaiterId,
        /// Why.
        fault: LeaseFault,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// A place on this circuit.
    Lent(CircuitId, Arc<[Fingerprint]>),
    /// Wait for [`Effect::Grant`] or [`Effect::Refuse`].
    Wait(WaiterId),
}

/// What may be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// See [`crate::tor::Settings::circuits_per_second`].
    pub rate: f64,
    /// See [`crate::tor::Settings::circuit_burst`].
    pub burst: u32,
    /// See [`crate::tor::Settings::circuit_timeout`].
    pub build: Duration,
    /// See [`crate::tor::Settings::streams_per_circuit`].
    pub streams: u16,
    /// See [`crate::tor::Settings::circuit_dirty`].
    pub dirty: Duration,
    /// See [`crate::tor::Settings::circuit_idle`].
    pub idle: Duration,
}

/// A circuit that is built.
#[derive(Clone, Debug)]
struct Circuit {
    key: Key,
    path: Arc<[Fingerprint]>,
    built: Instant,
    /// Whose it is; a spare is nobody's.
    owner: Option<Isolation>,
    first_use: Option<Instant>,
    last_use: Instant,
    streams: u16,
    /// tor will close it: lent only while there is nothing better.
    doomed: bool,
    /// Somebody got no answer over it: not lent any more.
    hung: bool,
    /// Bytes of the last report, and when it came.
    carried: (u64, Instant),
    /// Somebody saw it carry a stream to its target.
    proven: bool,
}

impl Circuit {
    fn is_dirty(&self, dirty: Duration, now: Instant) -> bool {
        self.first_use.is_some_and(|first| now.saturating_duration_since(first) >= dirty)
    }

    fn is_busy(&self, now: Instant) -> bool {
        // Reports come once a second and only for circuits that carried something: an old one says nothing.
        let fresh = now.saturating_duration_since(self.carried.1) < Duration::from_secs(3);
        self.streams >= BUSY_STREAMS || (fresh && self.carried.0 > BUSY_BYTES)
    }
}

/// A build that is wanted or under way.
#[derive(Clone, Debug)]
struct Build {
    key: Key,
    /// For whom; a spare is for nobody.
    owner: Option<Isolation>,
    state: BuildState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BuildState {
    /// Waits for the pace.
    Queued,
    /// tor was asked.
    Started(Instant),
    /// It has an id.
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

/// Those who wait for the same thing.
#[derive(Clone, Debug, Default)]
struct Group {
    waiters: VecDeque<WaiterId>,
    failures: u32,
}

/// What failed lately at one exit.
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
    /// Built circuits by what they are good for.
    by_key: HashMap<Key, Vec<CircuitId>>,
    builds: BTreeMap<BuildId, Build>,
    /// Builds by the id that tor gave them.
    launched: HashMap<CircuitId, BuildId>,
    /// Builds that wait for the pace and for which somebody waits, first come first served.
    awaited: VecDeque<BuildId>,
    /// Builds of spares that wait for the pace.
    spares: VecDeque<BuildId>,
    groups: HashMap<(Key, Isolation), Group>,
    /// Spares to keep here.
    wanted: BTreeMap<Key, u8>,
    trouble: HashMap<Key, Trouble>,
    next: u64,
    effects: Vec<Effect>,
}

/// Numbers for the status of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Circuits that are built.
    pub circuits: usize,
    /// Builds wanted or under way.
    pub building: usize,
    /// Circuits that nobody used yet.
    pub spares: usize,
    /// Streams on all circuits.
    pub streams: usize,
}

/// One circuit, for whoever looks.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Changes the limits; what exists is judged by the new ones from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.pace.set(limits.rate, limits.burst);
    }

    /// Takes what is to be done.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        Counts {
            circuits: self.circuits.len(),
            building: self.builds.len(),
            spares: self.circuits.values().filter(|circuit| circuit.owner.is_none()).count(),
            streams: self.circuits.values().map(|circuit| usize::from(circuit.streams)).sum(),
        }
    }

    /// Every circuit, for whoever looks.
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

    /// True if this circuit, or the build that it comes from, is of this pool.
    pub fn knows(&self, circuit: CircuitId) -> bool {
        self.circuits.contains_key(&circuit) || self.launched.contains_key(&circuit)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
