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

mod site_level;

use std::sync::Arc;
use std::time::Duration;

use self::site_level::SiteLevel;
pub use self::site_level::{Cause, Event, Outcome};
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
pub struct Escalations(Sharded<Key, SiteLevel>);

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
        if let Some(site_level) = shard.get(hash, |other| other.is(key)) {
            let (first, event) = site_level.begin(sources.len(), bans, lasts, now);
            return Some(Start { first, event, evicted: false });
        }
        let mut site_level = SiteLevel::at(0, now);
        let (first, event) = site_level.begin(sources.len(), bans, lasts, now);
        let key = Key { route: wish.label().into(), site: site.into() };
        let evicted = shard.insert(hash, key, site_level).is_some_and(|(_, site_level)| site_level.level(now) > 0);
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
        shard.peek(hash, |other| other.is(key)).map(|site_level| site_level.level(now))
    }

    /// Returns the escalation of the site that applies now. Changes nothing.
    pub fn of(&self, wish: &Wish, host: &Host, now: Moment) -> Option<Escalated> {
        lasts(wish)?;
        let (site, route) = (site_name(host), wish.label());
        let key = (route, &*site);
        let hash = self.0.hash(key);
        let shard = self.0.lock(hash);
        let site_level = shard.peek(hash, |other| other.is(key)).filter(|site_level| site_level.level(now) > 0)?;
        let source = *wish.policy.sources(&wish.selector).get(site_level.level)?;
        Some(Escalated { source, cause: site_level.cause, until: site_level.until })
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
    // A username that leaves out some of the route's sources would read the level, an index, in another list.
    let has_order = policy.fallback && policy.sources(&wish.selector).len() > 1 && !wish.selector.narrowed_source;
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

#[cfg(test)]
mod tests;
