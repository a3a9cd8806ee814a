//! The memory of the process: sessions, pins, implicit routes, and the last exit of rotating usernames. All of these
//! live longer than a snapshot.
//!
//! A snapshot of the state describes exits and routes. The memory holds which exits clients were given. The memory is
//! not part of the snapshot, because every connection may change the memory. Changes that must survive a restart are
//! collected ([`Memory::changes`]) and stored every few seconds, so most connections do not wait for a disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::escalation::Escalations;
use super::event::Event;
use super::holder::{Holder, HolderRef};
use super::implicit::Implicits;
use super::lru::Sharded;
use super::pin::{PinRecord, Pins};
use super::pinned::Pinned;
use super::session::{SessionRecord, Sessions};
use super::view::View;
use crate::exit::{Exit, Moment, Verdict};

/// The largest number of entries in each table.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub sessions: usize,
    pub pins: usize,
    /// The bound for implicit routes. The same bound holds for the table of last exits of rotating usernames.
    pub implicit: usize,
    /// How long an implicit route lasts after its last use.
    pub implicit_idle: Duration,
}

impl Default for Bounds {
    /// The default bounds. A session or a pin takes about 300 bytes, and an implicit route with its pool about 2 KiB.
    /// All tables together take about 100 MB when they are full.
    fn default() -> Self {
        Self { sessions: 100_000, pins: 100_000, implicit: 10_000, implicit_idle: Duration::from_secs(600) }
    }
}

/// One row that the store must write or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    SessionPut(SessionRecord),
    SessionGone(Holder),
    PinPut(PinRecord),
    PinGone(Holder),
}

/// The sessions, pins and implicit routes of the process. There is only one `Memory` in a process.
#[derive(Debug)]
pub struct Memory {
    sessions: Sessions,
    pins: Pins,
    implicit: Implicits,
    /// Holder with the mode `rotate` → the seed (a hash of the id) of the exit that the holder used last.
    last: Sharded<Holder, u64>,
    escalations: Escalations,
    generation: AtomicU64,
}

impl Memory {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            sessions: Sessions::new(bounds.sessions),
            pins: Pins::new(bounds.pins),
            implicit: Implicits::new(bounds.implicit, bounds.implicit_idle),
            last: Sharded::new(bounds.implicit),
            escalations: Escalations::default(),
            generation: AtomicU64::default(),
        }
    }

    /// Imports the sessions and pins that the store kept.
    pub fn import(
        &self,
        sessions: impl IntoIterator<Item = SessionRecord>,
        pins: impl IntoIterator<Item = PinRecord>,
        now: Moment,
    ) {
        self.sessions.import(sessions, now);
        self.pins.import(pins, now);
        self.changed();
    }

    /// Returns what has changed since the last call. The store then writes these changes. The caller must call this
    /// every few seconds, because the list of changes grows until then.
    pub fn changes(&self) -> Vec<Change> {
        let sessions = self.sessions.changes().into_iter();
        let pins = self.pins.changes().into_iter();
        let sessions = sessions.map(|change| change.map_or_else(Change::SessionGone, Change::SessionPut));
        sessions.chain(pins.map(|change| change.map_or_else(Change::PinGone, Change::PinPut))).collect()
    }

    /// Removes entries that have ended, brings the pools of implicit routes up to date, and records which pinned exits
    /// are down. The caller calls this after each new snapshot and about every ten seconds.
    pub fn tidy(&self, view: View<'_>, now: Moment) -> Vec<Event> {
        let up = |to: &Pinned| view.catalog.get(&to.exit).is_some_and(|exit| is_up(exit, to));
        let events = self.pins.tidy(view.catalog, up, now);
        self.sessions.tidy(now);
        if self.implicit.tidy(view, now) || !events.is_empty() {
            self.changed();
        }
        events
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    pub fn implicit(&self) -> &Implicits {
        &self.implicit
    }

    pub fn escalations(&self) -> &Escalations {
        &self.escalations
    }

    /// Returns a number that increases whenever [`super::wanted::wanted`] may return another result for the same
    /// snapshot.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// Returns the seed (a hash of the id) of the exit that a holder used last. `None` if no last exit is stored.
    pub fn last(&self, holder: HolderRef<'_>) -> Option<u64> {
        let hash = self.last.hash(holder);
        self.last.lock(hash).get(hash, |key| key.is(holder)).copied()
    }

    pub(super) fn set_last(&self, holder: HolderRef<'_>, exit: &Exit) {
        let hash = self.last.hash(holder);
        let mut shard = self.last.lock(hash);
        match shard.get(hash, |key| key.is(holder)) {
            Some(last) => *last = exit.seed(),
            None => drop(shard.insert(hash, holder.to_owned(), exit.seed())),
        }
    }
}

/// Returns true if a pinned exit is up and still has the pinned address. An exit whose check is overdue still counts as
/// up, and so does an exit that its source does not list at the moment, because neither is a reason to change a pinned
/// IP.
pub(super) fn is_up(exit: &Exit, to: &Pinned) -> bool {
    exit.is_kept() && exit.known().verdict != Verdict::Bad && exit.distinct() && exit.pinnable() == Some(to.ip)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::selector::SessionId;
    use super::super::{Event, Policy};
    use super::*;

    fn named(changes: &[Change]) -> Vec<String> {
        let line = |change: &Change| match change {
            Change::SessionPut(record) => format!("session {} on {}", record.holder, number(&record.exit)),
            Change::SessionGone(holder) => format!("session {holder} gone"),
            Change::PinPut(record) => format!("pin {} on {}", record.holder, number(&record.to.exit)),
            Change::PinGone(holder) => format!("pin {holder} gone"),
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn each_change_is_stored_once() {
        let mut world = World::new(&["US", "DE"]);
        (0..5).for_each(|_| _ = world.decide("us-session-a").unwrap());
        (0..5).for_each(|_| _ = world.decide("de-strict").unwrap());
        let first = world.memory.changes();
        assert_eq!(named(&first), ["session us-session-a on 0", "pin de-strict on 1"]);
        assert!(world.memory.changes().is_empty());
        // The time of a last use is not written to the store at each use, but only from time to time.
        world.pass(MINUTE);
        world.first("us-session-a");
        assert!(world.memory.changes().is_empty());
        world.pass(MINUTE);
        world.first("us-session-a");
        world.first("de-strict");
        assert_eq!(named(&world.memory.changes()), ["session us-session-a on 0"]);
        world.pass(60 * MINUTE);
        world.first("de-strict");
        world.tidy();
        assert_eq!(named(&world.memory.changes()), ["session us-session-a gone", "pin de-strict on 1"]);
        assert_eq!(world.memory.pins().forget(|holder, _| holder.scope == "de-strict", world.now).len(), 1);
        assert_eq!(named(&world.memory.changes()), ["pin de-strict gone"]);
    }

    #[test]
    fn the_use_of_a_short_pin_is_stored_after_an_eighth_of_its_life() {
        let mut world = World::new(&["US"]);
        world.first("us-strict-session-a-ttl-16m");
        assert_eq!(world.memory.changes().len(), 1);
        world.pass(2 * MINUTE);
        world.first("us-strict-session-a-ttl-16m");
        assert!(world.memory.changes().is_empty());
        world.pass(SECOND);
        world.first("us-strict-session-a-ttl-16m");
        assert_eq!(named(&world.memory.changes()), ["pin us-strict-session-a on 0"]);
    }

    #[test]
    fn what_was_stored_restores_the_same_memory() {
        let mut world = World::new(&["US"; 30]);
        world.route("alone", "us-strict", Policy { exclusive: true, ..Policy::default() });
        let names: Vec<String> = (0..10)
            .flat_map(|n| {
                [format!("us-session-s{n}"), format!("us-strict-session-s{n}"), format!("alone-session-s{n}")]
            })
            .collect();
        let before: Vec<u16> = names.iter().map(|name| world.first(name)).collect();
        let mut after = World { routes: world.routes.clone(), ..world.restart() };
        after.memory = Memory::new(Bounds::default());
        let (mut sessions, mut pins) = (Vec::new(), Vec::new());
        for change in world.memory.changes() {
            match change {
                Change::SessionPut(record) => sessions.push(record),
                Change::PinPut(record) => pins.push(record),
                gone => panic!("{gone:?}"),
            }
        }
        after.memory.import(sessions, pins, after.now);
        assert_eq!(names.iter().map(|name| after.first(name)).collect::<Vec<_>>(), before);
        assert!(after.memory.changes().is_empty());
        let uses = |world: &World| (0..30).map(|n| world.memory.pins().uses(ip(n))).collect::<Vec<_>>();
        assert_eq!(uses(&after), uses(&world));
    }

    #[test]
    fn tables_are_bounded_and_report_what_they_evict() {
        let mut world = World::new(&["US"; 10]);
        let bounds = Bounds { sessions: 5, pins: 4, implicit: 3, implicit_idle: 10 * MINUTE };
        world.memory = Memory::new(bounds);
        (0..9).for_each(|n| _ = world.first(&format!("us-session-s{n}")));
        assert_eq!(world.memory.sessions().len(), 5);
        let gone = world.memory.changes().iter().filter(|change| matches!(change, Change::SessionGone(_))).count();
        assert_eq!(gone, 4);
        let mut evicted = Vec::new();
        for n in 0..6 {
            world.first("us-strict-session-s0");
            let plan = world.decide(&format!("us-strict-session-s{n}")).unwrap();
            evicted.extend(plan.events.into_iter().filter_map(|event| match event {
                Event::PinEnded { holder, evicted: true, .. } => holder.session.map(|session| session.to_string()),
                _ => None,
            }));
        }
        assert_eq!(evicted, ["s1", "s2"], "what is used stays");
        assert_eq!(world.memory.pins().len(), 4);
        assert_eq!((0..10).map(|n| world.memory.pins().uses(ip(n))).sum::<u32>(), 4);
        (1..6).for_each(|n| _ = world.first(&format!("us-asn-{n}")));
        assert_eq!(world.memory.implicit().len(), 3);
    }

    #[test]
    fn an_idle_implicit_route_ends_and_its_pins_and_sessions_stay() {
        let mut world = World::new(&["US"; 20]);
        let (session, pin) = (world.first("us-session-a-ttl-24h"), world.first("us-strict"));
        let generation = world.memory.generation();
        world.pass(10 * MINUTE);
        world.tidy();
        assert!(world.memory.implicit().is_empty() && world.memory.generation() > generation);
        assert_eq!((world.first("us-session-a-ttl-24h"), world.first("us-strict")), (session, pin));
        assert_eq!(world.memory.implicit().len(), 1);
    }

    #[test]
    fn an_implicit_pool_follows_the_catalog_and_the_policy() {
        let mut world = World::new(&["US"; 6]);
        world.first("us");
        let pool = |world: &World| world.memory.implicit().list()[0].pool();
        let before = pool(&world);
        assert_eq!(before.have(), 3);
        world.join(9, "US");
        world.tidy();
        assert!(std::sync::Arc::ptr_eq(&before, &pool(&world)), "nothing that concerns it");
        world.kill(number(before.members()[1].id()));
        world.tidy();
        assert_eq!(pool(&world).have(), 3);
        assert_eq!([0, 2].map(|at| before.members()[at].clone()), pool(&world).members()[..2]);
        world.routes = world.routes.configured(words(), Policy { pool: 5, ..Policy::default() });
        world.first("us");
        assert_eq!((pool(&world).have(), world.memory.implicit().len()), (5, 1));
        assert!(pool(&world).members().starts_with(&[before.members()[0].clone()]));
    }

    #[test]
    fn a_sessions_exit_can_be_looked_up() {
        let mut world = World::new(&["US"; 5]);
        let home = world.first("us-session-a");
        let session = SessionId::parse("a").unwrap();
        let asked = HolderRef { key: "", scope: "us", session: Some(&session) };
        assert_eq!(world.memory.sessions().of(asked, world.now), Some(id(home)));
        assert_eq!(world.memory.sessions().of(HolderRef { key: "other", ..asked }, world.now), None);
        assert_eq!(world.memory.sessions().of(asked, world.now.after(10 * MINUTE)), None);
    }
}
