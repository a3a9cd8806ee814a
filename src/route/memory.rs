//! What outlives a snapshot: sessions, pins, implicit routes, and which exit was last.
//!
//! A snapshot says what *is*; this remembers what was promised. It is written by the data path, so it is not part of
//! the snapshot, and a store copies what must survive a restart behind its back ([`Memory::changes`]), so that no
//! connection waits for a disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::choose::View;
use super::event::Event;
use super::holder::{Holder, HolderRef};
use super::implicit::Implicits;
use super::lru::Sharded;
use super::pin::{PinRecord, Pinned, Pins};
use super::session::{SessionRecord, Sessions};
use crate::exit::{Exit, Moment, Verdict};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Sessions at once.
    pub sessions: usize,
    /// Pins at once.
    pub pins: usize,
    /// Implicit routes at once.
    pub implicit: usize,
    /// How long an implicit route lasts unused.
    pub implicit_idle: Duration,
}

impl Default for Bounds {
    /// A session or a pin takes some 300 bytes, an implicit route with its pool some 2 KiB: about 100 MB when all are
    /// full, which no honest fleet of scrapers reaches.
    fn default() -> Self {
        Self { sessions: 100_000, pins: 100_000, implicit: 10_000, implicit_idle: Duration::from_secs(600) }
    }
}

/// One thing that the store has to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session is new or other.
    SessionPut(SessionRecord),
    /// A session is no more.
    SessionGone(Holder),
    /// A pin is new or other.
    PinPut(PinRecord),
    /// A pin is no more.
    PinGone(Holder),
}

/// There is one in the process, shared by all who decide.
#[derive(Debug)]
pub struct Memory {
    sessions: Sessions,
    pins: Pins,
    implicit: Implicits,
    /// The last exit of those who want another each time, by its seed.
    last: Sharded<Holder, u64>,
    generation: AtomicU64,
}

impl Memory {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            sessions: Sessions::new(bounds.sessions),
            pins: Pins::new(bounds.pins),
            implicit: Implicits::new(bounds.implicit, bounds.implicit_idle),
            last: Sharded::new(bounds.implicit),
            generation: AtomicU64::default(),
        }
    }

    /// Takes in what the store had.
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

    /// What the store has to write since the last call. Somebody must call it every few seconds: what changed is
    /// remembered until then.
    pub fn changes(&self) -> Vec<Change> {
        let sessions = self.sessions.changes().into_iter();
        let pins = self.pins.changes().into_iter();
        let sessions = sessions.map(|change| change.map_or_else(Change::SessionGone, Change::SessionPut));
        sessions.chain(pins.map(|change| change.map_or_else(Change::PinGone, Change::PinPut))).collect()
    }

    /// Keeps house; to be called after each new snapshot, and every ten seconds or so. What has ended goes, pools of
    /// implicit routes are brought up to date, and pins learn whether their exits are up.
    pub fn tidy(&self, view: View<'_>, now: Moment) -> Vec<Event> {
        let up = |to: &Pinned| view.catalog.get(&to.exit).is_some_and(|exit| is_up(exit, to));
        let events = self.pins.tidy(up, now);
        self.sessions.tidy(now);
        if self.implicit.tidy(view, now) || !events.is_empty() {
            self.changed();
        }
        events
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The implicit routes.
    pub fn implicit(&self) -> &Implicits {
        &self.implicit
    }

    /// Goes up whenever [`super::wanted::wanted`] may have another answer for the same snapshot.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// The exit that a holder had last, by its seed.
    pub(super) fn last(&self, holder: HolderRef<'_>) -> Option<u64> {
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

/// A pinned exit is up as long as nothing speaks against it: an overdue check is no reason to break a promise, another
/// address is one.
pub(super) fn is_up(exit: &Exit, to: &Pinned) -> bool {
    exit.alive() && exit.known().verdict != Verdict::Bad && exit.distinct() && exit.v4() == Some(to.ip)
}
