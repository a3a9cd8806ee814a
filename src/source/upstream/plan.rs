//! Which sessions a gateway source keeps. Pure: the caller passes the time and new names of sessions.
//!
//! A session is an exit. A session ends when its time is over, when its address has changed, when it leaves in another
//! country than it was ordered for, or when its checks fail. An ended session is replaced by a new one if pools still
//! want one. If new sessions of a country fail again and again, the pause before the next one doubles.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::exit::Moment;
use crate::exit::country::Country;

/// The pause before the next session of a country after one was of no use. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause before the next session of a country.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A country, or `None` for sessions that may leave in any country.
pub(super) type Place = Option<Country>;

/// One session at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) place: Place,
    /// The name of the session in the provider's username: eight digits.
    pub(super) name: String,
    pub(super) begun: Moment,
}

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The session works, or was not checked yet.
    Fine,
    /// Checks have seen more than one address: the provider has moved the session.
    Moved,
    /// The session leaves in another country than it was ordered for.
    WrongCountry,
    Bad,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Expired,
    Moved,
    WrongCountry,
    Bad,
}

impl End {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "its time is over",
            Self::Moved => "the provider gave it another address",
            Self::WrongCountry => "it leaves in another country than it was ordered for",
            Self::Bad => "its checks fail",
        }
    }
}

/// The limits of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The largest number of sessions.
    pub(super) most: usize,
    /// How long a session lasts.
    pub(super) lasts: Duration,
}

/// The sessions of one source.
#[derive(Debug)]
pub(super) struct Plan {
    terms: Terms,
    sessions: Vec<Session>,
    /// Place → how many sessions in a row were of no use, and the time before which no new session is made.
    useless: BTreeMap<Place, (u32, Moment)>,
}

impl Plan {
    pub(super) fn new(terms: Terms, sessions: Vec<Session>) -> Self {
        Self { terms, sessions, useless: BTreeMap::new() }
    }

    pub(super) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Ends sessions, and makes those that are missing. `wanted` says how many sessions each place needs. `may_begin` is
    /// false while the provider refuses the account. Returns the sessions that ended, each with the reason.
    pub(super) fn step(
        &mut self,
        wanted: &BTreeMap<Place, usize>,
        seen: impl Fn(&Session) -> Seen,
        may_begin: bool,
        now: Moment,
        mut new_name: impl FnMut() -> String,
    ) -> Vec<(Session, End)> {
        let (terms, mut ended) = (self.terms, Vec::new());
        self.sessions.retain(|session| {
            let end = match seen(session) {
                Seen::Moved => Some(End::Moved),
                Seen::WrongCountry => Some(End::WrongCountry),
                Seen::Bad => Some(End::Bad),
                Seen::Fine => (now.since(session.begun) >= terms.lasts).then_some(End::Expired),
            };
            ended.extend(end.map(|end| (session.clone(), end)));
            end.is_none()
        });
        for (session, end) in &ended {
            match end {
                End::Expired | End::Moved => _ = self.useless.remove(&session.place),
                End::WrongCountry | End::Bad => self.note_useless(session.place, now),
            }
        }
        // Each place gets its first session before a place gets its second one, and so on. So every place is served if
        // the sessions are too few for all.
        let rounds = wanted.values().max().copied().filter(|_| may_begin).unwrap_or(0);
        for round in 1..=rounds.min(terms.most) {
            for (place, _) in wanted.iter().filter(|(_, count)| **count >= round) {
                let is_paused = self.useless.get(place).is_some_and(|(_, until)| now < *until);
                if is_paused || self.count(*place) >= round {
                    continue;
                }
                if self.sessions.len() >= terms.most && !self.drop_surplus(wanted, round) {
                    return ended;
                }
                self.sessions.push(Session { place: *place, name: new_name(), begun: now });
            }
        }
        ended
    }

    fn note_useless(&mut self, place: Place, now: Moment) {
        let (count, until) = self.useless.entry(place).or_insert((0, now));
        *count += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (*count - 1).min(16)).min(LONGEST_PAUSE);
        *until = now.after(pause);
    }

    fn count(&self, place: Place) -> usize {
        self.sessions.iter().filter(|session| session.place == place).count()
    }

    /// Drops the oldest session of a place that has more sessions than it needs, or more than `fair`. Returns false if
    /// there is none.
    fn drop_surplus(&mut self, wanted: &BTreeMap<Place, usize>, fair: usize) -> bool {
        let needs = |place: &Place| wanted.get(place).copied().unwrap_or(0).min(fair);
        let is_surplus = |session: &&Session| self.count(session.place) > needs(&session.place);
        let oldest = self.sessions.iter().filter(is_surplus).min_by_key(|session| session.begun).cloned();
        let Some(oldest) = oldest else { return false };
        self.sessions.retain(|session| *session != oldest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn plan(most: usize) -> Plan {
        Plan::new(Terms { most, lasts: 10 * MINUTE }, Vec::new())
    }

    fn place(code: &str) -> Place {
        Country::parse(code).filter(|country| country.is_known())
    }

    fn wanted(places: &[(&str, usize)]) -> BTreeMap<Place, usize> {
        places.iter().map(|(code, count)| (place(code), *count)).collect()
    }

    /// Makes one step, in which every session is as `seen`. Returns how many sessions there are, and how many ended.
    fn step(plan: &mut Plan, places: &[(&str, usize)], seen: Seen, now: Moment) -> (usize, Vec<End>) {
        let mut number = now.0;
        let names = || {
            number += 1;
            format!("{number:08}")
        };
        let ended = plan.step(&wanted(places), |_| seen, true, now, names);
        (plan.sessions().len(), ended.into_iter().map(|(_, end)| end).collect())
    }

    #[test]
    fn sessions_follow_what_pools_want_and_end_with_their_time() {
        let (mut plan, start) = (plan(8), Moment(1_000_000));
        assert_eq!(step(&mut plan, &[("US", 2), ("??", 1)], Seen::Fine, start), (3, vec![]));
        assert_eq!(
            step(&mut plan, &[("US", 3)], Seen::Fine, start),
            (4, vec![]),
            "what nobody wants stays till its end"
        );
        let end = start.after(10 * MINUTE);
        assert_eq!(step(&mut plan, &[("US", 3)], Seen::Fine, Moment(end.0 - 1)).0, 4);
        assert_eq!(step(&mut plan, &[("US", 3)], Seen::Fine, end), (3, vec![End::Expired; 4]));
        assert!(plan.sessions().iter().all(|session| session.place == place("US") && session.begun == end));
    }

    #[test]
    fn every_place_gets_its_share_if_the_sessions_are_too_few() {
        let (mut plan, now) = (plan(16), Moment(1_000_000));
        let count = |plan: &Plan, code: &str| plan.count(place(code));
        step(&mut plan, &[("??", 8), ("DE", 8)], Seen::Fine, now);
        assert_eq!((count(&plan, "??"), count(&plan, "DE")), (8, 8));
        for _ in 0..2 {
            step(&mut plan, &[("??", 8), ("DE", 8), ("US", 8), ("FR", 1)], Seen::Fine, now);
            let counts = ["??", "DE", "FR", "US"].map(|code| count(&plan, code));
            assert_eq!(counts, [5, 5, 1, 5], "and they stay");
        }
    }

    #[test]
    fn a_session_that_was_moved_is_another_exit_and_is_replaced_immediately() {
        let (mut plan, now) = (plan(8), Moment(1_000_000));
        step(&mut plan, &[("US", 1)], Seen::Fine, now);
        let before = plan.sessions()[0].name.clone();
        assert_eq!(step(&mut plan, &[("US", 1)], Seen::Moved, now.after(MINUTE)), (1, vec![End::Moved]));
        assert_ne!(plan.sessions()[0].name, before);
    }

    #[test]
    fn useless_sessions_are_replaced_after_a_pause_that_doubles() {
        let (mut plan, mut now, mut pauses) = (plan(8), Moment(1_000_000), Vec::new());
        step(&mut plan, &[("US", 1)], Seen::Fine, now);
        for _ in 0..9 {
            let bad = now;
            assert_eq!(step(&mut plan, &[("US", 1)], Seen::WrongCountry, now), (0, vec![End::WrongCountry]));
            while step(&mut plan, &[("US", 1)], Seen::Fine, now).0 == 0 {
                now = now.after(Duration::from_secs(1));
            }
            pauses.push(now.since(bad).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(step(&mut plan, &[("US", 1), ("DE", 1)], Seen::Fine, now).0, 2, "other countries do not wait");
    }

    #[test]
    fn there_is_a_limit_and_nothing_begins_while_the_account_is_refused() {
        let (mut plan, now) = (plan(3), Moment(1_000_000));
        assert_eq!(step(&mut plan, &[("US", 2), ("DE", 9)], Seen::Fine, now).0, 3);
        assert_eq!(step(&mut plan, &[("FR", 1)], Seen::Fine, now).0, 3);
        assert!(plan.sessions().iter().any(|session| session.place == place("FR")), "an unwanted one makes room");
        let mut refused = self::plan(3);
        assert!(refused.step(&wanted(&[("US", 2)]), |_| Seen::Fine, false, now, String::new).is_empty());
        assert!(refused.sessions().is_empty());
    }
}
