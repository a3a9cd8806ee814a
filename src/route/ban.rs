//! Bans: which site refuses which exit, and until when.
//!
//! If one shop blocks an exit, other sites may still accept that exit. So a ban belongs to a pair (site, exit), and
//! each ban ends by itself. A site is a registrable domain: `www.` and `api.` of one shop share their block list, but
//! two tenants of `github.io` do not.
//!
//! Bans are part of the immutable snapshot of the state, because every connection reads bans and must not wait for a
//! lock. Bans change a few times a second at most, so a new snapshot for each change costs little.
//!
//! A site that is down looks to each exit like a site that bans the exit. So all code that makes bans first calls
//! [`is_target_at_fault`], which compares the results of many exits. Bans are made by the tester and by
//! `route/refusal_detector.rs`, which watches real traffic.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::exit::catalog::{Bits, Layout};
use crate::exit::{Catalog, ExitId, Moment};
use crate::net::Host;

/// The largest number of sites with bans. A bound is necessary because clients report sites. This many sites with a
/// hundred bans each take about 30 MB. Beyond the bound, another site loses its bans: the one whose bans end first.
const SITES: usize = 4096;

/// If fewer exits than this number fail a target, the target does not count as faulty, even if no good exit passes
/// it. Not tuned: two exits can fail together by accident.
const EVIDENCE: usize = 3;

/// A site: a registrable domain, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(Arc<str>);

impl Site {
    /// Returns the site to which a host belongs.
    pub fn of(host: &Host) -> Self {
        Self(site_name(host).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Site {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Returns the name of the site. A host name that is itself a public suffix, or that has none, is its own site.
pub(super) fn site_name(host: &Host) -> Cow<'_, str> {
    match host {
        Host::Name(name) => Cow::Borrowed(psl::domain_str(name).unwrap_or(name)),
        Host::Ip(ip) => Cow::Owned(ip.to_string()),
    }
}

/// All bans of one snapshot: site → bans of the site. A clone copies one pointer.
#[derive(Clone, Debug, Default)]
pub struct Bans(Arc<HashMap<Site, Arc<SiteBans>>>);

/// The bans of one site.
#[derive(Debug, Default)]
pub struct SiteBans {
    ends: HashMap<ExitId, Moment>,
    /// The slots of the banned exits. The first connection that needs the slots computes them.
    found: ArcSwapOption<BannedSlots>,
}

/// The slots of the exits that one site bans, in one catalog.
#[derive(Debug)]
struct BannedSlots {
    layout: Layout,
    /// When the first of these bans ends. At that time the slots must be computed again.
    until: Moment,
    slots: Arc<Bits>,
}

impl Clone for SiteBans {
    /// Copies everything but the computed slots, because a copy is made only to be changed, and a change makes the
    /// slots wrong.
    fn clone(&self) -> Self {
        Self { ends: self.ends.clone(), found: ArcSwapOption::empty() }
    }
}

impl SiteBans {
    /// Returns when the ban of the exit ends. `None` if the exit is not banned.
    pub fn until(&self, exit: &ExitId, now: Moment) -> Option<Moment> {
        self.ends.get(exit).copied().filter(|until| *until > now)
    }

    /// Returns the slots of the exits that are banned now. The slots are computed again only after an exit has come or
    /// gone, or after a ban has ended. A site may ban thousands of exits, so computing the slots for each connection
    /// would be too slow.
    pub(super) fn slots(&self, catalog: &Catalog, now: Moment) -> Arc<Bits> {
        if let Some(found) = &*self.found.load()
            && now < found.until
            && found.layout.is_of(catalog)
        {
            return found.slots.clone();
        }
        let held = || self.ends.iter().filter(|(_, until)| **until > now);
        let until = held().map(|(_, until)| *until).min().unwrap_or(Moment(u64::MAX));
        let slots: Arc<Bits> = Arc::new(held().filter_map(|(exit, _)| catalog.slot(exit)).collect());
        self.found.store(Some(Arc::new(BannedSlots { layout: catalog.layout(), until, slots: slots.clone() })));
        slots
    }
}

impl Bans {
    /// Returns the bans of the site to which a host belongs.
    pub fn of(&self, host: &Host) -> Option<&SiteBans> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&*site_name(host)).map(|bans| &**bans)
    }

    /// Returns when the site's ban of the exit ends. `None` if there is no such ban.
    pub fn until(&self, site: &Site, exit: &ExitId, now: Moment) -> Option<Moment> {
        self.0.get(site)?.until(exit, now)
    }

    /// Iterates over every ban that has not ended.
    pub fn iter(&self, now: Moment) -> impl Iterator<Item = (&Site, &ExitId, Moment)> {
        let held = move |(exit, until): (_, &Moment)| (*until > now).then_some((exit, *until));
        self.0.iter().flat_map(move |(site, bans)| {
            bans.ends.iter().filter_map(held).map(move |(exit, until)| (site, exit, until))
        })
    }

    /// Returns the present bans together with the given bans (site, exit, end of the ban). If the exit is banned by the
    /// site already, the later end counts.
    pub fn with(&self, bans: impl IntoIterator<Item = (Site, ExitId, Moment)>) -> Self {
        let mut next = self.clone();
        let sites = Arc::make_mut(&mut next.0);
        for (site, exit, until) in bans {
            let held = Arc::make_mut(sites.entry(site.clone()).or_default()).ends.entry(exit).or_insert(until);
            *held = until.max(*held);
            if sites.len() > SITES {
                let ends = |bans: &SiteBans| bans.ends.values().max().copied();
                let others = sites.iter().filter(|(other, _)| **other != site);
                let first = others.min_by_key(|(_, bans)| ends(bans)).map(|(site, _)| site.clone());
                first.and_then(|site| sites.remove(&site));
            }
        }
        next
    }

    /// Returns the present bans without those of these exits for one site.
    pub fn without(&self, site: &Site, exits: &[ExitId]) -> Self {
        let mut next = self.clone();
        let sites = Arc::make_mut(&mut next.0);
        if let Some(bans) = sites.get_mut(site) {
            let bans = Arc::make_mut(bans);
            bans.ends.retain(|exit, _| !exits.contains(exit));
            if bans.ends.is_empty() {
                sites.remove(site);
            }
        }
        next
    }

    /// Returns the bans that have not ended. `None` if no ban has ended.
    pub fn swept(&self, now: Moment) -> Option<Self> {
        let over = |bans: &SiteBans| bans.ends.values().any(|until| *until <= now);
        if !self.0.values().any(|bans| over(bans)) {
            return None;
        }
        let mut next = self.clone();
        let sites = Arc::make_mut(&mut next.0);
        for bans in sites.values_mut().filter(|bans| over(bans)) {
            Arc::make_mut(bans).ends.retain(|_, until| *until > now);
        }
        sites.retain(|_, bans| !bans.ends.is_empty());
        Some(next)
    }
}

/// Returns true if so many exits fail a target at the same time that the target must be at fault. `failing` exits must
/// be at least [`EVIDENCE`], and more than half of the `recently_good` exits.
pub fn is_target_at_fault(recently_good: usize, failing: usize) -> bool {
    failing >= EVIDENCE && failing * 2 > recently_good
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn site(host: &str) -> Site {
        Site::of(&Host::parse(host).unwrap())
    }

    #[test]
    fn a_site_is_a_registrable_domain() {
        for (host, want) in [
            ("www.shop.example.com", "example.com"),
            ("example.com", "example.com"),
            ("a.b.shop.co.uk", "shop.co.uk"),
            ("co.uk", "co.uk"),
            ("one.github.io", "one.github.io"),
            ("x.one.github.io", "one.github.io"),
            ("shop", "shop"),
            ("www.shop.test", "shop.test"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(site(host).as_str(), want, "{host}");
        }
    }

    #[test]
    fn a_ban_belongs_to_one_site_and_ends() {
        let shop = site("shop.com");
        let empty = Bans::default();
        let bans = empty.with([(shop.clone(), exit(1), START.after(MINUTE))]);
        let asked =
            |host: &str, n, now| bans.of(&Host::parse(host).unwrap()).and_then(|bans| bans.until(&exit(n), now));
        assert_eq!(asked("api.shop.com", 1, START), Some(START.after(MINUTE)));
        assert_eq!(asked("api.shop.com", 2, START), None);
        assert_eq!(asked("shop.org", 1, START), None);
        assert_eq!(asked("shop.com", 1, START.after(MINUTE)), None);
        assert!(empty.of(&Host::parse("shop.com").unwrap()).is_none(), "the snapshot before is as it was");
        let longer = bans.with([(shop.clone(), exit(1), START.after(2 * MINUTE)), (shop.clone(), exit(1), START)]);
        assert_eq!(longer.until(&shop, &exit(1), START), Some(START.after(2 * MINUTE)));
        assert!(bans.swept(START).is_none());
        assert_eq!(bans.swept(START.after(MINUTE)).unwrap().0.len(), 0);
    }

    #[test]
    fn bans_of_some_exits_for_one_site_are_lifted() {
        let (shop, other) = (site("shop.com"), site("other.com"));
        let ban = |site: &Site, n| (site.clone(), exit(n), START.after(MINUTE));
        let bans = Bans::default().with([ban(&shop, 1), ban(&shop, 2), ban(&other, 1)]);
        let rest = bans.without(&shop, &[exit(1), exit(9)]);
        let held = |bans: &Bans| {
            let mut held: Vec<_> = bans.iter(START).map(|(site, exit, _)| format!("{site} {exit}")).collect();
            held.sort();
            held
        };
        assert_eq!(held(&rest), [format!("other.com {}", exit(1)), format!("shop.com {}", exit(2))]);
        assert_eq!(held(&bans).len(), 3, "the snapshot before is as it was");
        assert!(rest.without(&shop, &[exit(2)]).of(&Host::parse("shop.com").unwrap()).is_none());
        assert_eq!(held(&rest.without(&site("none.com"), &[exit(1)])), held(&rest));
    }

    #[test]
    fn the_slots_of_banned_exits_follow_bans_exits_and_time() {
        let world = super::super::fixture::World::new(&["US"; 6]);
        let id = super::super::fixture::id;
        let shop = site("shop.com");
        let bans =
            Bans::default().with((0..3).map(|n| (shop.clone(), id(n), START.after(MINUTE * (u32::from(n) + 1)))));
        let slots = |bans: &Bans, catalog: &Catalog, now| -> Vec<u32> {
            bans.0[&shop].slots(catalog, now).iter().map(|slot| slot.0).collect()
        };
        assert_eq!(slots(&bans, &world.catalog, START), [0, 1, 2]);
        assert_eq!(slots(&bans, &world.catalog, START.after(MINUTE)), [1, 2], "one has ended");
        assert_eq!(slots(&bans, &world.catalog, START), [1, 2], "a clock that lags sees the later state");
        let mut edit = world.catalog.edit();
        edit.remove(&id(2));
        assert_eq!(slots(&bans, &edit.finish(), START.after(MINUTE)), [1], "one has gone");
        let more = bans.with([(shop.clone(), id(5), START.after(MINUTE))]);
        assert_eq!(slots(&more, &world.catalog, START), [0, 1, 2, 5]);
    }

    #[test]
    fn bans_of_invented_sites_are_bounded() {
        let ban = |n: usize| (site(&format!("s{n}.com")), exit(1), START.after(MINUTE * (n as u32 + 1)));
        let bans = Bans::default().with((0..SITES + 10).map(ban));
        assert_eq!(bans.0.len(), SITES);
        assert!(bans.until(&site("s9.com"), &exit(1), START).is_none(), "what ends first goes first");
        assert!(bans.until(&site("s10.com"), &exit(1), START).is_some());
        let short = (site("short.com"), exit(1), START.after(MINUTE / 2));
        let bans = bans.with([short.clone()]);
        assert_eq!(bans.until(&short.0, &short.1, START), Some(short.2), "the new ban stays, although it ends first");
        assert_eq!(bans.0.len(), SITES);
    }

    #[test]
    fn when_most_good_exits_fail_at_once_the_target_is_at_fault() {
        for (good, failing, want) in
            [(0, 0, false), (2, 2, false), (3, 3, true), (6, 3, false), (6, 4, true), (2000, 1001, true)]
        {
            assert_eq!(is_target_at_fault(good, failing), want, "{failing} of {good}");
        }
    }
}
