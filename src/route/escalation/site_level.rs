//! The level of one site and one route: with which source requests begin, and what raises or lowers the level.

use std::time::Duration;

use crate::exit::Moment;

/// How many requests in a row must fail before the next source serves. Not tuned: two forbidden pages in a row are
/// common, three are not.
pub(super) const FAILURES: u8 = 3;

/// How many requests in a row through a later source must fail until it counts as no better than the earlier one.
pub(super) const USELESS: u8 = 2;

/// When this many requests were counted, their number and the number of their bans are halved, so old requests count
/// less. Not tuned.
pub(super) const WINDOW: u32 = 64;

/// One of this many requests is a trial of the source before the present one. A trial at a site that still bans this
/// source fails, so a larger share would cost more failed requests.
pub(super) const TRIAL_EVERY: u32 = 50;

/// After a trial that succeeded, one of this many requests is the next trial.
pub(super) const TRIAL_AGAIN: u32 = 5;

/// During `escalate_for` there are at most this many trials, so a busy scraper does not have many exits banned.
pub(super) const TRIALS_IN_TIME: u32 = 60;

/// How many trials in a row must succeed before the level falls.
pub(super) const TRIALS: u8 = 2;

/// How many exits of a source a site must ban before the next source serves. One ban says nothing about the source: the
/// exit itself may have a bad name.
pub(super) const BANS: u32 = 2;

/// Why requests begin with a later source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The site has banned exits of the earlier source.
    Banned,
    /// Requests through the earlier source failed or were refused.
    Failed,
}

impl Cause {
    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Failed => "failed",
        }
    }
}

/// A change of the source with which requests to a site begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Requests begin with a later source.
    Begun(Cause),
    /// `escalate_for` has passed, so requests begin with the first source again.
    Ended,
    /// Trials have shown that the earlier source works again.
    Returned,
    /// The later source was refused too.
    Useless,
}

impl Event {
    /// Returns the value of the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun(Cause::Banned) => "begun_banned",
            Self::Begun(Cause::Failed) => "begun_failed",
            Self::Ended => "ended",
            Self::Returned => "returned",
            Self::Useless => "useless",
        }
    }
}

/// How a request through a source ended, as far as the gateway can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The site answered and did not refuse, or a tunnel to the site was opened.
    Served,
    /// No stream to the site could be opened, or the site refused the request (403 or 429).
    Failed,
}

/// What is known of one site and one route.
#[derive(Clone, Debug)]
pub(super) struct SiteLevel {
    /// The index of the source with which requests begin.
    pub(super) level: usize,
    /// Why the level is not 0. Has no meaning if it is 0.
    pub(super) cause: Cause,
    /// If the level is not 0: when it becomes 0 again.
    pub(super) until: Moment,
    /// The level does not rise before this time.
    hold: Moment,
    /// The number of requests that began with the source of the level, halved from time to time.
    tried: u32,
    /// How many of the present bans do not count, because they are older than this level.
    base: u32,
    /// How many requests in a row failed through the source of the level.
    failures: u8,
    /// True if the source of the level has served a request.
    has_served: bool,
    trial: Trial,
}

/// The trials of the source before the source of the level.
#[derive(Clone, Debug)]
struct Trial {
    /// How many requests began since the last trial.
    waited: u32,
    /// When the last trial began, or the escalation.
    at: Moment,
    /// True while the result of the last trial is open.
    is_open: bool,
    /// How many exits of the tried source the site banned when the trial began.
    bans: u32,
    served: bool,
    failed: bool,
    /// How many trials in a row succeeded.
    passed: u8,
}

impl SiteLevel {
    pub(super) fn at(level: usize, now: Moment) -> Self {
        let trial = Trial { waited: 0, at: now, is_open: false, bans: 0, served: false, failed: false, passed: 0 };
        Self {
            level,
            cause: Cause::Banned,
            until: now,
            hold: now,
            tried: 0,
            base: u32::MAX,
            failures: 0,
            has_served: false,
            trial,
        }
    }

    pub(super) fn level(&self, now: Moment) -> usize {
        if now < self.until { self.level } else { 0 }
    }

    /// Begins a request. `bans` returns how many exits of the source with this index the site bans now. Returns the index
    /// of the source to begin with.
    pub(super) fn begin(
        &mut self,
        sources: usize,
        bans: impl Fn(usize) -> u32,
        lasts: Duration,
        now: Moment,
    ) -> (usize, Option<Event>) {
        let mut event = None;
        if self.level >= sources || self.level > 0 && now >= self.until {
            *self = Self::at(0, now);
            event = Some(Event::Ended);
        }
        let banned = bans(self.level);
        self.base = self.base.min(banned);
        let new = banned - self.base;
        if new >= BANS && new.saturating_mul(2) >= self.tried {
            event = self.refused(sources, Cause::Banned, lasts, now).or(event);
            self.base = self.base.min(bans(self.level));
        }
        if self.level > 0 {
            self.trial.waited = self.trial.waited.saturating_add(1);
            if self.is_trial_due(lasts, now) {
                if self.closes_trial(bans(self.level - 1)) {
                    let until = self.until;
                    *self = Self { until, cause: self.cause, ..Self::at(self.level - 1, now) };
                    event = Some(Event::Returned);
                } else {
                    let bans = bans(self.level - 1);
                    let passed = self.trial.passed;
                    self.trial =
                        Trial { waited: 0, at: now, is_open: true, bans, served: false, failed: false, passed };
                    return (self.level - 1, event);
                }
            }
        }
        self.tried += 1;
        if self.tried >= WINDOW {
            self.tried /= 2;
            self.base = self.base.saturating_add(new / 2);
        }
        (self.level, event)
    }

    /// Changes the level, because the source of the level is refused again and again.
    fn refused(&mut self, sources: usize, cause: Cause, lasts: Duration, now: Moment) -> Option<Event> {
        if self.level + 1 < sources && now >= self.hold {
            *self = Self { cause, until: now.after(lasts), ..Self::at(self.level + 1, now) };
            return Some(Event::Begun(cause));
        }
        if self.level == 0 {
            return None;
        }
        *self = Self { hold: now.after(lasts), ..Self::at(0, now) };
        Some(Event::Useless)
    }

    fn is_trial_due(&self, lasts: Duration, now: Moment) -> bool {
        let every = if self.trial.passed > 0 { TRIAL_AGAIN } else { TRIAL_EVERY };
        self.trial.waited >= every && now.since(self.trial.at) >= lasts / TRIALS_IN_TIME
    }

    /// Decides how the last trial ended. `bans` is how many exits of the tried source the site bans now. Returns true if
    /// enough trials in a row succeeded. A client that uses tunnels reports a refusal, which makes a ban, but no success.
    /// So a trial succeeded if it was served and no ban followed until the next trial is due.
    fn closes_trial(&mut self, bans: u32) -> bool {
        if std::mem::take(&mut self.trial.is_open) {
            let succeeded = self.trial.served && !self.trial.failed && bans <= self.trial.bans;
            self.trial.passed = if succeeded { self.trial.passed + 1 } else { 0 };
        }
        self.trial.passed >= TRIALS
    }

    pub(super) fn note(
        &mut self,
        at: usize,
        outcome: Outcome,
        sources: usize,
        lasts: Duration,
        now: Moment,
    ) -> Option<Event> {
        if at < self.level {
            match outcome {
                Outcome::Served => self.trial.served = true,
                Outcome::Failed => self.trial.failed = true,
            }
        }
        if at != self.level {
            return None;
        }
        if outcome == Outcome::Served {
            (self.failures, self.has_served) = (0, true);
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        // If nothing was ever served by the later source, the site is probably down for everybody.
        let most = if self.level > 0 && !self.has_served { USELESS } else { FAILURES };
        if self.failures < most {
            return None;
        }
        let is_useless = self.level > 0 && !self.has_served;
        let sources = if is_useless { self.level + 1 } else { sources };
        self.refused(sources, Cause::Failed, lasts, now)
    }
}
