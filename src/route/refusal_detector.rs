//! Finds out from real traffic which exits a site refuses, unless the site refuses every exit.
//!
//! The gateway sees only the answers to plain `http://` requests, because a tunnel hides HTTP status codes. One answer
//! 403 means nothing, because the page may be forbidden to everybody. Several such answers in a row through one exit
//! make the exit a suspect.
//!
//! The site refuses a suspect exit if two more conditions hold. First, another exit got a good answer from the same
//! site within a minute. Second, at most half of the exits at that site are suspects. Without these conditions, a page
//! that nobody may see, or a site that is down, would remove the exits from every pool.
//!
//! This file does no I/O. The gateway passes in the answers that it saw, and makes [`super::Bans`] for the confirmed
//! exits.

use std::collections::HashMap;
use std::time::Duration;

use super::ban::{Site, is_target_at_fault};
use crate::exit::{ExitId, Moment};
use crate::net::Host;

/// The number of refusals in a row that make an exit a suspect. Not tuned: the value is more than one forbidden page
/// and its icon.
const RUN: u8 = 5;

/// Answers are compared with each other only if they came within this time. The tester has the same limit.
const TOGETHER: Duration = Duration::from_secs(60);

/// The largest number of watched sites, and of watched exits at each site. If there are more, all of them are dropped,
/// and watching begins again. This loses little because a run of refusals is short. A limit is necessary because
/// clients must not fill the memory.
const SITES: usize = 1024;
const EXITS: usize = 256;

/// The latest answers that one site gave through one exit.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// The number of refusals since the last other answer.
    run: u8,
    /// When the site last served a request through the exit.
    served: Option<Moment>,
    /// When a run of refusals made the exit a suspect.
    suspect: Option<Moment>,
}

/// A map from each site that has refused a request to the latest answers that the site gave through each exit.
#[derive(Clone, Debug, Default)]
pub struct RefusalDetector(HashMap<Site, HashMap<ExitId, Record>>);

impl RefusalDetector {
    /// Records an answer of a site through an exit. `refused` is true if the site refused the request. Returns the site
    /// and the exits that are now confirmed: the site refuses these exits.
    pub fn observe(&mut self, host: &Host, exit: &ExitId, refused: bool, now: Moment) -> Option<(Site, Vec<ExitId>)> {
        if !refused && self.0.is_empty() {
            return None;
        }
        let site = Site::of(host);
        if refused && self.0.len() >= SITES && !self.0.contains_key(&site) {
            self.0.clear();
        }
        // A site is watched only after its first refusal.
        let exits = if refused { self.0.entry(site.clone()).or_default() } else { self.0.get_mut(&site)? };
        if exits.len() >= EXITS && !exits.contains_key(exit) {
            exits.clear();
        }
        exits.entry(exit.clone()).or_default().note(refused, now);
        let confirmed = confirmed(exits, now);
        (!confirmed.is_empty()).then_some((site, confirmed))
    }
}

impl Record {
    fn note(&mut self, refused: bool, now: Moment) {
        if !refused {
            *self = Self { served: Some(now), ..Self::default() };
            return;
        }
        self.run += 1;
        if self.run >= RUN {
            *self = Self { run: 0, served: None, suspect: Some(now) };
        }
    }

    fn lately(at: Option<Moment>, now: Moment) -> bool {
        at.is_some_and(|at| now.since(at) < TOGETHER)
    }
}

/// Returns the suspects that are now confirmed. These exits are then no longer suspects.
fn confirmed(exits: &mut HashMap<ExitId, Record>, now: Moment) -> Vec<ExitId> {
    let suspects = exits.values().filter(|record| Record::lately(record.suspect, now)).count();
    let served = exits.values().filter(|record| Record::lately(record.served, now)).count();
    if suspects == 0 || served == 0 || is_target_at_fault(served + suspects, suspects) {
        return Vec::new();
    }
    let due = exits.iter_mut().filter(|(_, record)| Record::lately(record.suspect, now));
    due.map(|(exit, record)| {
        record.suspect = None;
        exit.clone()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    struct World(RefusalDetector, Moment);

    impl World {
        fn new() -> Self {
            Self(RefusalDetector::default(), START)
        }

        fn served(&mut self, n: u8) -> Vec<ExitId> {
            self.0
                .observe(&host("www.shop.example"), &exit(n), false, self.1)
                .map(|(_, exits)| exits)
                .unwrap_or_default()
        }

        fn refused(&mut self, n: u8, times: u8) -> Vec<ExitId> {
            let observe = |world: &mut Self| world.0.observe(&host("api.shop.example"), &exit(n), true, world.1);
            (0..times).filter_map(|_| observe(self)).flat_map(|(_, exits)| exits).collect()
        }
    }

    #[test]
    fn a_run_of_refusals_is_confirmed_once_another_exit_is_served() {
        let mut world = World::new();
        for _ in 0..3 {
            assert!(world.refused(1, RUN - 1).is_empty());
            assert!(world.served(1).is_empty(), "the run is broken");
        }
        assert!(world.refused(1, RUN).is_empty(), "no other exit was served");
        assert_eq!(world.served(2), [exit(1)]);
        assert!(world.served(2).is_empty(), "once");
        assert_eq!(world.refused(3, RUN), [exit(3)], "another was served just before");
    }

    #[test]
    fn a_site_that_refuses_every_exit_bans_none() {
        let mut world = World::new();
        assert!((1..=20).all(|n| world.refused(n, 3 * RUN).is_empty()));
        assert!(world.served(30).is_empty(), "one of twenty-one is no evidence against the twenty");
        let mut world = World::new();
        world.served(1);
        (2..=3).for_each(|n| drop(world.refused(n, RUN)));
        world.1 = world.1.after(TOGETHER);
        assert!(world.served(9).is_empty(), "what was a minute ago does not count");
    }

    #[test]
    fn other_sites_do_not_matter() {
        let mut world = World::new();
        assert!(world.refused(1, RUN).is_empty());
        assert!(world.0.observe(&host("other.example"), &exit(2), false, START).is_none());
        let (site, exits) = world.0.observe(&host("shop.example"), &exit(2), false, START).unwrap();
        assert_eq!((site.as_str(), exits), ("shop.example", vec![exit(1)]));
    }

    #[test]
    fn the_watched_sites_are_bounded() {
        let mut detector = RefusalDetector::default();
        assert!(detector.observe(&host("a.example"), &exit(1), false, START).is_none() && detector.0.is_empty());
        for n in 0..3 * SITES {
            detector.observe(&host(&format!("s{n}.example")), &exit(1), true, START);
        }
        assert!(detector.0.len() <= SITES);
        for n in 0..3 * EXITS {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&n.to_be_bytes());
            detector.observe(&host("a.example"), &ExitId::Tor(Fingerprint(id)), true, START);
        }
        assert!(detector.0.values().all(|exits| exits.len() <= EXITS));
    }
}
