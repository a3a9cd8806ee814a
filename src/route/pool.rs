//! A pool: the exits that a route uses now. Each exit of a pool has an IP of its own.
//!
//! A new edition of a pool keeps every member that is still good, so sessions stay on their exits, and circuits stay
//! ready. Only free places are filled, in two steps.
//!
//! First, some candidates are selected. Each route has its own order of all exits, in which an exit of twice the
//! capacity is twice as likely to be the first (weighted rendezvous hashing). The order hardly changes when exits come
//! and go, so a route gets mostly the same exits after a restart. The first exits of this order are the candidates.
//!
//! Second, the candidates are compared. Exits that other pools use less than their capacity allows come first, so
//! routes spread over the network. Among equal candidates, exits that are fast now and early in the order of the route
//! come first.
//!
//! Exits of several sources compete only inside one source: a source fills the places that the sources before it leave.
//!
//! Next: `route/table.rs` keeps the pools of named routes, and `route/implicit.rs` keeps the pools of other usernames.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::balance::seed;
use super::policy::Policy;
use super::selector::{Pick, Selector};
use crate::exit::capacity::stir;
use crate::exit::catalog::Bits;
use crate::exit::{Catalog, Exit, ExitId, Slot, Source, Verdict};

/// The number of candidates that are compared for each free place of a pool. The candidate that the fewest other pools
/// use gets the place. Not tuned.
const SAMPLE: usize = 8;

/// The number of candidates for each free place if the candidates may have the address of a member. Not tuned: four
/// times `SAMPLE`.
const SHARED_SAMPLE: usize = 4 * SAMPLE;

/// Bounds for latencies in the ranking of candidates. Latencies below `QUICK` count as `QUICK`, and latencies above
/// `SLOW` count as `SLOW`. Not tuned.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_secs(5);

/// The latency that the ranking assumes for an exit whose latency no check has measured.
const UNTIMED: Duration = Duration::from_secs(1);

/// The exits that a route uses now. A pool is immutable: a change makes another edition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    wanted: usize,
    members: Box<[Member]>,
    unique_ips: usize,
    epoch: u64,
}

/// One exit of a pool: the id of the exit, and its slot. The slot finds the exit without a hash look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    slot: Slot,
    id: ExitId,
}

impl Member {
    pub fn id(&self) -> &ExitId {
        &self.id
    }

    /// Returns the exit of this member in the given catalog, if the exit is still there.
    pub fn exit<'c>(&self, catalog: &'c Catalog) -> Option<&'c Arc<Exit>> {
        catalog.still(self.slot, &self.id).or_else(|| catalog.get(&self.id))
    }
}

/// The route or selector for which a pool is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    /// The name of the route, or the canonical selector.
    pub(crate) scope: &'a str,
    pub(crate) selector: &'a Selector,
    pub(crate) policy: &'a Policy,
    /// A number that increases when all members of the pool are to be exchanged.
    pub(crate) epoch: u64,
}

/// How many pools use each exit. The index is the slot of the exit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses(Vec<u16>);

impl Uses {
    pub(crate) fn count(&mut self, pool: &Pool) {
        for member in &pool.members {
            let at = member.slot.0 as usize;
            if at >= self.0.len() {
                self.0.resize(at + 1, 0);
            }
            self.0[at] = self.0[at].saturating_add(1);
        }
    }

    /// Subtracts the members of this pool. This reverses [`Uses::count`].
    pub(crate) fn discount(&mut self, pool: &Pool) {
        for member in &pool.members {
            if let Some(count) = self.0.get_mut(member.slot.0 as usize) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn of(&self, exit: &Exit) -> u64 {
        self.0.get(exit.slot().0 as usize).copied().map_or(0, u64::from)
    }
}

impl Pool {
    /// How many exits with different IPs the route wants.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// How many exits the pool has now.
    pub fn have(&self) -> usize {
        self.members.len()
    }

    /// How many different IPs the exits of the pool have. An exit that sites see with several IPs does not count.
    pub fn unique_ips(&self) -> usize {
        self.unique_ips
    }

    /// The exits of the pool, the oldest members first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn has(&self, id: &ExitId) -> bool {
        self.members.iter().any(|member| member.id == *id)
    }

    /// Returns the next edition of the pool. Members that are still suitable stay, and free places are filled. `None`
    /// if nothing changes.
    pub(crate) fn refreshed(&self, need: &Need<'_>, catalog: &Catalog, uses: &Uses) -> Option<Self> {
        let mut next = Filling::new(self, need, catalog, uses);
        next.keep();
        if next.missing() > 0 {
            next.fill();
        }
        let next = next.finish();
        (next != *self).then_some(next)
    }
}

/// The next edition of a pool while it is being filled.
struct Filling<'a> {
    old: &'a Pool,
    need: &'a Need<'a>,
    catalog: &'a Catalog,
    uses: &'a Uses,
    sources: &'a [Source],
    wanted: usize,
    distinct: Vec<&'a Arc<Exit>>,
    /// Exits of which no single IP is known. They fill places if no exit with a single known IP is left.
    makeshift: Vec<&'a Arc<Exit>>,
    ips: Vec<IpAddr>,
    seed: u64,
}

impl<'a> Filling<'a> {
    fn new(old: &'a Pool, need: &'a Need<'a>, catalog: &'a Catalog, uses: &'a Uses) -> Self {
        let (distinct, makeshift, ips) = (Vec::new(), Vec::new(), Vec::new());
        let wanted = usize::from(need.policy.pool.max(1));
        let sources = serving(need, need.policy.sources(need.selector), catalog);
        let seed = stir(seed(need.scope), need.epoch);
        Self { old, need, catalog, uses, sources, wanted, distinct, makeshift, ips, seed }
    }

    /// Copies the members that are still suitable, in their order. A relay that one consensus does not list keeps its
    /// place, and connections use the other members meanwhile.
    fn keep(&mut self) {
        if self.old.epoch != self.need.epoch {
            return;
        }
        let filter = self.need.selector.filter(self.sources, self.need.policy.check.as_deref());
        for exit in self.old.members.iter().filter_map(|member| member.exit(self.catalog)) {
            let stays = exit.is_kept() && exit.known().verdict == Verdict::Good;
            if stays && filter.wants(exit) && self.need.selector.picks(exit) {
                self.offer(exit);
            }
        }
    }

    fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.distinct.len())
    }

    fn offer(&mut self, exit: &'a Arc<Exit>) {
        let Some(ip) = exit.ip().filter(|_| exit.distinct()) else {
            if self.makeshift.len() < self.wanted {
                self.makeshift.push(exit);
            }
            return;
        };
        if self.missing() > 0 && !self.ips.contains(&ip) {
            self.ips.push(ip);
            self.distinct.push(exit);
        }
    }

    /// Fills free places source by source. A source is used only when all earlier sources in the order of preference
    /// have no more suitable exits.
    fn fill(&mut self) {
        for source in self.sources {
            let mut free = candidates(self.need, &[*source], self.catalog);
            self.distinct.iter().chain(&self.makeshift).for_each(|exit| free.set(exit.slot(), false));
            let distinct = free.and(self.catalog.distinct());
            self.fill_from(&distinct, SAMPLE);
            if self.missing() > 0 {
                // Thousands of exits may share one address, so all candidates may have the addresses of members.
                self.fill_from(&distinct.and(self.catalog.leading()), SAMPLE);
            }
            if self.missing() > 0 {
                // The leading exit of an address may be no candidate, or may be a member already. Then other exits with
                // that address may be used.
                self.fill_from(&distinct, SHARED_SAMPLE);
            }
            if self.missing() > self.makeshift.len() {
                free.drop(self.catalog.distinct());
                self.fill_from(&free, SAMPLE);
            }
        }
    }

    fn fill_from(&mut self, free: &Bits, each: usize) {
        let first = self.catalog.first(free, self.seed, each * self.missing().max(SAMPLE));
        let candidates = first.into_iter().filter_map(|(rank, slot)| Some((rank, self.catalog.at(slot)?)));
        let candidates: Vec<_> = candidates.collect();
        let fair = self.fair(candidates.iter().map(|(_, exit)| &***exit));
        let mut ranked: Vec<_> = candidates.iter().map(|(rank, exit)| (self.key(*rank, exit, fair), *exit)).collect();
        ranked.sort_unstable_by(|(one, _), (other, _)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        ranked.into_iter().for_each(|(_, exit)| {
            let there = |held: &&Arc<Exit>| held.slot() == exit.slot();
            if !self.distinct.iter().any(there) && !self.makeshift.iter().any(there) {
                self.offer(exit);
            }
        });
    }

    /// Returns how many pools would use an exit of the mean capacity, if these candidates were used in proportion to
    /// their capacities.
    fn fair<'e>(&self, candidates: impl Iterator<Item = &'e Exit>) -> u64 {
        let sum = |(uses, capacity), exit: &Exit| (uses + self.uses.of(exit), capacity + u64::from(exit.capacity()));
        let (uses, capacity) = candidates.fold((0, 0), sum);
        uses * u64::from(self.catalog.mean_capacity()) / capacity.max(1)
    }

    /// Returns the sort key of a candidate for a free place of the pool. The candidate with the smallest key is the
    /// best. The first value of the key is true for exits that are being exchanged: they come last. The second value is
    /// 0 for exits that no more pools use than their capacity allows, and larger for other exits. The third value is
    /// false for exits that allow the ports of the web. If all three are equal, the product of latency and `rank`
    /// decides (`rank` comes from weighted rendezvous hashing and is low for exits of large capacity).
    fn key(&self, rank: f64, exit: &Exit, fair: u64) -> ((bool, u64, bool), f64) {
        let exchanged = self.old.epoch != self.need.epoch && self.old.has(exit.id());
        let web = exit.allows(443, false) && exit.allows(80, false);
        let latency = exit.known().latency.unwrap_or(UNTIMED).clamp(QUICK, SLOW);
        // How many pools use the exit, relative to its capacity. For example, if three pools use an exit of three times
        // the mean capacity, the result is 1.
        let uses = self.uses.of(exit) * u64::from(self.catalog.mean_capacity()) / u64::from(exit.capacity());
        ((exchanged, uses.saturating_sub(fair), !web), rank * latency.as_secs_f64())
    }

    fn finish(self) -> Pool {
        let makeshift = self.makeshift.iter().take(self.wanted.saturating_sub(self.distinct.len()));
        let member = |exit: &&Arc<Exit>| Member { slot: exit.slot(), id: exit.id().clone() };
        let members = self.distinct.iter().chain(makeshift).map(member).collect();
        Pool { wanted: self.wanted, members, unique_ips: self.distinct.len(), epoch: self.need.epoch }
    }
}

/// Returns which of the `sources` to use. With `fallback` this is only the first source that has a suitable exit,
/// otherwise all sources in their order.
pub(crate) fn serving<'a>(need: &Need<'_>, sources: &'a [Source], catalog: &Catalog) -> &'a [Source] {
    if !need.policy.fallback {
        return sources;
    }
    let serves = |source: &&[Source]| !candidates(need, source, catalog).is_empty();
    sources.chunks(1).find(serves).unwrap_or(sources)
}

/// Returns the set of all usable exits that match the selector. Members of the pool are included.
pub(crate) fn candidates(need: &Need<'_>, sources: &[Source], catalog: &Catalog) -> Bits {
    let mut bits = catalog.matching(&need.selector.filter(sources, need.policy.check.as_deref()));
    bits.keep(catalog.usable());
    if let Some(pick) = &need.selector.exit {
        bits.keep(&picked(pick, catalog));
    }
    bits
}

/// Looks up the exits for the `exit-…` token of a selector.
pub(crate) fn picked(pick: &Pick, catalog: &Catalog) -> Bits {
    match pick {
        Pick::Relay(relay) => catalog.slot(&ExitId::Tor(*relay)).into_iter().collect(),
        Pick::Ip(ip) => catalog.behind(*ip),
    }
}

#[cfg(test)]
mod tests;
