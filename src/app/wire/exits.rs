//! Where exits come from and how they prove themselves: sources, the tester, and the bans that scrapers report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{lists, settings};
use crate::api::{Readiness, SourceReadiness};
use crate::app::StartError;
use crate::check::{self, Tester, TorExitDialer};
use crate::config::Config;
use crate::exit::country::GeoIp;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{ExitId, Listing, Source, Verdict};
use crate::gateway::outbound::Report;
use crate::gateway::outbound::rotate::{Proof, Verify};
use crate::lifecycle::Tasks;
use crate::limit::target::Rules;
use crate::source::fetch::{Client, Direct};
use crate::source::handle::Sources;
use crate::source::poll::Feed;
use crate::source::relays::Relays;
use crate::state::{Change, ExitUpdate, State};
use crate::store::{self, Store};
use crate::tor::Tor;

/// What the workers of this page need of the rest.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) tasks: &'a Tasks,
    pub(super) state: &'a State,
    pub(super) store: &'a Store,
    pub(super) tor: Option<&'a Tor>,
    pub(super) geoip: &'a Arc<GeoIp>,
    pub(super) rules: Rules,
    /// How sources fared in the last run.
    pub(super) known: Vec<store::Source>,
    /// Exits that live requests wait for.
    pub(super) wished: mpsc::Receiver<ExitId>,
    /// Sites that refuse exits, by the word of scrapers and of plain answers.
    pub(super) reported: mpsc::Receiver<Report>,
}

/// How to ask the workers of this page.
#[derive(Default)]
pub(super) struct Started {
    pub(super) sources: Sources,
    /// Those of them that are lists of public proxies.
    pub(super) lists: Vec<String>,
    pub(super) tester: Option<check::Handle>,
    pub(super) judge: Option<check::public::Handle>,
}

/// Starts everything that brings, tests or bans exits.
pub(super) async fn start(mut parts: Parts<'_>) -> Result<Started, StartError> {
    let Parts { config, tasks, state, .. } = parts;
    if config.gateway.allow_direct {
        list_direct(state).await?;
    }
    let nobody = || mpsc::channel(1).1;
    let reported = std::mem::replace(&mut parts.reported, nobody());
    start_bans(tasks, state.clone(), config.check.ban_for, reported);
    let mut started = Started::default();
    if config.sources.any_public() {
        lists::start(&mut parts, &mut started)?;
    }
    start_relays(parts, started)
}

/// Tor's exits: where they come from, and who tests them.
fn start_relays(parts: Parts<'_>, mut started: Started) -> Result<Started, StartError> {
    let Parts { config, tasks, state, store, tor, geoip, rules, known, wished, .. } = parts;
    let Some(tor) = tor else { return Ok(started) };
    let tester = start_tester(config, tasks, state, tor, geoip, wished)?;
    let relays = Relays {
        onionoo: Feed::onionoo(&config.sources.onionoo),
        exit_addresses: Feed::exit_addresses(&config.sources.exit_addresses),
        client: Client::new(Direct::new(rules), settings::trust()?),
        directory: tor.directory(),
        geoip: geoip.clone(),
        known,
        state: state.clone(),
        store: Some(store.clone()),
    };
    started.sources.extend(relays.start(tasks));
    started.tester = Some(tester);
    Ok(started)
}

/// The tester, which alone makes exits usable.
fn start_tester(
    config: &Config,
    tasks: &Tasks,
    state: &State,
    tor: &Tor,
    geoip: &Arc<GeoIp>,
    wished: mpsc::Receiver<ExitId>,
) -> Result<check::Handle, StartError> {
    let settings = check::Settings::of(&config.check).map_err(|error| StartError::Other(format!("check: {error}")))?;
    let geoip = geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let (tester, handle) = Tester::new(TorExitDialer(tor.clone()), settings, state.clone(), geo, wished);
    let worker = tasks.clone();
    tasks.supervise("tester", move || tester.clone().run(worker.clone()));
    Ok(handle)
}

/// How the front and the API have an exit tested that is wanted now.
pub(super) fn verify(tester: Option<check::Handle>, judge: Option<check::public::Handle>) -> Verify {
    Arc::new(move |exit| {
        let (tester, judge) = (tester.clone(), judge.clone());
        Box::pin(async move {
            let checked = match (exit.source(), tester, judge) {
                (Source::Public, _, Some(judge)) => judge.force(exit).await,
                (Source::Tor, Some(tester), _) => tester.force(exit).await,
                _ => None,
            };
            match checked {
                None => Proof::Not("it cannot be tested".to_owned()),
                Some(checked) if checked.verdict == Verdict::Good => Proof::Good(checked.ips),
                Some(checked) => Proof::Not(checked.why),
            }
        })
    })
}

/// This machine as an exit. Nobody tests it: whether it works is for its operator to see.
async fn list_direct(state: &State) -> Result<(), StartError> {
    let listing = Listing {
        nickname: "direct".into(),
        policy_v6: PortPolicy::accept_all(),
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        ..Listing::new(ExitId::Direct)
    };
    let good = ExitUpdate {
        exit: ExitId::Direct,
        update: Box::new(|known| known.verdict = Verdict::Good),
        ban: None,
        writes: Vec::new(),
    };
    for change in [Change::Listed(Source::Direct, vec![listing]), Change::ExitUpdates(vec![good])] {
        state.apply(change).await.map_err(|refused| StartError::Other(refused.to_string()))?;
    }
    Ok(())
}

/// The worker that makes reports bans.
fn start_bans(tasks: &Tasks, state: State, ban_for: Duration, mut reported: mpsc::Receiver<Report>) {
    let stopping = tasks.clone();
    tasks.spawn("bans", async move {
        loop {
            let report = tokio::select! {
                () = stopping.stopping() => return,
                report = reported.recv() => report,
            };
            let Some(Report { site, exit, why }) = report else { return };
            tracing::info!(%exit, %why, "a site refuses an exit");
            let until = state.now().after(ban_for);
            if let Err(error) = state.apply(Change::Banned { site, exit, until, why }).await {
                tracing::error!(%error, "a ban could not be made");
            }
        }
    });
}

/// Whether traffic can leave, and by which source.
pub(super) fn readiness(state: &State, tor: Option<&Tor>, direct: bool, public: bool) -> Readiness {
    let snapshot = state.load();
    let mut counts: BTreeMap<Source, (usize, usize)> = BTreeMap::new();
    for exit in snapshot.catalog.iter() {
        let (known, usable) = counts.entry(exit.id().source()).or_default();
        *known += 1;
        *usable += usize::from(exit.usable() && exit.known().verdict == Verdict::Good);
    }
    let mut sources = BTreeMap::new();
    if let Some(tor) = tor {
        let (known, usable) = counts.get(&Source::Tor).copied().unwrap_or_default();
        sources.insert(Source::Tor.as_str(), of_tor(tor, known, usable));
    }
    if public {
        let (known, usable) = counts.get(&Source::Public).copied().unwrap_or_default();
        let reason = match (known, usable) {
            (0, _) => "no list has been read yet".to_owned(),
            (known, 0) => format!("none of {known} proxies has passed a check yet"),
            (known, usable) => format!("{usable} of {known} proxies"),
        };
        sources.insert(Source::Public.as_str(), SourceReadiness { ready: usable > 0, usable, reason });
    }
    if direct {
        let reason = "this machine's own address".to_owned();
        sources.insert(Source::Direct.as_str(), SourceReadiness { ready: true, usable: 1, reason });
    }
    Readiness { ready: sources.values().any(|source| source.ready), sources }
}

fn of_tor(tor: &Tor, known: usize, usable: usize) -> SourceReadiness {
    let engines = tor.status();
    let up = engines.iter().filter(|engine| engine.state.usable()).count();
    let reason = match (up, known, usable) {
        (0, ..) => engines
            .first()
            .map_or("no engine is set up".to_owned(), |engine| format!("no engine is up: {}", engine.state.told())),
        (_, 0, _) => "no exit is known yet".to_owned(),
        (_, known, 0) => format!("none of {known} exits has passed a check yet"),
        (up, known, usable) => format!("{usable} of {known} exits, {up} of {} engines", engines.len()),
    };
    SourceReadiness { ready: up > 0 && usable > 0, usable, reason }
}

/// Says in the log when traffic can leave for the first time, when it cannot any more, and when it can again.
#[derive(Debug, Default)]
pub(super) struct Standing {
    ready: bool,
}

impl Standing {
    /// Looks, and speaks of a change.
    pub(super) fn look(&mut self, now: &Readiness) {
        if now.ready == self.ready {
            return;
        }
        self.ready = now.ready;
        let sources = now.sources.iter().map(|(name, source)| format!("{name}: {}", source.reason));
        let sources = sources.collect::<Vec<_>>().join("; ");
        if now.ready {
            tracing::info!(sources, "ready: traffic can leave");
        } else {
            tracing::warn!(sources, "not ready any more: no traffic can leave");
        }
    }
}
