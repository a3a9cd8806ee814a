//! The circuits of one engine: which of them to lend, to build and to close. Pure: no I/O.
//!
//! Every method that needs the time gets it as an argument. The methods collect [`Effect`]s: start a build, close a
//! circuit, answer a waiting request. The owner of the pool takes the effects and carries them out. So each rule of
//! this module has a test without a tor process.
//!
//! Each circuit belongs to an isolation key, which says whose streams may use the circuit. A request for a circuit gets
//! the first of the following circuits that exists:
//!
//! - a circuit of the request's own isolation key that is not busy
//! - a spare circuit, which then belongs to that key
//! - a busy circuit of that key
//! - a doomed circuit of that key
//!
//! If there is no such circuit, the request waits for the build of one. All requests for the same kind of circuit wait
//! together. A request whose build could not begin before its deadline is refused immediately (`pool/admission.rs`). A
//! check of an exit never gets a spare circuit (built before it is needed), because spares are for clients.
//!
//! A circuit is *doomed* when tor will close it soon, which happens after some failures of a target. A doomed circuit is
//! used only while its replacement is being built.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::build_rate::{BuildClass, BuildRate};
use crate::exit::Fingerprint;
use crate::route::Isolation;
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;
use crate::tor::path::Link;

use admission::BuildTimes;

mod admission;
mod lend;
mod silent_guard;
#[cfg(test)]
mod tests;
mod upkeep;

/// The number of failed circuit builds in a row after which the requests that wait for the circuit get an error. If one
/// middle relay in ten is bad, all three builds fail for only one request in a thousand.
const ATTEMPTS: u32 = 3;

/// The number of failed circuit builds in a row after which a check of an exit gets an error. If one middle relay in
/// ten is bad, both builds fail for one check in a hundred, and the tester repeats this check later. A third build for
/// every check of a dead exit would cost more.
const CHECK_ATTEMPTS: u32 = 2;

/// How long the circuit of a check is kept without a stream. A check sends its requests one after the other, and the
/// pause between two of them is far below a second. The next check of the exit comes much later.
const CHECK_IDLE: Duration = Duration::from_secs(5);

/// If a client waits for a circuit whose build takes longer than this, a second build over another middle relay is
/// started in parallel. On the public network about one build in twenty takes longer. The second build is started
/// earlier if 19 of 20 recent builds needed less time than this.
const SLOW_BUILD: Duration = Duration::from_secs(3);

/// The least time before a second build is started in parallel. Not tuned: half of all builds on the public network take
/// 0.4 to 0.8 s.
const SLOW_BUILD_MIN: Duration = Duration::from_secs(1);

/// A circuit that carried more bytes than this in the last second is busy, and new streams use other circuits. The
/// value is about half of what one circuit can carry: in a test on loopback, the congestion window limited a circuit to
/// 8.5 MB/s.
const BUSY_BYTES: u64 = 4_000_000;

/// A circuit with at least this number of streams is also busy. Any value from 6 to 16 works: a browser opens six
/// connections to a host.
const BUSY_STREAMS: u16 = 8;

/// The most circuits of one isolation key to one exit. In a test on loopback four circuits together carried 20 MB/s,
/// and six carried 25 MB/s.
const PARALLEL: usize = 4;

/// The pause after the first failed build of a spare circuit, before the next build to the same exit. The pause doubles
/// with each further failure.
const SPARE_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause between two builds of spare circuits to an exit for which builds fail.
const SPARE_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// The kind of circuit that a request needs. Circuits with equal `Key` and equal isolation key are interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The last relay of the circuit.
    pub exit: Fingerprint,
    /// The number of relays in the circuit: 2 or 3.
    pub hops: u8,
    /// The target's port, if connections to this port usually last for hours. Such a circuit uses relays that stay up
    /// long. `None` for every other port.
    pub lasting: Option<u16>,
}

/// The id of a circuit build. It is valid from the time when the build is queued until the build ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub u64);

/// The id of a request that waits for a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// Who needs a circuit, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The isolation key. Requests with the same key may share circuits.
    pub isolation: Isolation,
    /// [`BuildClass::Live`] for a client, [`BuildClass::Check`] for the tester of exits.
    pub class: BuildClass,
}

/// An action that the owner of the pool must carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Choose a path and start the build. Then call [`Pool::launched`] or [`Pool::build_failed`].
    Build { build: BuildId, key: Key },
    /// Close a circuit.
    Close(CircuitId),
    /// Give a place on a circuit to a waiting request. If that request is gone, call [`Pool::release`].
    Grant { waiter: WaiterId, circuit: CircuitId, path: Arc<[Fingerprint]> },
    /// Answer a waiting request with an error.
    Refuse { waiter: WaiterId, fault: LeaseFault },
}

/// The pool's answer to a request for a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The request has a place on this circuit.
    Lent(CircuitId, Arc<[Fingerprint]>),
    /// The request must wait for [`Effect::Grant`] or [`Effect::Refuse`].
    Wait(WaiterId),
    /// The request is refused, because its build could not begin before its deadline.
    Busy,
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

/// A circuit whose build is complete.
#[derive(Clone, Debug)]
struct Circuit {
    key: Key,
    path: Arc<[Fingerprint]>,
    built: Instant,
    /// The isolation key that the circuit belongs to. `None` for a spare circuit.
    owner: Option<Isolation>,
    /// True if the circuit carries streams of checks. False if the circuit carries clients' streams, or no stream yet.
    check: bool,
    first_use: Option<Instant>,
    last_use: Instant,
    streams: u16,
    /// True if tor will close the circuit soon. Such a circuit gets a new stream only if there is no other circuit.
    doomed: bool,
    /// True if a stream on this circuit got no answer. Such a circuit gets no new streams.
    hung: bool,
    /// The bytes that the circuit carried in one second, from tor's last report, and the time of that report.
    carried: (u64, Instant),
    /// True if a stream on this circuit has reached its target.
    proven: bool,
}

impl Circuit {
    fn is_dirty(&self, dirty: Duration, now: Instant) -> bool {
        self.first_use.is_some_and(|first| now.saturating_duration_since(first) >= dirty)
    }

    fn is_busy(&self, now: Instant) -> bool {
        // tor reports the traffic of a circuit once a second, and only if the circuit carried data. So if the last
        // report is three seconds old, the circuit carries no data now.
        let fresh = now.saturating_duration_since(self.carried.1) < Duration::from_secs(3);
        self.streams >= BUSY_STREAMS || (fresh && self.carried.0 > BUSY_BYTES)
    }
}

/// A circuit build that is queued or under way.
#[derive(Clone, Debug)]
struct Build {
    key: Key,
    class: BuildClass,
    /// The isolation key that the circuit will belong to. `None` for a spare circuit.
    owner: Option<Isolation>,
    state: BuildState,
    /// The number of relays that have answered this build, and the time of the last answer. `None` before the first
    /// answer.
    reached: (usize, Option<Instant>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BuildState {
    /// The build waits until the [`BuildRate`] allows it.
    Queued,
    /// The command to build the circuit was sent to tor at this time.
    Started(Instant),
    /// tor has answered the command with this circuit id. The time is that of the command.
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

/// The requests that wait for the same kind of circuit.
#[derive(Clone, Debug)]
struct Group {
    class: BuildClass,
    waiters: VecDeque<WaiterId>,
    failures: u32,
}

impl Group {
    /// Returns the number of failed builds in a row after which the requests that wait for this circuit get an error.
    fn attempts(&self) -> u32 {
        if self.class == BuildClass::Check { CHECK_ATTEMPTS } else { ATTEMPTS }
    }
}

/// The builds that wait until the [`BuildRate`] allows them, in order of arrival.
#[derive(Debug, Default)]
struct Queues {
    live: VecDeque<BuildId>,
    spares: VecDeque<BuildId>,
    checks: VecDeque<BuildId>,
}

impl Queues {
    /// Returns the queue of a class. Nudges (test circuits) are never queued: the engine tries again later by itself.
    fn of(&mut self, class: BuildClass) -> &mut VecDeque<BuildId> {
        match class {
            BuildClass::Live | BuildClass::Nudge => &mut self.live,
            BuildClass::Spare => &mut self.spares,
            BuildClass::Check => &mut self.checks,
        }
    }

    fn remove(&mut self, id: BuildId) {
        [&mut self.live, &mut self.spares, &mut self.checks].into_iter().for_each(|q| q.retain(|other| *other != id));
    }
}

/// The recent failures of spare circuits of one kind. No new spare of this kind is built before the time `until`.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
}

/// The circuits of one engine (tor process), and its circuit builds.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    pace: BuildRate,
    circuits: HashMap<CircuitId, Circuit>,
    /// The kind of circuit → the ids of the complete circuits of this kind.
    by_key: HashMap<Key, Vec<CircuitId>>,
    builds: BTreeMap<BuildId, Build>,
    /// The circuit id that tor has assigned to a running build → the id of the build.
    launched: HashMap<CircuitId, BuildId>,
    queues: Queues,
    times: BuildTimes,
    groups: HashMap<(Key, Isolation), Group>,
    /// The kind of circuit → the number of spare circuits to keep.
    wanted: BTreeMap<Key, u8>,
    trouble: HashMap<Key, Trouble>,
    /// The time when the guard last answered a build. `None` if the guard has answered none.
    heard: Option<Instant>,
    next: u64,
    effects: Vec<Effect>,
}

/// The counts of circuits and streams that the status of an engine shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of complete circuits.
    pub circuits: usize,
    /// The number of builds that are queued or under way.
    pub building: usize,
    /// The number of complete circuits that were never used.
    pub spares: usize,
    /// The number of streams on all circuits.
    pub streams: usize,
}

/// One circuit, as [`Pool::views`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
pub struct View {
    /// The circuit's id, which tor chose.
    pub id: CircuitId,
    /// The relays of the circuit, guard first.
    pub path: Arc<[Fingerprint]>,
    /// The state of the circuit: `spare` (never used), `used`, `dirty` (too old for new streams) or `doomed` (tor will
    /// close it soon).
    pub state: &'static str,
    /// The number of streams on the circuit.
    pub streams: u16,
    /// The time since the circuit was built.
    pub age: Duration,
}

impl Pool {
    /// Returns a pool without circuits.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            pace: BuildRate::new(limits.rate, limits.burst, now),
            circuits: HashMap::new(),
            by_key: HashMap::new(),
            builds: BTreeMap::new(),
            launched: HashMap::new(),
            queues: Queues::default(),
            times: BuildTimes::default(),
            groups: HashMap::new(),
            wanted: BTreeMap::new(),
            trouble: HashMap::new(),
            heard: None,
            next: 0,
            effects: Vec::new(),
        }
    }

    /// Changes the limits. The new limits also apply to existing circuits.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.pace.set(limits.rate, limits.burst);
    }

    /// Returns the effects collected since the last call, and removes them from the pool.
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

    /// Returns true if this circuit, or the build of this circuit, belongs to this pool.
    pub fn knows(&self, circuit: CircuitId) -> bool {
        self.circuits.contains_key(&circuit) || self.launched.contains_key(&circuit)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
