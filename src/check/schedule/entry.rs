//! What the schedule keeps of one exit, and when the exit is due. Pure.

use std::time::Duration;

use super::super::demand::Want;
use super::super::due_queue::{Ended, Entry};
use super::{Terms, doubled, spread};
use crate::exit::facts::OBSERVED_FOR;
use crate::exit::{Moment, Verdict};

/// The pause before the next check after the first failure of an exit. The pause doubles with each further failure. A
/// relay can restart within this time. Not tuned.
const RETRY: Duration = Duration::from_secs(60);

/// The pause after failures grows up to this many times `check.every`, so an exit that fails for hours is checked
/// rarely, but is still checked.
const SELDOM: u32 = 8;

/// The longest pause after failures of an exit that could fill a free place of a route's pool, as a share of
/// `check.every`. This pause is shorter than that of other exits, because the route has no better exit.
const LACKED: f64 = 0.2;

/// The pause after a first check that showed nothing about the exit. The pause doubles with each further check of this
/// kind, up to the second value. A Tor engine restarts in about two seconds, and a request to an engine that is not
/// ready costs nothing. Not tuned.
const OPEN_RETRY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// The least time between the end of a check and the next check of the same exit for a live request. The first value
/// applies after a check with a verdict, the second one after a check without a verdict. The limit is needed because
/// many requests may wait for the same exit, one after another. Not tuned.
const URGENT_GAPS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// How long clients' successful traffic may replace checks of an exit. Traffic shows that an exit works, but not its
/// address, and an address that no check has observed for [`OBSERVED_FOR`] is forgotten.
const ADDRESS_FOR: Duration = Duration::from_secs(OBSERVED_FOR.as_secs() / 2);

/// The due time of an exit that needs no check.
const NEVER: Moment = Moment(u64::MAX);

/// The classes of exits. The class that is served first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Urgent,
    Used,
    Asked,
    Reserve,
    Others,
}

/// The known facts about an exit when the exit is added to the schedule.
#[derive(Clone, Copy, Debug)]
pub struct LastCheck {
    /// When the exit was last checked. `None` if the exit was never checked.
    pub checked: Option<Moment>,
    /// The verdict of the last check.
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scheduled {
    pub(super) due: Moment,
    /// When the last check of the exit ended. `None` if the exit was never checked.
    pub(super) ended: Option<Moment>,
    /// When a check last confirmed the address of the exit.
    confirmed: Moment,
    /// The earliest time at which a live request can cause a check of the exit.
    urgent_from: Moment,
    tested: bool,
    /// How urgently routes need the exit. `None` if no route needs it.
    pub(super) want: Option<Want>,
    /// The place in the order of checks of an exit whose `want` is `None`: the exit with the smallest rank is checked
    /// first. `None` if such an exit needs no check.
    pub(super) rank: Option<u32>,
    pub(super) urgent: bool,
    /// True if a person wants a check.
    pub(super) asked: bool,
    /// True if the check of another exit showed that this exit must be checked once more.
    pub(super) again: bool,
    /// How many checks were bad since the last good one.
    failures: u32,
    /// How many checks in a row showed nothing about the exit, because an engine or an echo server failed. They say
    /// nothing about how soon a bad exit should be checked again, so they are counted separately.
    unclear: u32,
    /// How the last check of this exit ended.
    last: Ended,
    /// A number from 0 to 1 that spreads the times of the checks.
    random: f64,
}

impl Entry for Scheduled {
    fn class(&self) -> usize {
        let class = match self {
            Self { urgent: true, .. } => Class::Urgent,
            Self { want: Some(Want::Used), .. } => Class::Used,
            Self { asked: true, .. } | Self { again: true, .. } => Class::Asked,
            Self { want: Some(Want::Reserve), .. } => Class::Reserve,
            Self { want: None, .. } => Class::Others,
        };
        class as usize
    }

    fn due(&self) -> Moment {
        self.due
    }
}

impl Scheduled {
    pub(super) fn new(last: LastCheck, terms: &Terms) -> Self {
        let tested = last.verdict != Verdict::Untested;
        let (ended, confirmed) = (last.checked.filter(|_| tested), last.checked.unwrap_or_default());
        let bad = last.verdict == Verdict::Bad;
        let mut entry = Self {
            due: NEVER,
            ended,
            confirmed,
            urgent_from: Moment(0),
            tested,
            want: None,
            rank: None,
            urgent: false,
            asked: false,
            again: false,
            failures: u32::from(bad),
            unclear: 0,
            last: if bad { Ended::Bad } else { Ended::Good },
            random: 0.5,
        };
        entry.due = entry.regular(terms, Moment(0));
        entry
    }

    /// Returns true if the last check of the exit was good.
    pub(super) fn works(&self) -> bool {
        self.tested && self.failures + self.unclear == 0
    }

    /// Returns when the exit is due if no person, live request or other check wants a check of the exit.
    fn regular(&self, terms: &Terms, now: Moment) -> Moment {
        let of_rank = self.rank.map_or(NEVER, |rank| Moment(u64::from(rank)));
        let every = match self.want {
            Some(Want::Used) => terms.every,
            Some(Want::Reserve) => terms.reserve_every(),
            None if self.works() => return NEVER,
            None if !self.tested && self.failures + self.unclear == 0 => return of_rank,
            None => terms.every.saturating_mul(SELDOM),
        };
        let Some(ended) = self.ended else { return now };
        if self.failures + self.unclear == 0 {
            return if self.tested { ended.after(spread(every, self.random)) } else { now };
        }
        let most = match self.want {
            Some(Want::Used) => terms.every.mul_f64(LACKED),
            _ => terms.every.saturating_mul(SELDOM),
        };
        let pause = match self.last {
            Ended::Open => doubled(OPEN_RETRY[0], self.unclear, OPEN_RETRY[1]).min(terms.every),
            Ended::TargetDown => doubled(RETRY.min(terms.every), self.unclear, terms.every),
            Ended::Good | Ended::Bad => doubled(RETRY.min(terms.every), self.failures, most),
        };
        ended.after(spread(pause, self.random))
    }

    pub(super) fn wanted(&mut self, want: Option<Want>, rank: Option<u32>, terms: &Terms, now: Moment) {
        (self.want, self.rank) = (want, rank);
        if !(self.urgent || self.asked || self.again) {
            self.due = self.regular(terms, now);
        }
    }

    pub(super) fn forget(&mut self, terms: &Terms, now: Moment) {
        (self.tested, self.failures, self.unclear) = (false, 0, 0);
        self.wanted(self.want, self.rank, terms, now);
    }

    pub(super) fn urgent(&mut self, now: Moment) {
        // An exit that has just passed needs no new check, because the request can use that exit now.
        let passed = self.works() && now < self.urgent_from;
        if !passed {
            (self.urgent, self.due) = (true, now.max(self.urgent_from));
        }
    }

    /// Returns true if the exit needs a check because clients' traffic does not show what the check must find out.
    pub(super) fn needs_check(&self, now: Moment) -> bool {
        self.urgent || self.asked || self.again || !self.works() || now.since(self.confirmed) >= ADDRESS_FOR
    }

    pub(super) fn proven(&mut self, at: Moment, terms: &Terms, random: f64) {
        (self.urgent, self.asked, self.again) = (false, false, false);
        (self.ended, self.random) = (Some(at), random);
        self.due = self.regular(terms, at);
    }

    pub(super) fn ended(&mut self, how: Ended, again: bool, terms: &Terms, now: Moment, random: f64) {
        let says_nothing = matches!(how, Ended::Open | Ended::TargetDown);
        (self.ended, self.last, self.random) = (Some(now), how, random);
        self.urgent_from = now.after(URGENT_GAPS[usize::from(says_nothing)]);
        self.tested |= !says_nothing;
        match how {
            Ended::Good => (self.failures, self.unclear) = (0, 0),
            Ended::Bad => (self.failures, self.unclear) = (self.failures.saturating_add(1), 0),
            Ended::Open | Ended::TargetDown => self.unclear = self.unclear.saturating_add(1),
        }
        if how == Ended::Good {
            self.confirmed = now;
        }
        // The check that has ended is the one that callers had requested, so their requests are removed here. They must
        // not be removed earlier: `needs_check` reads them after the exit was taken from the queue.
        (self.urgent, self.asked, self.again) = (false, false, again);
        self.due = if self.again { now } else { self.regular(terms, now) };
    }
}
