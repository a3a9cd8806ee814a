//! Builds the first snapshot from the data in the store.
//!
//! After a restart, exits keep their verdicts and addresses, so they are usable within the first second. Pins, sessions
//! and bans are kept too. Results of checks that are too old are dropped.

use std::collections::HashMap;
use std::time::Duration;

use crate::check::condemnation::CONDEMNED_FOR;
use crate::config::Config;
use crate::exit::country::GeoIp;
use crate::exit::{Abilities, Catalog, ExitId, Known, Moment, Offer, Source, Verdict};
use crate::net::Host;
use crate::route::ban::{Bans, Site};
use crate::route::memory::Memory;
use crate::state::Snapshot;
use crate::store::{self, Loaded, Public, TargetVerdict};

/// The name of the basic check of exits. The result of this check decides whether the exit counts as good or bad.
const ECHO: &str = "echo";

/// Builds the snapshot and the memory (pins, sessions, bans). The routes of the configuration are added later, as a
/// change of the state.
pub(super) fn recall(config: &Config, loaded: Loaded, geoip: &GeoIp, now: Moment) -> (Snapshot, Memory) {
    if loaded.skipped > 0 {
        tracing::warn!(rows = loaded.skipped, "the store holds rows that this version cannot read; they stay there");
    }
    let mut snapshot = Snapshot::new(super::routes::words(config), super::routes::defaults(config));
    let known = known(config, &loaded, geoip, now);
    let exits = catalog(config, loaded.exits, known);
    snapshot.catalog = with_public(config, exits, loaded.public, geoip, now);
    snapshot.bans = bans(loaded.bans, now);
    let memory = Memory::new(super::routes::bounds(&config.gateway));
    memory.import(loaded.sessions, loaded.pins, now);
    (snapshot, memory)
}

fn known(config: &Config, loaded: &Loaded, geoip: &GeoIp, now: Moment) -> HashMap<ExitId, Known> {
    let mut all: HashMap<ExitId, Known> = HashMap::new();
    // The store returns the newest address of an exit first, but `saw` must be called with the newest address last.
    for seen in loaded.observed.iter().rev() {
        all.entry(seen.exit.clone()).or_default().saw(seen.ip, geoip.country(seen.ip), seen.last);
    }
    for verdict in &loaded.verdicts {
        let known = all.entry(verdict.exit.clone()).or_default();
        let stale_after = match verdict.exit.source() {
            Source::Upstream(_) => config.check.upstream.stale_after,
            _ => config.check.stale_after,
        };
        let stale = now.since(verdict.checked) > stale_after;
        match verdict.verdict {
            TargetVerdict::Condemned if now.since(verdict.checked) >= CONDEMNED_FOR => {}
            TargetVerdict::Condemned => {
                (known.verdict, known.marks.bad_for_good) = (Verdict::Bad, true);
                (known.checked, known.why) = (Some(verdict.checked), Some(verdict.why.as_str().into()));
            }
            _ if stale => {}
            TargetVerdict::Good if verdict.target != ECHO => {
                known.passed.insert(verdict.target.as_str().into());
            }
            TargetVerdict::Bad if verdict.target != ECHO => {}
            standing => {
                known.verdict = if standing == TargetVerdict::Good { Verdict::Good } else { Verdict::Bad };
                (known.checked, known.good) = (Some(verdict.checked), verdict.good);
                known.latency = verdict.latency;
                known.why = (!verdict.why.is_empty()).then(|| verdict.why.as_str().into());
            }
        }
    }
    all
}

fn catalog(config: &Config, exits: Vec<store::Exit>, mut known: HashMap<ExitId, Known>) -> Catalog {
    let mut edit = Catalog::default().edit();
    for exit in exits.into_iter().filter(|exit| is_enabled(config, &exit.listing.id)) {
        let id = exit.listing.id.clone();
        let mut listing = exit.listing;
        if let Source::Upstream(_) = id.source() {
            // The store does not contain the login, so the exit cannot be used before its source has listed it again.
            listing.flags.running = false;
        }
        edit.list(listing);
        if let Some(known) = known.remove(&id) {
            edit.learn(&id, |slot| *slot = known);
        }
    }
    edit.finish()
}

/// Adds the stored public proxies to the catalog. Proxies that worked recently are usable before their next check, and
/// condemned proxies stay condemned.
fn with_public(config: &Config, exits: Catalog, public: Vec<Public>, geoip: &GeoIp, now: Moment) -> Catalog {
    let mut edit = exits.edit();
    for public in public.into_iter().filter(|_| config.sources.any_public()) {
        let age = public.last_tested.map_or(Duration::MAX, |at| now.since(at));
        let keep =
            if public.condemned { age < CONDEMNED_FOR } else { public.working && age <= config.check.stale_after };
        if !keep {
            continue;
        }
        let offer = Offer { list: public.list.as_str().into(), login: public.login.clone(), through: public.through };
        let listing = offer.listing(public.id.clone(), geoip);
        let id = listing.id.clone();
        edit.list(listing);
        edit.learn(&id, |known| *known = of_public(&public, geoip));
    }
    edit.finish()
}

fn of_public(public: &Public, geoip: &GeoIp) -> Known {
    let verdict = if public.working { Verdict::Good } else { Verdict::Bad };
    let (checked, good) = (public.last_tested, public.last_working);
    let mut known = Known { verdict, checked, good, latency: public.response_time, ..Known::default() };
    if let (Some(ip), Some(at)) = (public.exit_ip, good) {
        known.saw(ip, geoip.country(ip), at);
    }
    known.marks.several_ips = public.several;
    known.marks.bad_for_good = public.condemned;
    known.public = Some(Abilities {
        anonymity: public.anonymity,
        tunnels: public.connect,
        tls: public.https,
        took: public.response_time.unwrap_or_default(),
        passed: public.passed,
        asked: public.asked,
    });
    known
}

fn is_enabled(config: &Config, exit: &ExitId) -> bool {
    let allowed = config.gateway.allow_direct;
    match (exit.source(), exit) {
        (Source::Tor, _) => config.tor.enabled,
        (Source::Public, _) => config.sources.any_public(),
        (Source::Upstream(name), _) => config.sources.upstream.iter().any(|source| source.name == name),
        (Source::Direct, ExitId::Own(ip)) => allowed && config.sources.direct.addresses.contains(ip),
        (Source::Direct, _) => false, // added at every start, if the configuration allows it
    }
}

fn bans(bans: Vec<store::Ban>, now: Moment) -> Bans {
    let held = bans.into_iter().filter(|ban| ban.until > now);
    Bans::default().with(held.filter_map(|ban| Some((Site::of(&Host::parse(&ban.site).ok()?), ban.exit, ban.until))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Fingerprint, Listing};

    const NOW: Moment = Moment(1_788_314_400_000_000);

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn kept(id: ExitId) -> store::Exit {
        let listing = Listing::new(id);
        store::Exit { listing, first_seen: NOW, last_seen: NOW }
    }

    fn verdict(n: u8, target: &str, standing: TargetVerdict, why: &str, checked: Moment) -> store::Verdict {
        let (exit, target, why) = (exit(n), target.to_owned(), why.to_owned());
        store::Verdict { exit, target, verdict: standing, streak: 1, checked, good: Some(checked), latency: None, why }
    }

    #[test]
    fn verdicts_survive_and_a_condemned_exit_stays_condemned() {
        let old = Moment(1);
        let days = |n: u64| Moment(NOW.0 - n * 24 * 3600 * 1_000_000);
        let loaded = Loaded {
            exits: (1..=5).map(|n| kept(exit(n))).collect(),
            verdicts: vec![
                verdict(1, ECHO, TargetVerdict::Good, "", NOW),
                verdict(1, "shop", TargetVerdict::Good, "", NOW),
                verdict(2, ECHO, TargetVerdict::Bad, "no answer in time", NOW),
                verdict(3, ECHO, TargetVerdict::Condemned, "it changes pages", days(13)),
                verdict(5, ECHO, TargetVerdict::Condemned, "it changes pages", days(14)),
                verdict(4, ECHO, TargetVerdict::Good, "", old),
            ],
            ..Loaded::default()
        };
        let (snapshot, _) = recall(&Config::default(), loaded, &GeoIp::default(), NOW);
        let known = |n| snapshot.catalog.get(&exit(n)).unwrap().known().clone();
        assert!(known(1).verdict == Verdict::Good && known(1).passed.contains("shop"));
        assert_eq!((known(2).verdict, known(2).why.as_deref()), (Verdict::Bad, Some("no answer in time")));
        assert_eq!(known(4).verdict, Verdict::Untested, "too old to count");
        assert!(known(5).verdict == Verdict::Untested && !known(5).marks.bad_for_good, "it ended");
        let condemned = snapshot.catalog.get(&exit(3)).unwrap();
        assert!(condemned.known().marks.bad_for_good && !condemned.alive());
        assert_eq!(
            (condemned.known().verdict, condemned.known().why.as_deref()),
            (Verdict::Bad, Some("it changes pages"))
        );
        // After the restart, a list contains the condemned proxy again. The proxy must stay condemned.
        let mut edit = snapshot.catalog.edit();
        edit.list(kept(exit(3)).listing);
        assert!(!edit.finish().get(&exit(3)).unwrap().alive());
    }
}
