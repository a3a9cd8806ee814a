//! Starts the workers that find, test and ban exits, and reports whether traffic can leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::workers::{ExitWorkers, WorkerInputs};
use super::{lists, own, settings, upstream};
use crate::api::{Readiness, SourceReadiness};
use crate::app::StartError;
use crate::check::{self, Tester, TorExitDialer};
use crate::exit::country::GeoIp;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{ExitId, Listing, Source, UpstreamName, Verdict};
use crate::gateway::outbound::Report;
use crate::gateway::outbound::rotate::{Proof, Verify};
use crate::lifecycle::Tasks;
use crate::source::fetch::Client;
use crate::source::outward::Outward;
use crate::source::poll::Feed;
use crate::source::relay_sources::Relays;
use crate::state::{Change, ExitUpdate, State};
use crate::tor::Tor;

/// Starts the sources, the testers, and the worker that creates bans.
pub(super) async fn start(mut inputs: WorkerInputs<'_>) -> Result<ExitWorkers, StartError> {
    let WorkerInputs { config, tasks, state, .. } = inputs;
    let closed = mpsc::channel(1).1;
    let reported = std::mem::replace(&mut inputs.reported, closed);
    start_bans(tasks, state.clone(), config.check.ban_for, reported);
    let mut started = ExitWorkers::default();
    if config.gateway.allow_direct && !config.sources.direct.addresses.is_empty() {
        own::start(&mut inputs, &mut started).await?;
    } else if config.gateway.allow_direct {
        list_direct(state).await?;
    }
    if config.sources.any_public() {
        lists::start(&mut inputs, &mut started)?;
    }
    if !config.sources.upstream.is_empty() {
        upstream::start(&mut inputs, &mut started).await?;
    }
    start_relays(inputs, started)
}

/// Starts the sources and the tester of Tor exits.
fn start_relays(inputs: WorkerInputs<'_>, mut started: ExitWorkers) -> Result<ExitWorkers, StartError> {
    let WorkerInputs { config, tasks, state, store, tor, geoip, rules, known, wished, echo_budget, .. } = inputs;
    let Some(tor) = tor else { return Ok(started) };
    let settings = check::Settings::of(&config.check).map_err(|error| StartError::Other(format!("check: {error}")))?;
    let tester = start_tester(check::Settings { echo_budget, ..settings }, tasks, state, tor, geoip, wished);
    let relays = Relays {
        onionoo: Feed::onionoo(&config.sources.onionoo),
        exit_addresses: Feed::exit_addresses(&config.sources.exit_addresses),
        client: Client::new(Outward { rules, tor: Some(tor.clone()), state: state.clone() }, settings::trust()?),
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

/// Starts the tester of Tor exits. A Tor exit is usable only after it has passed a check.
fn start_tester(
    settings: check::Settings,
    tasks: &Tasks,
    state: &State,
    tor: &Tor,
    geoip: &Arc<GeoIp>,
    wished: mpsc::Receiver<ExitId>,
) -> check::Handle {
    let geoip = geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let (tester, handle) = Tester::new(TorExitDialer(tor.clone()), settings, state.clone(), geo, wished);
    let worker = tasks.clone();
    tasks.supervise("tester", move || tester.clone().run(worker.clone()));
    handle
}

/// Returns a function that checks an exit immediately. Rotations call it before they switch to the exit.
pub(super) fn verify(workers: &ExitWorkers) -> Verify {
    let (tester, public_tester) = (workers.tester.clone(), workers.public_tester.clone());
    let (own_tester, upstream_tester) = (workers.own_tester.clone(), workers.upstream_tester.clone());
    Arc::new(move |exit| {
        let (public_tester, dialed) = match exit.source() {
            Source::Tor => (None, tester.clone()),
            Source::Upstream(_) => (None, upstream_tester.clone()),
            Source::Public => (public_tester.clone(), None),
            Source::Direct => (None, own_tester.clone()),
        };
        Box::pin(async move {
            let checked = match (public_tester, dialed) {
                (Some(tester), _) => tester.force(exit).await,
                (None, Some(tester)) => tester.force(exit).await,
                (None, None) => None,
            };
            match checked {
                None => Proof::Not("it cannot be tested".to_owned()),
                Some(checked) if checked.verdict == Verdict::Good => Proof::Good(checked.ips),
                Some(checked) => Proof::Not(checked.why),
            }
        })
    })
}

/// Adds this machine's own address as an exit. This exit is never tested.
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

/// Starts the worker that creates a ban from each report that a site refuses an exit.
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
                tracing::error!(%error, "a ban could not be stored");
            }
        }
    });
}

/// Returns whether the gateway has a tested exit that is usable now, and which sources have one. `direct` and `public`
/// are true if these sources are enabled. `upstream` are the names of the upstream sources.
pub(super) fn readiness(
    state: &State,
    tor: Option<&Tor>,
    (direct, public): (bool, bool),
    upstream: &[UpstreamName],
) -> Readiness {
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
    for name in upstream.iter().copied() {
        let source = Source::Upstream(name);
        let (known, usable) = counts.get(&source).copied().unwrap_or_default();
        let reason = match (known, usable) {
            (0, _) if name.makes_exits() => "its provider gives a session when a request needs one".to_owned(),
            (0, _) => "no exit is known; GET /sources says why".to_owned(),
            (known, 0) => format!("none of {known} exits has passed a check yet"),
            (known, usable) => format!("{usable} of {known} exits"),
        };
        let ready = usable > 0 || name.makes_exits();
        sources.insert(source.as_str(), SourceReadiness { ready, usable, reason });
    }
    if direct {
        let (known, usable) = counts.get(&Source::Direct).copied().unwrap_or_default();
        let reason = match (snapshot.catalog.get(&ExitId::Direct), known, usable) {
            (Some(_), ..) => "this machine's own address".to_owned(),
            (None, known, 0) => format!("none of {known} own addresses has passed a check yet"),
            (None, known, usable) => format!("{usable} of {known} own addresses"),
        };
        sources.insert(Source::Direct.as_str(), SourceReadiness { ready: usable > 0, usable, reason });
    }
    Readiness { ready: sources.values().any(|source| source.ready), draining: false, sources }
}

fn of_tor(tor: &Tor, known: usize, usable: usize) -> SourceReadiness {
    let engines = tor.status();
    let up = engines.iter().filter(|engine| engine.state.usable()).count();
    let reached = tor.first_hop_proven();
    let reason = match (up, known, usable) {
        (0, ..) => engines.first().map_or("no engine is configured".to_owned(), |engine| {
            format!("no engine is up: {}", engine.state.describe())
        }),
        _ if !reached => "no guard of the Tor network answers: check this machine's network and firewall".to_owned(),
        (_, 0, _) => "no exit is known yet".to_owned(),
        (_, known, 0) => format!("none of {known} exits has passed a check yet"),
        (up, known, usable) => format!("{usable} of {known} exits, {up} of {} engines", engines.len()),
    };
    SourceReadiness { ready: up > 0 && reached && usable > 0, usable, reason }
}

/// Logs a line when the gateway becomes ready (a tested exit is usable), and when it is no longer ready.
#[derive(Debug, Default)]
pub(super) struct ReadinessLog {
    ready: bool,
}

impl ReadinessLog {
    /// Logs a line if the readiness differs from the last call.
    pub(super) fn update(&mut self, now: &Readiness) {
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
