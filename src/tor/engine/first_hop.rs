//! Records what an engine knows about the first hop of its circuits (the guard or bridge). Pure: no I/O.
//!
//! A silent first hop looks the same whether the guard is down or this machine has no network. So this module only
//! decides whether the first hop is silent, and [`super::super::liveness`] decides why.
//!
//! One circuit without an answer proves nothing, because a relay behind the guard may have lost the message. So the
//! silence of the first hop counts as *confirmed* only after two different signs, for example two circuits over
//! different relays that got no answer. Any answer of the guard ends the silence.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::exit::Fingerprint;

/// The number of different sources that confirm that the first hop is silent.
const SOURCES: usize = 2;

/// A question that got no answer from the first hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A nudge (a short test circuit) over the guard and this relay.
    Nudge(Fingerprint),
    /// A test circuit with this number, built only to test the guard.
    Test(u64),
    /// A circuit for clients, spares or checks.
    Build,
    /// A connection of tor to the first hop that failed without any answer from the network.
    Connection,
    /// A connection of tor to the first hop that the network refused.
    Refusal,
    /// This machine slept, so its connection to the first hop may be lost.
    Sleep,
}

/// The state of the first hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// The first hop has never answered in this run of tor.
    New,
    /// The first hop has answered, and no later question is without an answer.
    Proven,
    /// One source got no answer, and the first hop has not answered since.
    Doubted,
    /// Several sources got no answer. The time is that of the oldest question without an answer.
    Silent(Instant),
}

/// The evidence about one first hop.
#[derive(Debug, Default)]
pub(super) struct FirstHop {
    heard: Option<Instant>,
    since: Option<Instant>,
    missing: BTreeSet<Source>,
}

impl FirstHop {
    /// Records an answer of the first hop. Returns true if the state changes from new or silent to proven.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        let changes = matches!(self.state(), Hop::New | Hop::Silent(_));
        *self = Self { heard: Some(now), ..Self::default() };
        changes
    }

    /// Records that a question to the first hop, sent at the time `sent`, got no answer in time. Returns true if this
    /// question is the one that confirms the silence of the first hop. A question that is older than the last answer
    /// proves nothing.
    pub(super) fn unanswered(&mut self, source: Source, sent: Instant) -> bool {
        if self.heard.is_some_and(|heard| heard >= sent) {
            return false;
        }
        let was_silent = self.is_silent();
        self.missing.insert(source);
        self.since = Some(self.since.map_or(sent, |since| since.min(sent)));
        self.is_silent() && !was_silent
    }

    /// Records that the network refused a connection to the first hop. Returns true if the first hop was not silent
    /// before.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let was_silent = self.is_silent();
        self.missing.extend([Source::Connection, Source::Refusal]);
        self.since.get_or_insert(now);
        !was_silent
    }

    /// Sets the beginning of a silence to `now`, because tor connects to the first hop again. Does nothing if the first
    /// hop is not silent.
    pub(super) fn restart(&mut self, now: Instant) {
        if self.is_silent() {
            self.since = Some(now);
        }
    }

    pub(super) fn state(&self) -> Hop {
        match (self.since, self.missing.len()) {
            (Some(since), SOURCES..) => Hop::Silent(since),
            (Some(_), 1..) => Hop::Doubted,
            _ if self.heard.is_some() => Hop::Proven,
            _ => Hop::New,
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        matches!(self.state(), Hop::Silent(_))
    }

    /// Returns the time of the last answer of the first hop. `None` if there was none.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn two_different_sources_confirm_a_silence() {
        let (mut hop, start) = (FirstHop::default(), Instant::now());
        assert_eq!((hop.state(), hop.heard()), (Hop::New, None));
        assert!(hop.answered(start), "the first answer is news");
        assert!(!hop.answered(after(start, 1)), "the second is not");
        assert_eq!(hop.heard(), Some(after(start, 1)));
        assert!(!hop.unanswered(Source::Test(1), after(start, 5)));
        assert_eq!((hop.state(), hop.is_silent()), (Hop::Doubted, false));
        assert!(!hop.unanswered(Source::Test(1), after(start, 6)), "the same source again");
        assert_eq!(hop.state(), Hop::Doubted);
        assert!(hop.unanswered(Source::Nudge(Fingerprint([1; 20])), after(start, 4)));
        assert_eq!(hop.state(), Hop::Silent(after(start, 4)), "since the oldest question");
        assert!(!hop.unanswered(Source::Build, after(start, 9)), "a third source is no news");
        assert_eq!(hop.state(), Hop::Silent(after(start, 4)));
        assert!(hop.answered(after(start, 20)));
        assert_eq!(hop.state(), Hop::Proven);
    }

    #[test]
    fn a_refusal_is_enough_and_a_new_connection_begins_a_silence_anew() {
        let (mut hop, start) = (FirstHop::default(), Instant::now());
        hop.restart(start);
        assert_eq!(hop.state(), Hop::New, "there is no silence");
        hop.answered(start);
        assert!(hop.refused(after(start, 1)) && !hop.refused(after(start, 2)));
        assert_eq!(hop.state(), Hop::Silent(after(start, 1)));
        hop.restart(after(start, 9));
        assert_eq!(hop.state(), Hop::Silent(after(start, 9)));
    }

    #[test]
    fn a_question_that_is_older_than_an_answer_proves_nothing() {
        let (mut hop, start) = (FirstHop::default(), Instant::now());
        hop.answered(after(start, 10));
        for sent in [9, 10] {
            assert!(!hop.unanswered(Source::Build, after(start, sent)));
            assert!(!hop.unanswered(Source::Connection, after(start, sent)));
        }
        assert_eq!(hop.state(), Hop::Proven);
    }

    #[test]
    fn an_answer_ends_a_doubt_without_news_and_what_never_answered_may_be_silent() {
        let (mut hop, start) = (FirstHop::default(), Instant::now());
        hop.unanswered(Source::Sleep, start);
        hop.unanswered(Source::Connection, start);
        assert_eq!(hop.state(), Hop::Silent(start));
        let mut hop = FirstHop::default();
        hop.answered(start);
        hop.unanswered(Source::Build, after(start, 1));
        assert!(!hop.answered(after(start, 2)));
        assert_eq!(hop.state(), Hop::Proven);
    }
}
