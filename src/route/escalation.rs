//! Remembers at which sites an earlier source of a route is of no use, so that requests to these sites begin with a
//! later source.
//!
//! This concerns routes with `fallback = true`, which name their sources in order, usually the cheap source first. For
//! each pair (route, site) there is a level: the index of the source with which requests begin. The level rises by one
//! if the site has banned exits of the present source one after the other, or if requests through this source fail one
//! after the other. After `escalate_for` the requests begin with the first source again.
//!
//! Meanwhile a small share of the requests tries the source before the present one (a trial). If two trials in a row
//! succeed, the level falls early. If the later source is refused too, nothing is gained by its price: requests begin
//! with the first source again, and the level does not rise before `escalate_for` has passed.
//!
//! The table is bounded and is lost at a restart. Bans are not lost, so a restart costs a few refused requests.

use std::sync::Arc;
use std::time::Duration;

use super::ban::site_name;
use super::lru::Sharded;
use super::selector::Mode;
use super::table::Wish;
use super::view::View;
use crate::exit::catalog::Filter;
use crate::exit::country::CountrySet;
use crate::exit::{Moment, Source};
use crate::net::Host;

/// The largest number of pairs (route, site). An entry takes about 200 bytes. Not tuned: some thousand sites at the
/// same time are many for one scraper.
const SITES: usize = 10_000;

/// How many exits of a source a site must ban before the next source serves. One ban says nothing about the source: the
/// exit itself may have a bad name.
const BANS: u32 = 2;

/// How many requests in a row must fail before the next source serves. Not tuned: two forbidden pages in a row are
/// common, three are not.
const FAILURES: u8 = 3;

/// How many requests in a row through a later source must fail until it counts as no better than the earlier one.
const USELESS: u8 = 2;

/// When this many requests were counted, their number and the number of their bans are halved, so old requests count
/// less. Not tuned.
const WINDOW: u32 = 64;

/// One of this many requests is a trial of the source before the present one. A trial at a site that still bans this
/// source fails, so a larger share would cost more failed requests.
const TRIAL_EVERY: u32 = 50;

/// After a trial that succeeded, one of this many requests is the next trial.
const TRIAL_AGAIN: u32 = 5;

/// During `escalate_for` there are at most this many trials, so a busy scraper does not have many exits banned.
const TRIALS_IN_TIME: u32 = 60;

/// How many trials in a row must succeed before the level falls.
const TRIALS: u8 = 2;

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

/// How one request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The index of the source with which the request begins.
    pub first: usize,
    /// What this request changed.
    pub event: Option<Event>,
    /// True if another site was forgotten at whose requests a later source served, because the table is full.
    pub evicted: bool,
}

/// An escalation that applies now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escalated {
    /// The source with which requests begin.
    pub source: Source,
    pub cause: Cause,
    /// When requests begin with the first source again.
    pub until: Moment,
}

/// The table of all escalations.
#[derive(Debug)]
pub struct Escalations(Sharded<Key, Standing>);

#[derive(Debug)]
struct Key {
    route: Arc<str>,
    site: Box<str>,
}

impl Key {
    fn is(&self, (route, site): (&str, &str)) -> bool {
        *self.route == *route && *self.site == *site
    }
}

impl Default for Escalations {
    fn default() -> Self {
        Self::new(SITES)
    }
}

impl Escalations {
    fn new(bound: usize) -> Self {
        Self(Sharded::new(bound))
    }

    /// Decides with which source a request begins. Must be called once for each request. Returns `None` if the username
    /// has no sources in order, or keeps one address.
    pub fn begin(&self, view: View<'_>, wish: &Wish, host: &Host, now: Moment) -> Option<Start> {
        let lasts = lasts(wish)?;
        let sources = wish.policy.sources(&wish.selector);
        let bans = |level: usize| sources.get(level).map_or(0, |source| banned(view, *source, host, now));
        let site = site_name(host);
        let key = (wish.label(), &*site);
        let hash = self.0.hash(key);
        let mut shard = self.0.lock(hash);
        if let Some(standing) = shard.get(hash, |other| other.is(key)) {
            let (first, event) = standing.begin(sources.len(), bans, lasts, now);
            return Some(Start { first, event, evicted: false });
        }
        let mut standing = Standing::at(0, now);
        let (first, event) = standing.begin(sources.len(), bans, lasts, now);
        let key = Key { route: wish.label().into(), site: site.into() };
        let evicted = shard.insert(hash, key, standing).is_some_and(|(_, standing)| standing.level(now) > 0);
        Some(Start { first, event, evicted })
    }

    /// Records how a request ended that was served by an exit of `source`, or that failed through it.
    pub fn note(&self, wish: &Wish, host: &Host, source: Source, outcome: Outcome, now: Moment) -> Option<Event> {
        let lasts = lasts(wish)?;
        let sources = wish.policy.sources(&wish.selector);
        let at = sources.iter().position(|other| *other == source)?;
        let site = site_name(host);
        let key = (wish.label(), &*site);
        let hash = self.0.hash(key);
        let mut shard = self.0.lock(hash);
        shard.find_mut(hash, |other| other.is(key))?.note(at, outcome, sources.len(), lasts, now)
    }

    /// Returns the index of the source with which requests to the site begin now. Changes nothing. Returns `None` if
    /// nothing is known of the site.
    pub fn level(&self, wish: &Wish, host: &Host, now: Moment) -> Option<usize> {
        lasts(wish)?;
        let (site, route) = (site_name(host), wish.label());
        let key = (route, &*site);
        let hash = self.0.hash(key);
        let shard = self.0.lock(hash);
        shard.peek(hash, |other| other.is(key)).map(|standing| standing.level(now))
    }

    /// Returns the escalation of the site that applies now. Changes nothing.
    pub fn of(&self, wish: &Wish, host: &Host, now: Moment) -> Option<Escalated> {
        lasts(wish)?;
        let (site, route) = (site_name(host), wish.label());
        let key = (route, &*site);
        let hash = self.0.hash(key);
        let shard = self.0.lock(hash);
        let standing = shard.peek(hash, |other| other.is(key)).filter(|standing| standing.level(now) > 0)?;
        let source = *wish.policy.sources(&wish.selector).get(standing.level)?;
        Some(Escalated { source, cause: standing.cause, until: standing.until })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns true if the requests of this username may begin with a later source.
pub fn applies(wish: &Wish) -> bool {
    lasts(wish).is_some()
}

/// Returns how long an escalation lasts. Returns `None` if the requests of this username never escalate.
fn lasts(wish: &Wish) -> Option<Duration> {
    let policy = &wish.policy;
    let is_free = wish.selector.mode != Mode::Strict && wish.selector.exit.is_none();
    let has_order = policy.fallback && policy.sources(&wish.selector).len() > 1;
    policy.escalate_for.filter(|_| wish.entry.is_some() && is_free && has_order)
}

/// Returns how many exits of the source the site bans now.
fn banned(view: View<'_>, source: Source, host: &Host, now: Moment) -> u32 {
    let Some(bans) = view.bans.of(host) else { return 0 };
    let filter = Filter { sources: &[source], countries: &CountrySet::ALL, asn: None, not_asn: &[], check: None };
    let mut of_source = view.catalog.matching(&filter);
    of_source.keep(&bans.slots(view.catalog, now));
    u32::try_from(of_source.count()).unwrap_or(u32::MAX)
}

/// What is known of one site and one route.
#[derive(Clone, Debug)]
struct Standing {
    /// The index of the source with which requests begin.
    level: usize,
    /// Why the level is not 0. Has no meaning if it is 0.
    cause: Cause,
    /// If the level is not 0: when it becomes 0 again.
    until: Moment,
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

impl Standing {
    fn at(level: usize, now: Moment) -> Self {
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

    fn level(&self, now: Moment) -> usize {
        if now < self.until { self.level } else { 0 }
    }

    /// Begins a request. `bans` returns how many exits of the source with this index the site bans now. Returns the index
    /// of the source to begin with.
    fn begin(
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

    fn note(&mut self, at: usize, outcome: Outcome, sources: usize, lasts: Duration, now: Moment) -> Option<Event> {
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

#[cfg(test)]
mod tests;
