//! Pins: the one IP of a strict route, for weeks and over restarts.
//!
//! A pin is a promise that the address which a site sees will not change behind the client's back. It is made of the
//! exit *and* the IPv4 address that was observed, because an exit whose address changed is another exit to every site;
//! and it belongs to (key, scope, session), not to a route object, so that it outlives what made it. While its exit is
//! down the answer is an error. It moves when it has been down for `repin_after`, or when somebody rotates it, and each
//! move is an [`Event`]: there is no other way.
//!
//! Beside the pins there are [`Claims`], how many of them use each address. Both tables change under the pin's lock,
//! address inside pin, so that two threads can neither pin one holder twice nor give one address to two exclusive
//! holders.
//!
//! The table is bounded, and what is evicted is the pin unused for longest; that, too, is an event.
//!
//! Next: `route/choose/strict.rs` proposes, as for sessions.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use super::claim::Claims;
use super::event::{Cause, Event};
use super::holder::{Holder, HolderRef};
use super::lru::{Sharded, open};
use super::session::Term;
use crate::exit::catalog::Bits;
use crate::exit::{Catalog, ExitId, Moment};

/// A use is written down again after this long, or this share of the pin's time to live if that is shorter.
const RESAVE: Duration = Duration::from_secs(3600);
const RESAVE_SHARE: u32 = 8;

/// What a pin holds on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The exit.
    pub exit: ExitId,
    /// The address that sites see it with.
    pub ip: Ipv4Addr,
}

/// One pin as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Whose it is.
    pub holder: Holder,
    /// What it holds on to.
    pub to: Pinned,
    /// Since when.
    pub made: Moment,
    /// When it was last used.
    pub used: Moment,
    /// How long it lasts.
    pub term: Term,
    /// No other pin may use its address.
    pub exclusive: bool,
}

/// A pin as a decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) to: Pinned,
    pub(super) made: Moment,
    /// Since when its exit has been seen to be down.
    pub(super) down: Option<Moment>,
}

/// The answer to a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// It holds.
    Made(Vec<Event>),
    /// Another one held already.
    Other(Pinned),
    /// Its address is taken by another's exclusive pin, or by any if this one is to be exclusive.
    Taken,
}

/// All pins of the process.
#[derive(Debug)]
pub struct Pins {
    table: Sharded<Holder, Kept>,
    claims: Claims,
    unsaved: Mutex<Vec<Holder>>,
}

#[derive(Debug)]
struct Kept {
    to: Pinned,
    made: Moment,
    used: Moment,
    saved: Moment,
    down: Option<Moment>,
    term: Term,
    exclusive: bool,
    listed: bool,
}

impl Kept {
    fn ends(&self) -> Moment {
        let from = if self.term.fixed { self.made } else { self.used };
        from.after(self.term.span)
    }

    fn held(&self) -> Held {
        Held { to: self.to.clone(), made: self.made, down: self.down }
    }
}

impl Pins {
    pub(super) fn new(bound: usize) -> Self {
        Self { table: Sharded::new(bound), claims: Claims::default(), unsaved: Mutex::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pins use an address.
    pub fn uses(&self, ip: Ipv4Addr) -> u32 {
        self.claims.uses(ip)
    }

    /// Those of some exits whose addresses a new pin may use, and the fewest pins do.
    pub(super) fn least_used(&self, catalog: &Catalog, of: &Bits, exclusive: bool) -> Bits {
        self.claims.least_used(catalog, of, exclusive)
    }

    /// The exits whose addresses a new pin may not use.
    pub(super) fn taken(&self, catalog: &Catalog, exclusive: bool) -> Bits {
        self.claims.taken(catalog, exclusive)
    }

    /// What a holder is pinned to, without using it.
    pub fn of(&self, holder: HolderRef<'_>, now: Moment) -> Option<Pinned> {
        let hash = self.table.hash(holder);
        let shard = self.table.lock(hash);
        let kept = shard.peek(hash, |key| key.is(holder)).filter(|kept| kept.ends() > now)?;
        Some(kept.to.clone())
    }

    /// Every pin that has not ended, in no order.
    pub fn list(&self, now: Moment) -> Vec<PinRecord> {
        let mut all = Vec::new();
        for shard in self.table.each() {
            all.extend(shard.iter().filter(|(_, kept)| kept.ends() > now).map(|(holder, kept)| record(holder, kept)));
        }
        all
    }

    /// How many pins use an address, if a new one may use it now.
    pub(super) fn free(&self, ip: Ipv4Addr, exclusive: bool) -> Option<u32> {
        self.claims.free(ip, exclusive)
    }

    /// What a holder is pinned to, and that it is used.
    pub(super) fn look(&self, holder: HolderRef<'_>, now: Moment) -> Option<Held> {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let kept = shard.get(hash, |key| key.is(holder)).filter(|kept| kept.ends() > now)?;
        kept.used = kept.used.max(now);
        let resave = !kept.listed && now.since(kept.saved) > RESAVE.min(kept.term.span / RESAVE_SHARE);
        kept.listed |= resave;
        let held = kept.held();
        drop(shard);
        if resave {
            open(&self.unsaved).push(holder.to_owned());
        }
        Some(held)
    }

    /// Notes that a pin's exit is down or up again; since when, if it is down.
    pub(super) fn note(&self, holder: HolderRef<'_>, to: &Pinned, down: bool, now: Moment) -> Option<Moment> {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let kept = shard.find_mut(hash, |key| key.is(holder)).filter(|kept| kept.to == *to)?;
        kept.down = down.then(|| kept.down.unwrap_or(now));
        kept.down
    }

    /// Proposes an exit for a holder that has none, or has `instead_of`.
    pub(super) fn pin(
        &self,
        holder: HolderRef<'_>,
        to: &Pinned,
        instead_of: Option<(&Pinned, Cause)>,
        (term, exclusive): (Term, bool),
        now: Moment,
    ) -> Pin {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let before = match shard.find_mut(hash, |key| key.is(holder)) {
            Some(kept) if kept.ends() > now && instead_of.is_none_or(|(old, _)| *old != kept.to) => {
                return Pin::Other(kept.to.clone());
            }
            Some(kept) => Some((kept.to.clone(), kept.exclusive, kept.listed)),
            None => None,
        };
        let same = before.as_ref().filter(|(old, ..)| old.ip == to.ip).map(|(_, exclusive, _)| *exclusive);
        if !self.claims.take(to.ip, exclusive, same) {
            return Pin::Taken;
        }
        if let (Some((old, exclusive, _)), None) = (&before, same) {
            self.claims.give_back(old.ip, *exclusive);
        }
        let kept = Kept { to: to.clone(), made: now, used: now, saved: now, down: None, term, exclusive, listed: true };
        let gone = match shard.find_mut(hash, |key| key.is(holder)) {
            Some(old) => {
                *old = kept;
                None
            }
            None => shard.insert(hash, holder.to_owned(), kept),
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
        gone: Option<(Holder, Kept)>,
        now: Moment,
    ) -> Pin {
        let mut events = Vec::new();
        if before.as_ref().is_none_or(|(_, _, listed)| !listed) {
            open(&self.unsaved).push(holder.to_owned());
        }
        let holder = holder.to_owned();
        events.push(match (before, cause) {
            (Some((from, ..)), Some(cause)) => Event::PinMoved { holder, from, to: to.clone(), cause },
            _ => Event::PinMade { holder, to: to.clone() },
        });
        events.extend(gone.map(|(holder, kept)| self.ended(holder, kept, now)));
        Pin::Made(events)
    }

    /// Accounts for a pin that is no more.
    fn ended(&self, holder: Holder, kept: Kept, now: Moment) -> Event {
        self.claims.give_back(kept.to.ip, kept.exclusive);
        if !kept.listed {
            open(&self.unsaved).push(holder.clone());
        }
        let evicted = kept.ends() > now;
        Event::PinEnded { holder, was: kept.to, evicted }
    }

    /// Takes in what the store had. What has ended meanwhile stays out.
    pub(super) fn import(&self, records: impl IntoIterator<Item = PinRecord>, now: Moment) {
        for PinRecord { holder, to, made, used, term, exclusive } in records {
            let kept = Kept { to, made, used, saved: used, down: None, term, exclusive, listed: false };
            let hash = self.table.hash(holder.as_ref());
            let mut shard = self.table.lock(hash);
            if kept.ends() <= now || shard.peek(hash, |key| *key == holder).is_some() {
                continue;
            }
            // What was durable holds, also where a config has since made its address somebody's alone.
            let exclusive = exclusive && self.claims.take(kept.to.ip, true, None);
            if !exclusive {
                self.claims.force(kept.to.ip);
            }
            shard.insert(hash, holder, Kept { exclusive, ..kept });
        }
    }

    /// What the store has to write: `Ok` as it is now, `Err` gone.
    pub(super) fn changes(&self) -> Vec<Result<PinRecord, Holder>> {
        let holders = std::mem::take(&mut *open(&self.unsaved));
        let change = |holder: Holder| {
            let hash = self.table.hash(holder.as_ref());
            match self.table.lock(hash).find_mut(hash, |key| *key == holder) {
                None => Err(holder),
                Some(kept) => {
                    (kept.listed, kept.saved) = (false, kept.used);
                    Ok(record(&holder, kept))
                }
            }
        };
        holders.into_iter().map(change).collect()
    }

    /// Ends what has not been used for its time, and notes which exits are down; `up` says so of each.
    pub(super) fn tidy(&self, catalog: &Catalog, up: impl Fn(&Pinned) -> bool, now: Moment) -> Vec<Event> {
        self.claims.look_up(catalog);
        let mut events = Vec::new();
        for mut shard in self.table.each() {
            let ended = shard.take_if(|_, kept| kept.ends() <= now);
            let left: Vec<_> = shard.iter().map(|(holder, kept)| (holder.clone(), kept.held())).collect();
            drop(shard);
            events.extend(ended.into_iter().map(|(holder, kept)| self.ended(holder, kept, now)));
            for (holder, held) in left {
                let down = !up(&held.to);
                if down != held.down.is_some() {
                    self.note(holder.as_ref(), &held.to, down, now);
                }
            }
        }
        events
    }

    /// Ends every pin that `gone` names.
    pub fn forget(&self, gone: impl Fn(HolderRef<'_>, &Pinned) -> bool, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        for mut shard in self.table.each() {
            let ended = shard.take_if(|holder, kept| gone(holder.as_ref(), &kept.to));
            drop(shard);
            events.extend(ended.into_iter().map(|(holder, kept)| self.released(holder, kept, now)));
        }
        events
    }

    /// Accounts for a pin that somebody ended: its place was not needed by another.
    fn released(&self, holder: Holder, kept: Kept, now: Moment) -> Event {
        match self.ended(holder, kept, now) {
            Event::PinEnded { holder, was, .. } => Event::PinEnded { holder, was, evicted: false },
            event => event,
        }
    }

    /// Ends one pin: what it held on to.
    pub fn unpin(&self, holder: HolderRef<'_>, now: Moment) -> Option<Event> {
        let hash = self.table.hash(holder);
        let (holder, kept) = self.table.lock(hash).remove(hash, |key| key.is(holder))?;
        Some(self.ended(holder, kept, now))
    }
}

fn record(holder: &Holder, kept: &Kept) -> PinRecord {
    let Kept { to, made, used, term, exclusive, .. } = kept;
    PinRecord { holder: holder.clone(), to: to.clone(), made: *made, used: *used, term: *term, exclusive: *exclusive }
}
