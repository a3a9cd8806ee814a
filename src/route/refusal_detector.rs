//! What real traffic says of sites: a run of refusals through one exit speaks against the exit, unless the site refuses
//! everybody.
//!
//! A tunnel hides status codes, so this hears of `http://` answers only. One 403 says nothing (the page may be forbidden
//! to everybody); several in a row through one exit, with no other answer between them, are a complaint. A complaint is
//! believed when another exit got an answer from the same site within a minute of it, and when not most exits that were
//! there complain: a page that nobody may see, or a site that is down behind its shield, must not empty every pool.
//!
//! Pure; the data path tells it what it saw, and [`super::Bans`] are what follows.

use std::collections::HashMap;
use std::time::Duration;

use super::ban::{Site, speaks_against_target};
use crate::exit::{ExitId, Moment};
use crate::net::Host;

/// Refusals in a row that make a complaint. Arbitrary: more than one forbidden page and its icon.
const RUN: u8 = 5;

/// How close together answers must lie to bear on each other: as for the tester's own pages.
const TOGETHER: Duration = Duration::from_secs(60);

/// Sites that are listened for, and exits at each. Beyond it listening begins anew: a run is short, and memory that
/// clients can fill is not.
const SITES: usize = 1024;
const EXITS: usize = 256;

/// What one exit got from one site lately.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Refusals in a row.
    run: u8,
    /// When it last got an answer.
    served: Option<Moment>,
    /// When a run made a complaint of it.
    complains: Option<Moment>,
}

/// Every site that refused somebody lately.
#[derive(Clone, Debug, Default)]
pub struct RefusalDetector(HashMap<Site, HashMap<ExitId, Record>>);

impl RefusalDetector {
    /// An exit got an answer from a site, or was refused. Yields exits of which it is clear now that the site refuses
    /// them.
    pub fn heard(&mut self, host: &Host, exit: &ExitId, refused: bool, now: Moment) -> Option<(Site, Vec<ExitId>)> {
        if !refused && self.0.is_empty() {
            return None;
        }
        let site = Site::of(host);
        if refused && self.0.len() >= SITES && !self.0.contains_key(&site) {
            self.0.clear();
        }
        // Nobody listens for a site until it refuses somebody.
        let exits = if refused { self.0.entry(site.clone()).or_default() } else { self.0.get_mut(&site)? };
        if exits.len() >= EXITS && !exits.contains_key(exit) {
            exits.clear();
        }
        exits.entry(exit.clone()).or_default().note(refused, now);
        let clear = clear(exits, now);
        (!clear.is_empty()).then_some((site, clear))
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
            *self = Self { run: 0, served: None, complains: Some(now) };
        }
    }

    fn lately(at: Option<Moment>, now: Moment) -> bool {
        at.is_some_and(|at| now.since(at) < TOGETHER)
    }
}

/// Whose complaints are to be believed now; they are taken off.
fn clear(exits: &mut HashMap<ExitId, Record>, now: Moment) -> Vec<ExitId> {
    let complaining = exits.values().filter(|record| Record::lately(record.complains, now)).count();
    let served = exits.values().filter(|record| Record::lately(record.served, now)).count();
    if complaining == 0 || served == 0 || speaks_against_target(served + complaining, complaining) {
        return Vec::new();
    }
    let due = exits.iter_mut().filter(|(_, record)| Record::lately(record.complains, now));
    due.map(|(exit, record)| {
        record.complains = None;
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
            self.0.heard(&host("www.shop.example"), &exit(n), false, self.1).map(|(_, exits)| exits).unwrap_or_default()
        }

        fn refused(&mut self, n: u8, times: u8) -> Vec<ExitId> {
            let heard = |world: &mut Self| world.0.heard(&host("api.shop.example"), &exit(n), true, world.1);
            (0..times).filter_map(|_| heard(self)).flat_map(|(_, exits)| exits).collect()
        }
    }

    #[test]
    fn an_unbroken_run_is_believed_once_another_exit_is_served() {
        let mut world = World::new();
        for _ in 0..3 {
            assert!(world.refused(1, RUN - 1).is_empty());
            assert!(world.served(1).is_empty(), "the run is broken");
        }
        assert!(world.refused(1, RUN).is_empty(), "nobody says that others are served");
        assert_eq!(world.served(2), [exit(1)]);
        assert!(world.served(2).is_empty(), "once");
        assert_eq!(world.refused(3, RUN), [exit(3)], "another was served just before");
    }

    #[test]
    fn a_site_that_refuses_everybody_is_itself_the_reason() {
        let mut world = World::new();
        assert!((1..=20).all(|n| world.refused(n, 3 * RUN).is_empty()));
        assert!(world.served(30).is_empty(), "one of twenty-one is no evidence against the twenty");
        let mut world = World::new();
        world.served(1);
        (2..=3).for_each(|n| drop(world.refused(n, RUN)));
        world.1 = world.1.after(TOGETHER);
        assert!(world.served(9).is_empty(), "what was a minute ago does not bear on it");
    }

    #[test]
    fn a_site_is_what_one_owner_has_and_others_do_not_bear_on_it() {
        let mut world = World::new();
        assert!(world.refused(1, RUN).is_empty());
        assert!(world.0.heard(&host("other.example"), &exit(2), false, START).is_none());
        let (site, exits) = world.0.heard(&host("shop.example"), &exit(2), false, START).unwrap();
        assert_eq!((site.as_str(), exits), ("shop.example", vec![exit(1)]));
    }

    #[test]
    fn what_is_listened_for_is_bounded() {
        let mut detector = RefusalDetector::default();
        assert!(detector.heard(&host("a.example"), &exit(1), false, START).is_none() && detector.0.is_empty());
        for n in 0..3 * SITES {
            detector.heard(&host(&format!("s{n}.example")), &exit(1), true, START);
        }
        assert!(detector.0.len() <= SITES);
        for n in 0..3 * EXITS {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&n.to_be_bytes());
            detector.heard(&host("a.example"), &ExitId::Tor(Fingerprint(id)), true, START);
        }
        assert!(detector.0.values().all(|exits| exits.len() <= EXITS));
    }
}
