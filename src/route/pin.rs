//! Pins: the one IP of a strict route, which lasts for weeks and over restarts.
//!
//! A pin makes a promise to its owner: the address that sites see stays the same. A pin holds the exit *and* the IPv4
//! address that was observed, because for every site an exit with a new address is another exit. While the exit is
//! down, connections get an error. A pin moves to another address only if its exit has been down for `repin_after`, or
//! if the pin is rotated. Each change is an [`Event`].
//!
//! A pin belongs to the client's key, the name of the route (or the selector) and the session, and not to a route
//! object. So the pin lives on if its route is deleted and made again.
//!
//! [`Claims`] counts how many pins use each address. The table of pins and the counts change together: the shard of the
//! pin is locked first, and the address is locked inside that lock. So two threads can neither make two pins for one
//! holder nor give one address to two exclusive pins.
//!
//! The table is bounded. When the table is full, the pin that was unused for the longest time is evicted. An eviction
//! is an event, too.
//!
//! Next: `route/choose/strict.rs` proposes exits.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use super::claim::Claims;
use super::event::{Cause, Event};
use super::holder::{Holder, HolderRef};
use super::lru::{Sharded, open};
use super::pinned::Pinned;
use super::session::Term;
use crate::exit::catalog::Bits;
use crate::exit::{Catalog, Moment};

/// The time of a pin's last use is written to the store again after `RESAVE`, or after one eighth (1 / `RESAVE_SHARE`)
/// of the pin's lifetime if that is shorter. Not tuned: a crash loses at most one hour of a lifetime of weeks.
const RESAVE: Duration = Duration::from_secs(3600);
const RESAVE_SHARE: u32 = 8;

/// One pin in the form in which the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    pub holder: Holder,
    pub to: Pinned,
    pub made: Moment,
    /// When the pin was last used.
    pub used: Moment,
    pub term: Term,
    /// True if no other pin may use the pin's address.
    pub exclusive: bool,
}

/// A pin in the state in which one connection finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CurrentPin {
    pub(super) to: Pinned,
    pub(super) made: Moment,
    /// Since when the pinned exit has been down. `None` while the exit is up.
    pub(super) down: Option<Moment>,
}

/// What is known about the exit of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinnedExit {
    /// The exit is up, has the pinned address, and meets the selector of the route.
    Fits,
    /// The exit is up and has the pinned address. Whether the exit meets the selector was not looked at.
    Up,
    Down,
    /// The exit is up, but does not meet the selector of the route: for example, it moved to another country.
    Unfit,
}

/// The answer to the proposal of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PinResult {
    /// The pin was made. The events report it.
    Made(Vec<Event>),
    /// The holder already has another pin, which is returned.
    Other(Pinned),
    /// The address is not free. Either an exclusive pin uses the address, or any pin uses it and the new pin is to be
    /// exclusive.
    Taken,
}

/// All pins of the process.
#[derive(Debug)]
pub struct Pins {
    table: Sharded<Holder, PinEntry>,
    claims: Claims,
    /// The holders whose pin has changed since the store last wrote it.
    unsaved: Mutex<Vec<Holder>>,
}

#[derive(Debug)]
struct PinEntry {
    to: Pinned,
    made: Moment,
    used: Moment,
    saved: Moment,
    down: Option<Moment>,
    /// Since when the pinned exit, although it is up, does not meet the selector of the route. `None` if it does.
    unfit: Option<Moment>,
    term: Term,
    exclusive: bool,
    /// True if the holder is in the list `unsaved`.
    listed: bool,
}

impl PinEntry {
    fn ends(&self) -> Moment {
        let from = if self.term.fixed { self.made } else { self.used };
        from.after(self.term.span)
    }

    /// Returns since when the exit has been of no use to the pin. `None` if the pin can use the exit.
    fn gone(&self) -> Option<Moment> {
        self.down.into_iter().chain(self.unfit).min()
    }

    fn current(&self) -> CurrentPin {
        CurrentPin { to: self.to.clone(), made: self.made, down: self.gone() }
    }
}

impl Pins {
    pub(super) fn new(bound: usize) -> Self {
        Self { table: Sharded::new(bound), claims: Claims::default(), unsaved: Mutex::default() }
    }

    /// The number of pins. A pin that has ended counts until [`Pins::tidy`] removes it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "clippy wants it beside `len`; tests use it"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn uses(&self, ip: IpAddr) -> u32 {
        self.claims.uses(ip)
    }

    /// Returns the exits of the set `of` whose addresses a new pin may use and whose addresses the fewest pins use.
    pub(super) fn least_used(&self, catalog: &Catalog, of: &Bits, exclusive: bool) -> Bits {
        self.claims.least_used(catalog, of, exclusive)
    }

    /// Returns the exits whose addresses a new pin may not use.
    pub(super) fn taken(&self, catalog: &Catalog, exclusive: bool) -> Bits {
        self.claims.taken(catalog, exclusive)
    }

    /// Returns the exit and address of the holder's pin. This does not count as a use of the pin.
    pub fn of(&self, holder: HolderRef<'_>, now: Moment) -> Option<Pinned> {
        self.peek(holder, now).map(|pin| pin.to)
    }

    /// Returns the holder's pin. This does not count as a use of the pin.
    pub(super) fn peek(&self, holder: HolderRef<'_>, now: Moment) -> Option<CurrentPin> {
        let hash = self.table.hash(holder);
        let shard = self.table.lock(hash);
        let entry = shard.peek(hash, |key| key.is(holder)).filter(|entry| entry.ends() > now)?;
        Some(entry.current())
    }

    /// Returns every pin that has not ended, in no particular order.
    pub fn list(&self, now: Moment) -> Vec<PinRecord> {
        let mut all = Vec::new();
        for shard in self.table.each() {
            all.extend(
                shard.iter().filter(|(_, entry)| entry.ends() > now).map(|(holder, entry)| record(holder, entry)),
            );
        }
        all
    }

    /// Returns how many pins use an address. `None` if a new pin may not use the address.
    pub(super) fn free(&self, ip: IpAddr, exclusive: bool) -> Option<u32> {
        self.claims.free(ip, exclusive)
    }

    /// Returns the holder's pin, and records that the pin is used now.
    pub(super) fn touch(&self, holder: HolderRef<'_>, now: Moment) -> Option<CurrentPin> {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let entry = shard.get(hash, |key| key.is(holder)).filter(|entry| entry.ends() > now)?;
        entry.used = entry.used.max(now);
        let resave = !entry.listed && now.since(entry.saved) > RESAVE.min(entry.term.span / RESAVE_SHARE);
        entry.listed |= resave;
        let pin = entry.current();
        drop(shard);
        if resave {
            open(&self.unsaved).push(holder.to_owned());
        }
        Some(pin)
    }

    /// Records what is known about the exit of a pin. Returns since when the exit has been of no use to the pin. `None`
    /// if the pin can use the exit, or if the pin has changed.
    pub(super) fn note(&self, holder: HolderRef<'_>, to: &Pinned, is: PinnedExit, now: Moment) -> Option<Moment> {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let entry = shard.find_mut(hash, |key| key.is(holder)).filter(|entry| entry.to == *to)?;
        match is {
            PinnedExit::Fits => (entry.down, entry.unfit) = (None, None),
            PinnedExit::Up => entry.down = None,
            PinnedExit::Down => entry.down = entry.down.or(Some(now)),
            PinnedExit::Unfit => entry.unfit = entry.unfit.or(Some(now)),
        }
        entry.gone()
    }

    /// Makes a pin for a holder that has no pin, or whose pin is still `instead_of`.
    pub(super) fn pin(
        &self,
        holder: HolderRef<'_>,
        to: &Pinned,
        instead_of: Option<(&Pinned, Cause)>,
        (term, exclusive): (Term, bool),
        now: Moment,
    ) -> PinResult {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let before = match shard.find_mut(hash, |key| key.is(holder)) {
            Some(entry) if entry.ends() > now && instead_of.is_none_or(|(old, _)| *old != entry.to) => {
                return PinResult::Other(entry.to.clone());
            }
            Some(entry) => Some((entry.to.clone(), entry.exclusive, entry.listed)),
            None => None,
        };
        let same = before.as_ref().filter(|(old, ..)| old.ip == to.ip).map(|(_, exclusive, _)| *exclusive);
        if !self.claims.take(to.ip, exclusive, same) {
            return PinResult::Taken;
        }
        if let (Some((old, exclusive, _)), None) = (&before, same) {
            self.claims.give_back(old.ip, *exclusive);
        }
        let entry = PinEntry {
            to: to.clone(),
            made: now,
            used: now,
            saved: now,
            down: None,
            unfit: None,
            term,
            exclusive,
            listed: true,
        };
        let gone = match shard.find_mut(hash, |key| key.is(holder)) {
            Some(old) => {
                *old = entry;
                None
            }
            None => shard.insert(hash, holder.to_owned(), entry),
        };
        drop(shard);
        self.made(holder, to, before, instead_of.map(|(_, cause)| cause), gone, now)
    }

    fn made(
        &self,
        holder: HolderRef<'_>,
        to: &Pinned,
        before: Option<(Pinned, bool, bool)>,
        cause: Option<Cause>,
        gone: Option<(Holder, PinEntry)>,
        now: Moment,
    ) -> PinResult {
        let mut events = Vec::new();
        if before.as_ref().is_none_or(|(_, _, listed)| !listed) {
            open(&self.unsaved).push(holder.to_owned());
        }
        let holder = holder.to_owned();
        events.push(match (before, cause) {
            (Some((from, ..)), Some(cause)) => Event::PinMoved { holder, from, to: to.clone(), cause },
            _ => Event::PinMade { holder, to: to.clone() },
        });
        events.extend(gone.map(|(holder, entry)| self.ended(holder, entry, now)));
        PinResult::Made(events)
    }

    /// Releases the address of a pin that was removed, and makes the store delete the pin.
    fn ended(&self, holder: Holder, entry: PinEntry, now: Moment) -> Event {
        self.claims.give_back(entry.to.ip, entry.exclusive);
        if !entry.listed {
            open(&self.unsaved).push(holder.clone());
        }
        let evicted = entry.ends() > now;
        Event::PinEnded { holder, was: entry.to, evicted }
    }

    /// Imports the pins that the store kept, except pins that have ended meanwhile.
    pub(super) fn import(&self, records: impl IntoIterator<Item = PinRecord>, now: Moment) {
        for PinRecord { holder, to, made, used, term, exclusive } in records {
            let entry =
                PinEntry { to, made, used, saved: used, down: None, unfit: None, term, exclusive, listed: false };
            let hash = self.table.hash(holder.as_ref());
            let mut shard = self.table.lock(hash);
            if entry.ends() <= now || shard.peek(hash, |key| *key == holder).is_some() {
                continue;
            }
            // A pin that was read from the store stays valid. If another exclusive pin has the same address already,
            // the pin is kept but is no longer exclusive.
            let exclusive = exclusive && self.claims.take(entry.to.ip, true, None);
            if !exclusive {
                self.claims.force(entry.to.ip);
            }
            shard.insert(hash, holder, PinEntry { exclusive, ..entry });
        }
    }

    /// Returns what the store must write: `Ok` with a pin to save, or `Err` with a holder whose pin must be deleted.
    pub(super) fn changes(&self) -> Vec<Result<PinRecord, Holder>> {
        let holders = std::mem::take(&mut *open(&self.unsaved));
        let change = |holder: Holder| {
            let hash = self.table.hash(holder.as_ref());
            match self.table.lock(hash).find_mut(hash, |key| *key == holder) {
                None => Err(holder),
                Some(entry) => {
                    (entry.listed, entry.saved) = (false, entry.used);
                    Ok(record(&holder, entry))
                }
            }
        };
        holders.into_iter().map(change).collect()
    }

    /// Removes pins that have ended, and records which pinned exits are down. `up` returns true if a pinned exit is up.
    pub(super) fn tidy(&self, catalog: &Catalog, up: impl Fn(&Pinned) -> bool, now: Moment) -> Vec<Event> {
        self.claims.follow(catalog);
        let mut events = Vec::new();
        for mut shard in self.table.each() {
            let ended = shard.take_if(|_, entry| entry.ends() <= now);
            let left = shard.iter().map(|(holder, entry)| (holder.clone(), entry.to.clone(), entry.down.is_some()));
            let left: Vec<_> = left.collect();
            drop(shard);
            events.extend(ended.into_iter().map(|(holder, entry)| self.ended(holder, entry, now)));
            for (holder, to, was_down) in left {
                let is = if up(&to) { PinnedExit::Up } else { PinnedExit::Down };
                if was_down != (is == PinnedExit::Down) {
                    self.note(holder.as_ref(), &to, is, now);
                }
            }
        }
        events
    }

    /// Removes every pin for which `gone` returns true.
    pub fn forget(&self, gone: impl Fn(HolderRef<'_>, &Pinned) -> bool, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        for mut shard in self.table.each() {
            let ended = shard.take_if(|holder, entry| gone(holder.as_ref(), &entry.to));
            drop(shard);
            events.extend(ended.into_iter().map(|(holder, entry)| self.released(holder, entry, now)));
        }
        events
    }

    /// Does the same as [`Self::ended`] for a pin that was removed on purpose. The event says that the pin was not
    /// evicted.
    fn released(&self, holder: Holder, entry: PinEntry, now: Moment) -> Event {
        match self.ended(holder, entry, now) {
            Event::PinEnded { holder, was, .. } => Event::PinEnded { holder, was, evicted: false },
            event => event,
        }
    }
}

fn record(holder: &Holder, entry: &PinEntry) -> PinRecord {
    let PinEntry { to, made, used, term, exclusive, .. } = entry;
    PinRecord { holder: holder.clone(), to: to.clone(), made: *made, used: *used, term: *term, exclusive: *exclusive }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{ExitId, Fingerprint};

    const START: Moment = Moment(1_788_314_400_000_000);
    const HOLDER: HolderRef<'_> = HolderRef { key: "k", scope: "shop", session: None };
    const HOUR: Duration = Duration::from_secs(3600);
    const TICK: Duration = Duration::from_micros(1);
    /// A pin with this term ends eight hours after its last use.
    const TERM: Term = Term { span: Duration::from_secs(8 * 3600), fixed: false };

    fn to(n: u8) -> Pinned {
        Pinned { exit: ExitId::Tor(Fingerprint([n; 20])), ip: [198, 18, 0, n].into() }
    }

    fn pinned(term: Term) -> Pins {
        let pins = Pins::new(100);
        assert!(pins.is_empty());
        assert!(matches!(pins.pin(HOLDER, &to(1), None, (term, false), START), PinResult::Made(_)));
        assert!(!pins.is_empty());
        assert_eq!(pins.changes().len(), 1, "a new pin is written");
        pins
    }

    #[test]
    fn a_pin_ends_when_its_time_is_over() {
        let (last, end) = (Moment(START.after(TERM.span).0 - 1), START.after(TERM.span));
        let pins = pinned(TERM);
        assert!(pins.peek(HOLDER, last).is_some() && pins.of(HOLDER, last).is_some() && pins.list(last).len() == 1);
        assert!(pins.peek(HOLDER, end).is_none() && pins.of(HOLDER, end).is_none() && pins.list(end).is_empty());
        assert!(pins.touch(HOLDER, end).is_none());
        assert_eq!(pins.pin(HOLDER, &to(2), None, (TERM, false), last), PinResult::Other(to(1)));
        assert!(matches!(pins.pin(HOLDER, &to(2), None, (TERM, false), end), PinResult::Made(_)));
        let pins = pinned(TERM);
        assert!(pins.touch(HOLDER, last).is_some() && pins.of(HOLDER, end).is_some(), "a use makes it last longer");
        let fixed = pinned(Term { fixed: true, ..TERM });
        assert!(fixed.touch(HOLDER, last).is_some() && fixed.of(HOLDER, end).is_none(), "a use does not count");
        for (pins, at, left) in [(pinned(TERM), last, 1), (pinned(TERM), end, 0)] {
            let ended = pins.tidy(&Catalog::default(), |_| true, at);
            assert_eq!((pins.len(), ended.len()), (left, 1 - left));
            assert!(ended.iter().all(|event| matches!(event, Event::PinEnded { evicted: false, .. })));
        }
    }

    #[test]
    fn a_use_is_written_after_an_hour_and_once() {
        let short = Term { span: Duration::from_secs(80), fixed: false };
        let long = Term { span: 240 * HOUR, fixed: false };
        for (term, after) in [(TERM, HOUR), (long, HOUR), (short, Duration::from_secs(10))] {
            let pins = pinned(term);
            pins.touch(HOLDER, START.after(after));
            assert!(pins.changes().is_empty(), "it is too soon to write the use");
            for _ in 0..3 {
                pins.touch(HOLDER, START.after(after + TICK));
            }
            let [Ok(record)] = &pins.changes()[..] else { panic!("one pin is written") };
            assert_eq!((record.made, record.used), (START, START.after(after + TICK)));
        }
    }

    #[test]
    fn an_import_keeps_what_has_not_ended_and_what_is_newer() {
        let record = |to: Pinned, exclusive| {
            let holder = HolderRef { key: "k", scope: &to.ip.to_string(), session: None }.to_owned();
            PinRecord { holder, to, made: START, used: START, term: TERM, exclusive }
        };
        let pins = Pins::new(100);
        pins.import([record(to(1), true)], START.after(TERM.span));
        assert!(pins.is_empty(), "it ended while the gateway did not run");
        let mut older = record(to(2), false);
        older.holder = HOLDER.to_owned();
        let pins = pinned(TERM);
        pins.import([older, record(to(3), true)], START);
        assert_eq!((pins.of(HOLDER, START), pins.len()), (Some(to(1)), 2), "a client was quicker than the import");
        let exclusive: Vec<bool> =
            pins.list(START).iter().filter(|pin| pin.to == to(3)).map(|pin| pin.exclusive).collect();
        assert!(exclusive == [true] && pins.free(to(3).ip, false).is_none());
        // Two pins with the same address were stored. The second keeps the address, but has it no longer alone.
        let mut second = record(to(3), true);
        second.holder = HolderRef { scope: "second", ..HOLDER }.to_owned();
        pins.import([second], START);
        let exclusive = pins.list(START).iter().filter(|pin| pin.to == to(3) && pin.exclusive).count();
        assert_eq!((exclusive, pins.uses(to(3).ip)), (1, 2));
        assert!(pins.changes().is_empty(), "the store has these pins already");
    }
}
