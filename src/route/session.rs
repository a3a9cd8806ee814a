//! Sessions: a client's sticky key, and the exit that it was put on.
//!
//! Rendezvous hashing alone would keep most sessions in place when the pool changes, and move some; a scraper that is
//! logged in somewhere is not interested in most. So hashing decides once, at the first use, and this table remembers:
//! a new member or an ejection moves nobody. It is bounded and its entries end, because it is filled by whatever
//! strangers write into user names.
//!
//! **When a session ends.** Paid gateways give a session without a stated time about ten minutes, and a stated time
//! (`sesstime`, `sessionduration`, `lifetime`) is a lifetime: after it the IP changes, which is what their users set it
//! for. So a stated `ttl` counts from the first use; without one a session lasts until nobody has used it for the
//! gateway's `session_ttl`, because an IP that changes under a client that is at work helps nobody.
//!
//! **The commit.** Whoever decides proposes an exit, and [`Sessions::bind`] answers with the one that holds, which is
//! another's proposal if that came first: a thousand simultaneous first uses agree without waiting for one another.
//!
//! Next: `route/choose/sticky.rs` proposes; `route/holder.rs` is the key.

use std::time::Duration;

use super::holder::{Holder, HolderRef};
use super::lru::{Sharded, open};
use crate::exit::{ExitId, Moment};

use std::sync::Mutex;

/// A use is written down again after this share of its time to live: a crash loses at most that much of it.
const RESAVE: u32 = 8;

/// All sessions of the process.
#[derive(Debug)]
pub struct Sessions {
    table: Sharded<Holder, Seat>,
    /// Whose entry the store has not seen as it is now.
    unsaved: Mutex<Vec<Holder>>,
}

/// How long a session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The time.
    pub span: Duration,
    /// It counts from the first use, not from the last.
    pub fixed: bool,
}

/// One session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Whose it is.
    pub holder: Holder,
    /// Where it was put.
    pub exit: ExitId,
    /// When it was put there.
    pub bound: Moment,
    /// When it was last used.
    pub used: Moment,
    /// How long it lasts.
    pub term: Term,
}

/// What a look at a session shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Absent,
    /// It is on this exit.
    Live(ExitId),
    /// It was on this exit and its time is over.
    Ended(ExitId, Term),
}

/// The answer to a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// The exit that holds.
    pub(super) exit: ExitId,
    /// True if that was the proposal.
    pub(super) new: bool,
}

#[derive(Debug)]
struct Seat {
    exit: ExitId,
    bound: Moment,
    used: Moment,
    saved: Moment,
    term: Term,
    /// In `unsaved`.
    listed: bool,
}

impl Seat {
    fn ends(&self) -> Moment {
        let from = if self.term.fixed { self.bound } else { self.used };
        from.after(self.term.span)
    }
}

impl Sessions {
    pub(super) fn new(bound: usize) -> Self {
        Self { table: Sharded::new(bound), unsaved: Mutex::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a session is, without using it: "which exit did that use?".
    pub fn of(&self, holder: HolderRef<'_>, now: Moment) -> Option<ExitId> {
        let hash = self.table.hash(holder);
        let shard = self.table.lock(hash);
        let seat = shard.peek(hash, |key| key.is(holder)).filter(|seat| seat.ends() > now)?;
        Some(seat.exit.clone())
    }

    /// Every session that has not ended, in no order.
    pub fn list(&self, now: Moment) -> Vec<SessionRecord> {
        let mut all = Vec::new();
        for shard in self.table.each() {
            all.extend(shard.iter().filter(|(_, seat)| seat.ends() > now).map(|(holder, seat)| record(holder, seat)));
        }
        all
    }

    /// Where a session is, and that it is used.
    pub(super) fn look(&self, holder: HolderRef<'_>, now: Moment) -> Look {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let Some(seat) = shard.get(hash, |key| key.is(holder)) else { return Look::Absent };
        if seat.ends() <= now {
            return Look::Ended(seat.exit.clone(), seat.term);
        }
        seat.used = seat.used.max(now);
        let resave = !seat.listed && now.since(seat.saved) > seat.term.span / RESAVE;
        seat.listed |= resave;
        let exit = seat.exit.clone();
        drop(shard);
        if resave {
            open(&self.unsaved).push(holder.to_owned());
        }
        Look::Live(exit)
    }

    /// Proposes an exit. It holds if the session is nowhere, has ended, or is on `instead_of`.
    pub(super) fn bind(
        &self,
        holder: HolderRef<'_>,
        exit: &ExitId,
        instead_of: Option<&ExitId>,
        term: Term,
        now: Moment,
    ) -> Bound {
        let hash = self.table.hash(holder);
        let mut gone = None;
        let mut shard = self.table.lock(hash);
        let listed = match shard.get(hash, |key| key.is(holder)) {
            Some(seat) if seat.ends() > now && instead_of != Some(&seat.exit) => {
                seat.used = seat.used.max(now);
                return Bound { exit: seat.exit.clone(), new: false };
            }
            Some(seat) => {
                let listed = seat.listed;
                *seat = Seat { exit: exit.clone(), bound: now, used: now, saved: now, term, listed: true };
                listed
            }
            None => {
                let seat = Seat { exit: exit.clone(), bound: now, used: now, saved: now, term, listed: true };
                gone = shard.insert(hash, holder.to_owned(), seat);
                false
            }
        };
        drop(shard);
        let mut unsaved = open(&self.unsaved);
        unsaved.extend(gone.filter(|(_, seat)| !seat.listed).map(|(holder, _)| holder));
        if !listed {
            unsaved.push(holder.to_owned());
        }
        Bound { exit: exit.clone(), new: true }
    }

    /// Takes in what the store had. What has ended meanwhile stays out.
    pub(super) fn import(&self, records: impl IntoIterator<Item = SessionRecord>, now: Moment) {
        for SessionRecord { holder, exit, bound, used, term } in records {
            let seat = Seat { exit, bound, used, saved: used, term, listed: false };
            let hash = self.table.hash(holder.as_ref());
            if seat.ends() > now && self.table.lock(hash).peek(hash, |key| *key == holder).is_none() {
                self.table.lock(hash).insert(hash, holder, seat);
            }
        }
    }

    /// What the store has to write: `Ok` as it is now, `Err` gone.
    pub(super) fn changes(&self) -> Vec<Result<SessionRecord, Holder>> {
        let holders = std::mem::take(&mut *open(&self.unsaved));
        let change = |holder: Holder| {
            let hash = self.table.hash(holder.as_ref());
            // A look that is no use: writing a session down must not keep it.
            match self.table.lock(hash).find_mut(hash, |key| *key == holder) {
                None => Err(holder),
                Some(seat) => {
                    (seat.listed, seat.saved) = (false, seat.used);
                    Ok(record(&holder, seat))
                }
            }
        };
        holders.into_iter().map(change).collect()
    }

    /// Ends every session that `gone` names.
    pub fn forget(&self, gone: impl Fn(HolderRef<'_>) -> bool) {
        for mut shard in self.table.each() {
            let ended = shard.take_if(|holder, _| gone(holder.as_ref()));
            drop(shard);
            let unlisted = ended.into_iter().filter(|(_, seat)| !seat.listed).map(|(holder, _)| holder);
            open(&self.unsaved).extend(unlisted);
        }
    }

    /// Forgets what has ended long enough ago that nobody need be told.
    pub(super) fn tidy(&self, now: Moment) {
        for mut shard in self.table.each() {
            // One more span: the next answer says that the session moved.
            let ended = shard.take_if(|_, seat| seat.ends().after(seat.term.span) <= now);
            drop(shard);
            let unlisted = ended.into_iter().filter(|(_, seat)| !seat.listed).map(|(holder, _)| holder);
            open(&self.unsaved).extend(unlisted);
        }
    }
}

fn record(holder: &Holder, seat: &Seat) -> SessionRecord {
    let Seat { exit, bound, used, term, .. } = seat;
    SessionRecord { holder: holder.clone(), exit: exit.clone(), bound: *bound, used: *used, term: *term }
}
