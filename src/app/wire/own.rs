//! Starts the exits that are own addresses of this machine (`sources.direct.bind`), and their tester.

use std::net::IpAddr;
use std::sync::Arc;

use super::lists::split_wishes;
use super::workers::{ExitWorkers, WorkerInputs};
use crate::app::StartError;
use crate::check::{self, OwnAddressDialer, Tester};
use crate::dial;
use crate::exit::country::GeoIp;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{ExitId, Listing, Source};
use crate::state::Change;

/// Lists the own addresses as exits, and starts their tester. An own address is usable only after it has passed a check.
pub(super) async fn start(inputs: &mut WorkerInputs<'_>, started: &mut ExitWorkers) -> Result<(), StartError> {
    let addresses = &inputs.config.sources.direct.addresses;
    addresses.iter().for_each(|ip| warn_of(*ip));
    let listings = addresses.iter().map(|ip| listing(*ip, inputs.geoip)).collect();
    let listed = inputs.state.apply(Change::Listed(Source::Direct, listings)).await;
    listed.map_err(|refused| StartError::Other(refused.to_string()))?;
    let settings =
        check::Settings::of_own(&inputs.config.check).map_err(|error| StartError::Other(format!("check: {error}")))?;
    let wished = split_wishes(inputs, |source| source == Source::Direct);
    let geoip = inputs.geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let dialer = OwnAddressDialer(inputs.rules.clone());
    let (tester, handle) = Tester::new(dialer, settings, inputs.state.clone(), geo, wished);
    let worker = inputs.tasks.clone();
    inputs.tasks.supervise("own address tester", move || tester.clone().run(worker.clone()));
    started.own_tester = Some(handle);
    Ok(())
}

/// Logs a warning if no connection can leave from this address.
fn warn_of(ip: IpAddr) {
    if let Err(error) = dial::direct::can_leave_from(ip) {
        tracing::warn!(
            %ip,
            %error,
            "sources.direct.bind has an address from which no connection can leave: add it to a network interface, or \
             route its network to this machine (docs/own-addresses.md)"
        );
    }
}

/// An own address allows every port. Names count as IPv4 targets in exit policies, so an IPv6 address allows them too:
/// it reaches the IPv6 address of the name, if there is one.
fn listing(ip: IpAddr, geoip: &GeoIp) -> Listing {
    let policy_v6 = if ip.is_ipv6() { PortPolicy::accept_all() } else { PortPolicy::reject_all() };
    Listing {
        nickname: "direct".into(),
        announced: vec![ip],
        country: geoip.country(ip),
        policy_v6,
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        ..Listing::new(ExitId::Own(ip))
    }
}
