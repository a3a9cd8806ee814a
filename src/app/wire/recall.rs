//! The state that the gateway begins with: what the store remembers, in the words of the rooms that use it.
//!
//! A restart must not cost what was known: exits with the verdicts and addresses that checks found are usable in the
//! first second, pins hold, bans go on. What is too old to count is dropped here and not trusted "for now".

use std::collections::HashMap;

use crate::config::Config;
use crate::exit::country::GeoIp;
use crate::exit::{Catalog, ExitId, Known, Moment, Source, Verdict};
use crate::net::Host;
use crate::route::ban::{Bans, Site};
use crate::route::memory::Memory;
use crate::state::Snapshot;
use crate::store::{self, Loaded, Standing};

/// The check target whose verdict is the exit's own.
const ECHO: &str = "echo";

/// Builds the snapshot and the memory. Routes of the configuration come later, as a change like any other.
pub(super) fn recall(config: &Config, loaded: Loaded, geoip: &GeoIp, now: Moment) -> (Snapshot, Memory) {
    if loaded.skipped > 0 {
        tracing::warn!(rows = loaded.skipped, "the store holds rows that this version cannot read; they stay there");
    }
    let mut snapshot = Snapshot::new(super::routes::words(config), super::routes::defaults(config));
    let known = known(config, &loaded, geoip, now);
    snapshot.catalog = catalog(config, loaded.exits, known);
    snapshot.bans = bans(loaded.bans, now);
    let memory = Memory::new(super::routes::bounds(&config.gateway));
    memory.import(loaded.sessions, loaded.pins, now);
    (snapshot, memory)
}

fn known(config: &Config, loaded: &Loaded, geoip: &GeoIp, now: Moment) -> HashMap<ExitId, Known> {
    let mut all: HashMap<ExitId, Known> = HashMap::new();
    // The newest comes first of each exit, and `saw` wants it last.
    for seen in loaded.observed.iter().rev() {
        all.entry(seen.exit.clone()).or_default().saw(seen.ip, geoip.country(seen.ip), seen.last);
    }
    for verdict in &loaded.verdicts {
        let known = all.entry(verdict.exit.clone()).or_default();
        let stale = now.since(verdict.checked) > config.check.stale_after;
        match verdict.standing {
            Standing::Condemned => {
                (known.verdict, known.marks.bad_for_good) = (Verdict::Bad, true);
                (known.checked, known.why) = (Some(verdict.checked), Some(verdict.why.as_str().into()));
            }
            _ if stale => {}
            Standing::Good if verdict.target != ECHO => {
                known.passed.insert(verdict.target.as_str().into());
            }
            Standing::Bad if verdict.target != ECHO => {}
            standing => {
                known.verdict = if standing == Standing::Good { Verdict::Good } else { Verdict::Bad };
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
    for exit in exits.into_iter().filter(|exit| is_enabled(config, exit.listing.id.source())) {
        let id = exit.listing.id.clone();
        edit.list(exit.listing);
        if let Some(known) = known.remove(&id) {
            edit.learn(&id, |slot| *slot = known);
        }
    }
    edit.finish()
}

fn is_enabled(config: &Config, source: Source) -> bool {
    match source {
        Source::Tor => config.tor.enabled,
        Source::Public => config.sources.any_public(),
        Source::Direct => false, // it is listed anew at every start, if it is allowed
    }
}

fn bans(bans: Vec<store::Ban>, now: Moment) -> Bans {
    let held = bans.into_iter().filter(|ban| ban.until > now);
    Bans::default().with(held.filter_map(|ban| Some((Site::of(&Host::parse(&ban.site).ok()?), ban.exit, ban.until))))
}
