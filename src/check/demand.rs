//! Decides which exits of one tester are wanted, which means that routes, usernames or pins need them. Pure.
//!
//! Exits are wanted by routes, by usernames that were used lately, and by pins (each pin keeps one exit for weeks). All
//! routes that choose among the same exits form one group. The reason: if each route were counted alone, all their
//! pools would share the same few tested exits.
//!
//! Each place in a pool (the exits that a route uses) of a group needs a good exit with an address of its own. The
//! group also wants some good exits as a reserve, because members of a pool may fail and sites may ban members.
//!
//! If a group has too few good exits, the group also wants untested exits that match its selector. These exits are
//! drawn at random by their consensus weight, as Tor's own clients draw exits. Otherwise all gateways would test and
//! use the same few large exits.
//!
//! Next: `check/schedule.rs` decides when wanted exits are checked.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::settings::Tested;
use crate::exit::catalog::Bits;
use crate::exit::country::Country;
use crate::exit::{Catalog, Exit, ExitId, Moment, Slot, Source};
use crate::lifecycle::yielding;
use crate::route::memory::Memory;
use crate::route::policy::Policy;
use crate::route::pool::{self, Pool};
use crate::route::selector::{Mode, Selector};
use crate::state::Snapshot;

/// A route counts as used if its last use was within this time. `route/wanted.rs` has the same value for circuits.
const IN_USE: Duration = Duration::from_secs(600);

/// The least number of good exits that a group wants in addition to the places of its pools. Not tuned: the three exits
/// that one request may try, and one more.
const RESERVE: usize = 4;

/// How many good exits the gateway keeps if no route, username or pin needs any, so that a first request need not wait.
const STANDING: usize = 8;

/// If a group of routes has too few good exits, untested exits are tested: as many as good exits are missing, and this
/// percentage more, because some of the tested exits fail. On the public network, 98 of 100 tested exits pass.
const SPARE_TESTS: usize = 25;

/// How much an exit is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The exit is a member of a pool that nobody uses now, or is kept to replace a member of a pool that fails.
    Reserve,
    /// A route in use has the exit in its pool, a client uses a pin to the exit, or the exit may fill a free place of a
    /// pool.
    Used,
}

/// The exits that can be tested, in the order in which they are tested.
#[derive(Clone, Debug, Default)]
pub struct Order {
    slots: Vec<Slot>,
    testable: Bits,
}

impl Order {
    /// Draws an order in which exits with more capacity tend to come first. The same `seed` gives the same order.
    pub fn new(catalog: &Catalog, seed: u64, can_test: impl Fn(&Exit) -> bool) -> Self {
        let exits = catalog.alive().iter().filter_map(|slot| catalog.at(slot)).filter(|exit| can_test(exit));
        let mut drawn: Vec<_> = exits.map(|exit| (exit.rank(seed), exit.slot())).collect();
        drawn.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        let testable = drawn.iter().map(|(_, slot)| *slot).collect();
        Self { slots: drawn.into_iter().map(|(_, slot)| slot).collect(), testable }
    }

    fn of<'c>(&'c self, set: &'c Bits, catalog: &'c Catalog) -> impl Iterator<Item = &'c Exit> {
        let slots = self.slots.iter().filter(|slot| set.has(**slot));
        slots.filter_map(|slot| catalog.at(*slot)).map(|exit| &**exit)
    }

    /// Returns one untested exit for each country without a good exit: exit → its place in the order of tests. The exit
    /// with the lowest number is tested first, which is the exit of the country with the fewest exits. Routes want
    /// large countries most often, so exits of large countries are tested anyway.
    pub fn representatives(&self, catalog: &Catalog) -> HashMap<ExitId, u32> {
        let sizes: HashMap<Country, usize> =
            catalog.countries().map(|(country, count)| (country, count.known)).collect();
        let usable = catalog.usable().and(&self.testable);
        let mut covered: HashSet<Country> = self.of(&usable, catalog).map(Exit::country).collect();
        let untested = catalog.untested().and(&self.testable);
        let first = self.of(&untested, catalog).filter(|exit| covered.insert(exit.country()));
        let mut first: Vec<_> = first.map(|exit| (sizes.get(&exit.country()).copied(), exit.id().clone())).collect();
        first.sort_by_key(|(size, _)| *size);
        first.into_iter().zip(1..).map(|((_, id), place)| (id, place)).collect()
    }
}

/// The data from which [`wanted`] decides which exits are wanted.
pub struct Inputs<'a> {
    pub snapshot: &'a Snapshot,
    pub memory: &'a Memory,
    pub order: &'a Order,
    /// The exits that the tester tests.
    pub tested: Tested,
    /// Returns true if the last check of the exit requested all sites that routes name. If a site was not requested,
    /// nobody knows yet whether the site accepts the exit.
    pub asked_sites: &'a dyn Fn(&ExitId) -> bool,
    pub now: Moment,
}

/// The key of a group of routes and usernames that choose among the same exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The selector without mode and session.
    selector: Selector,
    /// The sources of the tester that the group may use.
    sources: Vec<Source>,
    check: Option<std::sync::Arc<str>>,
    /// True if each route of the group keeps one address of its own.
    strict: bool,
}

#[derive(Debug, Default)]
struct Group {
    places: usize,
    reserve: usize,
    /// The members of the pools, each with true if its pool is in use.
    members: Vec<(ExitId, bool)>,
}

/// Returns the wanted exits, and how much each of them is wanted.
pub fn wanted(inputs: &Inputs<'_>) -> HashMap<ExitId, Want> {
    let mut all = HashMap::new();
    let pins = inputs.memory.pins().list(inputs.now);
    for pin in &pins {
        let used = inputs.now.since(pin.used) < IN_USE;
        raise(&mut all, &pin.to.exit, if used { Want::Used } else { Want::Reserve });
    }
    let taken: HashSet<IpAddr> = pins.iter().map(|pin| pin.to.ip).collect();
    let pinned: HashSet<&str> =
        pins.iter().filter(|pin| pin.holder.session.is_none()).map(|pin| &*pin.holder.scope).collect();
    let mut groups = groups(inputs, |scope| pinned.contains(scope));
    for scope in pins.iter().map(|pin| &*pin.holder.scope).collect::<HashSet<_>>() {
        if let Ok(wish) = inputs.snapshot.routes.resolve(scope, None) {
            add(inputs.tested, &mut groups, &wish.selector, &wish.policy, 0, None);
        }
    }
    if inputs.tested == Tested::Upstream {
        want_unplaced(inputs, &mut all);
    }
    for (key, group) in &groups {
        yielding::yield_if_due();
        fill(inputs, key, group, &taken, &mut all);
    }
    all
}

/// Wants each untested exit of one's own whose country is unknown. Otherwise no route for a country could ever use the
/// exit, because only a check shows in which country it leaves. Exits whose country is known are tested when a route
/// needs them.
fn want_unplaced(inputs: &Inputs<'_>, all: &mut HashMap<ExitId, Want>) {
    let catalog = &inputs.snapshot.catalog;
    let untested = catalog.untested().and(&inputs.order.testable);
    let unplaced = inputs.order.of(&untested, catalog).filter(|exit| !exit.country().is_known());
    unplaced.for_each(|exit| raise(all, exit.id(), Want::Reserve));
}

fn groups(inputs: &Inputs<'_>, has_pin: impl Fn(&str) -> bool) -> HashMap<Key, Group> {
    let lately = |used: Moment| inputs.now.since(used) < IN_USE;
    let mut groups = HashMap::new();
    let defaults = inputs.snapshot.routes.defaults();
    if let Some(any) = any(inputs.snapshot).filter(|_| inputs.tested != Tested::Upstream) {
        let sources = sources(inputs.tested, &Source::BUILT_IN);
        let key = Key { selector: any, sources, check: defaults.check.clone(), strict: false };
        groups.insert(key, Group { reserve: STANDING, ..Group::default() });
    }
    for entry in inputs.snapshot.routes.iter() {
        let (route, used) = (&entry.route, entry.used().is_some_and(lately));
        if route.selector.mode == Mode::Strict {
            let places = usize::from(!has_pin(route.name.as_str()));
            add(inputs.tested, &mut groups, &route.selector, &route.policy, places, None);
        } else {
            let places = usize::from(route.policy.pool.max(1));
            add(inputs.tested, &mut groups, &route.selector, &route.policy, places, Some((&entry.pool, used)));
        }
    }
    for implicit in inputs.memory.implicit().list() {
        let (policy, used) = (implicit.policy(), lately(implicit.used()));
        let places = usize::from(policy.pool.max(1));
        add(inputs.tested, &mut groups, implicit.selector(), policy, places, Some((&implicit.pool(), used)));
    }
    groups
}

/// The selector of the username `any`.
fn any(snapshot: &Snapshot) -> Option<Selector> {
    Some(Selector::parse("any", snapshot.routes.words()).ok()?.pooled())
}

/// Returns those of the sources whose exits the tester tests.
fn sources(tested: Tested, of: &[Source]) -> Vec<Source> {
    of.iter().copied().filter(|source| tested.includes(*source)).collect()
}

fn add(
    tested: Tested,
    groups: &mut HashMap<Key, Group>,
    selector: &Selector,
    policy: &Policy,
    places: usize,
    pool: Option<(&Pool, bool)>,
) {
    let sources = sources(tested, policy.sources(selector));
    if sources.is_empty() {
        return;
    }
    let strict = selector.mode == Mode::Strict;
    let pooled = Selector { exit: selector.exit, ..selector.pooled() };
    let group = groups.entry(Key { selector: pooled, sources, check: policy.check.clone(), strict }).or_default();
    group.places += places;
    group.reserve = group.reserve.max(RESERVE).max(places / 2);
    if let Some((pool, used)) = pool {
        group.members.extend(pool.members().iter().map(|member| (member.id().clone(), used)));
    }
}

/// Adds to `all` the exits that one group wants.
fn fill(inputs: &Inputs<'_>, key: &Key, group: &Group, taken: &HashSet<IpAddr>, all: &mut HashMap<ExitId, Want>) {
    let (catalog, order) = (&inputs.snapshot.catalog, inputs.order);
    let mut matching = catalog.matching(&key.selector.filter(&key.sources, None));
    matching.keep(&order.testable);
    if let Some(pick) = &key.selector.exit {
        matching.keep(&pool::picked(pick, catalog));
    }
    let mut good = matching.and(catalog.usable());
    if let Some(check) = &key.check {
        good.keep(catalog.passing(check).unwrap_or(&Bits::default()));
    }
    // In a strict group, each route needs an address of its own. So an exit with an address that a pin already uses
    // does not count as a reserve.
    let mut addresses = if key.strict { taken.clone() } else { HashSet::new() };
    let (before, target) = (addresses.len(), group.places + group.reserve);
    for (id, used) in &group.members {
        let Some(exit) = catalog.get(id).filter(|exit| good.has(exit.slot())) else { continue };
        addresses.insert(address(exit));
        raise(all, id, if *used { Want::Used } else { Want::Reserve });
    }
    for exit in order.of(&good, catalog).filter(|exit| !key.strict || exit.distinct()) {
        if addresses.len() - before >= target {
            return;
        }
        if addresses.insert(address(exit)) {
            raise(all, exit.id(), Want::Reserve);
        }
    }
    let have = addresses.len() - before;
    let want = if have < group.places { Want::Used } else { Want::Reserve };
    let missing = target - have;
    let mut untested = matching.and(catalog.untested());
    let unasked = |exit: &Exit| !good.has(exit.slot()) && !(inputs.asked_sites)(exit.id());
    let works = matching.and(catalog.usable());
    order.of(&works, catalog).filter(|exit| unasked(exit)).for_each(|exit| untested.set(exit.slot(), true));
    let new = order.of(&untested, catalog).filter(|exit| addresses.insert(address(exit)));
    new.take(missing + (missing * SPARE_TESTS).div_ceil(100)).for_each(|exit| raise(all, exit.id(), want));
    let mut bad = matching;
    bad.drop(catalog.usable());
    bad.drop(catalog.untested());
    order.of(&bad, catalog).take(missing).for_each(|exit| raise(all, exit.id(), want));
}

/// Returns the address that sites see. If no check has observed that address, returns the address that the exit
/// announces.
fn address(exit: &Exit) -> IpAddr {
    let announced = || exit.listing().announced.first().copied();
    exit.ip().or_else(announced).unwrap_or(IpAddr::from(exit.seed().to_be_bytes().map(u16::from)))
}

fn raise(all: &mut HashMap<ExitId, Want>, id: &ExitId, want: Want) {
    let held = all.entry(id.clone()).or_insert(want);
    *held = (*held).max(want);
}

#[cfg(test)]
mod tests;
