//! Starts the upstream sources (proxies that the operator owns or pays for), and the tester of their exits.

use std::sync::Arc;

use super::lists::split_wishes;
use super::settings;
use super::workers::{ExitWorkers, WorkerInputs};
use crate::app::StartError;
use crate::check::{Settings, Tester, UpstreamDialer};
use crate::dial::public::Times;
use crate::exit::Source;
use crate::source::fetch::Client;
use crate::source::outward::Outward;
use crate::source::upstream::Lists;

/// Starts the sources and the tester, and adds their handles to `started`.
pub(super) async fn start(inputs: &mut WorkerInputs<'_>, started: &mut ExitWorkers) -> Result<(), StartError> {
    let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
    if inputs.only_tor {
        tracing::warn!(
            "bridges or tor.only: exitgate connects to nothing but Tor, so the proxies of [[sources.upstream]] are not used"
        );
    }
    let (rules, tor, state) = (inputs.rules.clone(), inputs.tor.cloned(), inputs.state.clone());
    let lists = Lists {
        client: Client::new(Outward { rules: rules.clone(), tor, state: state.clone() }, settings::trust()?),
        geoip: inputs.geoip.clone(),
        state: state.clone(),
        store: Some(inputs.store.clone()),
        known: inputs.known.clone(),
    };
    for source in &inputs.config.sources.upstream {
        let handle = lists.start(source, inputs.tasks).await.map_err(|error| other(&error))?;
        started.sources.extend([handle]);
    }
    let wishes = split_wishes(inputs, |source| matches!(source, Source::Upstream(_)));
    let check = &inputs.config.check;
    let settings = Settings::of_upstream(check).map_err(|error| other(&format!("check: {error}")))?;
    let times = Times { connect: check.public.connect_timeout, reply: check.timeout };
    let dialer = UpstreamDialer { state: state.clone(), rules, times };
    let geoip = inputs.geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let (tester, handle) = Tester::new(dialer, settings, state, geo, wishes);
    let worker = inputs.tasks.clone();
    inputs.tasks.supervise("upstream tester", move || tester.clone().run(worker.clone()));
    started.upstream_tester = Some(handle);
    Ok(())
}
