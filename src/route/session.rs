//! Sessions: which exit each session of a client uses.
//!
//! Rendezvous hashing alone would move some sessions when the pool changes, but a session with a logged-in scraper must
//! not move. So hashing chooses the exit once, at the first use, and this table remembers the exit. A new member of the
//! pool, or an ejection, moves no session. The table is bounded, and its entries expire, because clients can write any
//! number of usernames.
//!
//! **When a session ends.** At paid gateways, a session without a stated time lasts about ten minutes. A stated time
//! (`sesstime`, `sessionduration`, `lifetime`) is a lifetime: after that time the IP changes, because the users of paid
//! gateways want a new IP then. So a `ttl` in the username counts from the first use. Without a `ttl`, a session lasts
//! until it has been unused for `gateway.session_ttl`, so the IP does not change while a client is at work.
//!
//! **First use.** A connection proposes an exit, and [`Sessions::bind`] returns the exit that the session then has. If
//! another connection's proposal was earlier, the session has the exit of the earlier proposal. So a thousand
//! simultaneous first uses agree on one exit without waiting for each other.
//!
//! Next: `route/choose/sticky.rs` proposes exits. `route/holder.rs` has the type of the table's keys.

use std::sync::Mutex;
use std::time::Duration;

use super::holder::{Holder, HolderRef};
use super::lru::{Sharded, open};
use crate::exit::{ExitId, Moment};

/// The time of a session's last use is written to the store again after one eighth (1 / `RESAVE`) of the session's
/// lifetime. Not tuned: a crash loses at most one eighth of a lifetime.
const RESAVE: u32 = 8;

/// All sessions of the process.
#[derive(Debug)]
pub struct Sessions {
    table: Sharded<Holder, SessionEntry>,
    /// The holders whose session has changed since the store last wrote it.
    unsaved: Mutex<Vec<Holder>>,
}

/// How long a session or a pin lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub span: Duration,
    /// True if the time counts from the first use, and false if it counts from the last use.
    pub fixed: bool,
}

/// One session in the form in which the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub holder: Holder,
    pub exit: ExitId,
    /// When the session was bound to this exit.
    pub bound: Moment,
    /// When the session was last used.
    pub used: Moment,
    pub term: Term,
}

/// The state of a session when one connection looks it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    Absent,
    Live(ExitId),
    /// The session has ended. The values are the exit that the session had, and how long the session was to last.
    Ended(ExitId, Term),
}

/// The exit that a session has after a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) exit: ExitId,
    /// True if the proposed exit became the exit of the session.
    pub(super) new: bool,
}

#[derive(Debug)]
struct SessionEntry {
    exit: ExitId,
    bound: Moment,
    used: Moment,
    saved: Moment,
    term: Term,
    /// True if the holder is in the list `unsaved`.
    listed: bool,
}

impl SessionEntry {
    fn ends(&self) -> Moment {
        let from = if self.term.fixed { self.bound } else { self.used };
        from.after(self.term.span)
    }
}

impl Sessions {
    pub(super) fn new(bound: usize) -> Self {
        Self { table: Sharded::new(bound), unsaved: Mutex::default() }
    }

    /// The number of sessions. A session that has ended counts until [`Sessions::tidy`] removes it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "clippy wants it beside `len`; tests use it"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the exit of a session. This does not count as a use of the session.
    pub fn of(&self, holder: HolderRef<'_>, now: Moment) -> Option<ExitId> {
        let hash = self.table.hash(holder);
        let shard = self.table.lock(hash);
        let entry = shard.peek(hash, |key| key.is(holder)).filter(|entry| entry.ends() > now)?;
        Some(entry.exit.clone())
    }

    /// Returns every session that has not ended, in no particular order.
    pub fn list(&self, now: Moment) -> Vec<SessionRecord> {
        let mut all = Vec::new();
        for shard in self.table.each() {
            all.extend(
                shard.iter().filter(|(_, entry)| entry.ends() > now).map(|(holder, entry)| record(holder, entry)),
            );
        }
        all
    }

    /// Returns the state of a session. If the session has not ended, this records that the session is used now.
    pub(super) fn touch(&self, holder: HolderRef<'_>, now: Moment) -> SessionState {
        let hash = self.table.hash(holder);
        let mut shard = self.table.lock(hash);
        let Some(entry) = shard.get(hash, |key| key.is(holder)) else { return SessionState::Absent };
        if entry.ends() <= now {
            return SessionState::Ended(entry.exit.clone(), entry.term);
        }
        entry.used = entry.used.max(now);
        let resave = !entry.listed && now.since(entry.saved) > entry.term.span / RESAVE;
        entry.listed |= resave;
        let exit = entry.exit.clone();
        drop(shard);
        if resave {
            open(&self.unsaved).push(holder.to_owned());
        }
        SessionState::Live(exit)
    }

    /// Proposes an exit for a session. The proposal is taken if there is no such session, if the session has ended, or
    /// if its exit is `instead_of`.
    pub(super) fn bind(
        &self,
        holder: HolderRef<'_>,
        exit: &ExitId,
        instead_of: Option<&ExitId>,
        term: Term,
        now: Moment,
    ) -> Binding {
        let hash = self.table.hash(holder);
        let mut gone = None;
        let mut shard = self.table.lock(hash);
        let listed = match shard.get(hash, |key| key.is(holder)) {
            Some(entry) if entry.ends() > now && instead_of != Some(&entry.exit) => {
                entry.used = entry.used.max(now);
                return Binding { exit: entry.exit.clone(), new: false };
            }
            Some(entry) => {
                let listed = entry.listed;
                *entry = SessionEntry { exit: exit.clone(), bound: now, used: now, saved: now, term, listed: true };
                listed
            }
            None => {
                let entry = SessionEntry { exit: exit.clone(), bound: now, used: now, saved: now, term, listed: true };
                gone = shard.insert(hash, holder.to_owned(), entry);
                false
            }
        };
        drop(shard);
        let mut unsaved = open(&self.unsaved);
        unsaved.extend(gone.filter(|(_, entry)| !entry.listed).map(|(holder, _)| holder));
        if !listed {
            unsaved.push(holder.to_owned());
        }
        Binding { exit: exit.clone(), new: true }
    }

    /// Imports the sessions that the store kept, except sessions that have ended meanwhile.
    pub(super) fn import(&self, records: impl IntoIterator<Item = SessionRecord>, now: Moment) {
        for SessionRecord { holder, exit, bound, used, term } in records {
            let entry = SessionEntry { exit, bound, used, saved: used, term, listed: false };
            let hash = self.table.hash(holder.as_ref());
            if entry.ends() > now && self.table.lock(hash).peek(hash, |key| *key == holder).is_none() {
                self.table.lock(hash).insert(hash, holder, entry);
            }
        }
    }

    /// Returns what the store must write: `Ok` with a session to save, or `Err` with a holder whose session must be
    /// deleted.
    pub(super) fn changes(&self) -> Vec<Result<SessionRecord, Holder>> {
        let holders = std::mem::take(&mut *open(&self.unsaved));
        let change = |holder: Holder| {
            let hash = self.table.hash(holder.as_ref());
            // This does not call `get`, because storing a session is not a use and must not protect the session from
            // eviction.
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

    /// Removes every session for which `gone` returns true.
    pub fn forget(&self, gone: impl Fn(HolderRef<'_>) -> bool) {
        for mut shard in self.table.each() {
            let ended = shard.take_if(|holder, _| gone(holder.as_ref()));
            drop(shard);
            let unlisted = ended.into_iter().filter(|(_, entry)| !entry.listed).map(|(holder, _)| holder);
            open(&self.unsaved).extend(unlisted);
        }
    }

    /// Removes sessions that ended more than one lifetime ago.
    pub(super) fn tidy(&self, now: Moment) {
        for mut shard in self.table.each() {
            // A session that has ended stays in the table for one more lifetime. So the answer to its next connection
            // can report that the session moved to another exit.
            let ended = shard.take_if(|_, entry| entry.ends().after(entry.term.span) <= now);
            drop(shard);
            let unlisted = ended.into_iter().filter(|(_, entry)| !entry.listed).map(|(holder, _)| holder);
            open(&self.unsaved).extend(unlisted);
        }
    }
}

fn record(holder: &Holder, entry: &SessionEntry) -> SessionRecord {
    let SessionEntry { exit, bound, used, term, .. } = entry;
    SessionRecord { holder: holder.clone(), exit: exit.clone(), bound: *bound, used: *used, term: *term }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const HOLDER: HolderRef<'_> = HolderRef { key: "k", scope: "us", session: None };
    /// A session with this term ends 80 seconds after its last use.
    const TERM: Term = Term { span: Duration::from_secs(80), fixed: false };

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn bound(term: Term) -> Sessions {
        let sessions = Sessions::new(100);
        assert!(sessions.is_empty());
        assert_eq!(sessions.bind(HOLDER, &exit(1), None, term, START), Binding { exit: exit(1), new: true });
        assert!(!sessions.is_empty());
        assert_eq!(sessions.changes().len(), 1, "a new session is written");
        sessions
    }

    #[test]
    fn a_session_ends_when_its_time_is_over() {
        let (last, end) = (Moment(START.after(TERM.span).0 - 1), START.after(TERM.span));
        let sessions = bound(TERM);
        assert!(sessions.of(HOLDER, last).is_some() && sessions.list(last).len() == 1);
        assert!(sessions.of(HOLDER, end).is_none() && sessions.list(end).is_empty());
        assert_eq!(sessions.touch(HOLDER, end), SessionState::Ended(exit(1), TERM));
        assert!(!sessions.bind(HOLDER, &exit(2), None, TERM, last).new, "the session has an exit");
        let sessions = bound(TERM);
        assert!(sessions.bind(HOLDER, &exit(2), None, TERM, end).new);
        let sessions = bound(TERM);
        assert_eq!(sessions.touch(HOLDER, last), SessionState::Live(exit(1)));
        assert!(sessions.of(HOLDER, end).is_some(), "a use makes it last longer");
        let gone = last.after(TERM.span).after(TERM.span);
        sessions.tidy(Moment(gone.0 - 1));
        assert_eq!(sessions.len(), 1, "it stays for one more lifetime, so a client is told of the change");
        sessions.tidy(gone);
        assert!(sessions.is_empty());
        assert!(matches!(&sessions.changes()[..], [Err(_)]), "the store deletes it");
    }

    #[test]
    fn a_use_is_written_after_an_eighth_of_the_time_and_once() {
        let sessions = bound(TERM);
        let eighth = START.after(Duration::from_secs(10));
        sessions.touch(HOLDER, eighth);
        assert!(sessions.changes().is_empty(), "it is too soon to write the use");
        for _ in 0..3 {
            sessions.touch(HOLDER, Moment(eighth.0 + 1));
        }
        let [Ok(record)] = &sessions.changes()[..] else { panic!("one session is written") };
        assert_eq!((record.bound, record.used), (START, Moment(eighth.0 + 1)));
        // The session changes again before the store has written it: it is still written once.
        sessions.bind(HOLDER, &exit(2), Some(&exit(1)), TERM, eighth);
        sessions.bind(HOLDER, &exit(3), Some(&exit(2)), TERM, eighth);
        assert_eq!(sessions.changes().len(), 1);
    }

    #[test]
    fn a_forgotten_session_is_deleted_from_the_store_once() {
        let sessions = bound(TERM);
        let other = HolderRef { scope: "de", ..HOLDER };
        sessions.bind(other, &exit(2), None, TERM, START); // the store has not written this session yet
        sessions.forget(|holder| holder.scope == "fr");
        assert_eq!(sessions.len(), 2);
        sessions.forget(|_| true);
        assert!(sessions.is_empty());
        let mut gone: Vec<_> = sessions.changes().into_iter().map(|change| change.unwrap_err().scope).collect();
        gone.sort_unstable();
        assert_eq!(gone.iter().map(|scope| &**scope).collect::<Vec<_>>(), ["de", "us"]);
    }

    #[test]
    fn an_import_keeps_what_has_not_ended_and_what_is_newer() {
        let record = |scope: &str, n| {
            let holder = HolderRef { scope, ..HOLDER }.to_owned();
            SessionRecord { holder, exit: exit(n), bound: START, used: START, term: TERM }
        };
        let sessions = Sessions::new(100);
        sessions.import([record("us", 1)], START.after(TERM.span));
        assert!(sessions.is_empty(), "it ended while the gateway did not run");
        let sessions = bound(TERM);
        sessions.import([record("us", 2), record("de", 3)], START);
        assert_eq!((sessions.of(HOLDER, START), sessions.len()), (Some(exit(1)), 2), "a client was quicker");
        assert!(sessions.changes().is_empty(), "the store has the other session already");
    }
}
