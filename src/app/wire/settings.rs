//! Converts the configuration into the settings of other rooms.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::api::Access;
use crate::app::StartError;
use crate::config::{self, Config};
use crate::exit::country::GeoIp;
use crate::exit::identity::Identities;
use crate::gateway::outbound::{Terms, Times};
use crate::gateway::relay::Idle;
use crate::limit::target::{OnlyTor, Own, Ports, Rules};
use crate::limit::{Amounts, Budget, Budgets, Damping, Key, Limits};
use crate::net::Secret;
use crate::tor::control::Auth;
use crate::tor::torrc::UserLines;
use crate::{dial, store, telemetry, tor};

/// A stream is cut if its client or target accepts no bytes for this time. Not tuned: a phone in a train that passes a
/// tunnel is offline for less than 300 s.
const STALLED: Duration = Duration::from_secs(300);

/// The folders that may contain the files of the package tor-geoipdb, in order: Debian and Alpine, Fedora, Homebrew on
/// ARM Macs, Homebrew on Intel Macs.
const GEOIP_PLACES: [&str; 4] =
    ["/usr/share/tor", "/usr/share/tor-geoipdb", "/opt/homebrew/share/tor", "/usr/local/share/tor"];

pub(super) fn log(log: &config::Log) -> telemetry::LogSettings {
    telemetry::LogSettings {
        level: log.level.clone(),
        format: match log.format {
            config::LogFormat::Auto => telemetry::LineFormat::Auto,
            config::LogFormat::Human => telemetry::LineFormat::Human,
            config::LogFormat::Json => telemetry::LineFormat::Json,
        },
        file: log.file.clone(),
        rotate: match log.rotate {
            config::Rotate::Never => telemetry::LogRotation::Never,
            config::Rotate::Hourly => telemetry::LogRotation::Hourly,
            config::Rotate::Daily => telemetry::LogRotation::Daily,
            config::Rotate::Weekly => telemetry::LogRotation::Weekly,
        },
        keep: log.keep,
    }
}

pub(super) fn store(store: &config::Store) -> store::Options {
    store::Options { keep_checks: store.keep_checks, ..store::Options::default() }
}

/// Returns true if exitgate itself must connect to nothing but Tor: by `tor.only`, or because the lines for torrc turn on
/// bridges. Lines that cannot be read are an error that the start reports elsewhere.
pub(in crate::app) async fn wants_only_tor(config: &Config) -> bool {
    let lines = UserLines::load(config.tor.torrc.as_deref(), &config.tor.extra).await;
    config.tor.only || config.tor.enabled && lines.is_ok_and(|lines| lines.use_bridges())
}

/// Logs that this machine connects to nothing but Tor, and which settings contradict this.
pub(super) fn announce_only_tor(config: &Config, only_tor: &OnlyTor) {
    if !only_tor.is_on() {
        return;
    }
    tracing::info!(
        "bridges or tor.only: exitgate itself connects to nothing but Tor. Lists are fetched and public proxies are reached \
         through Tor exits that passed their check"
    );
    if config.gateway.allow_direct {
        tracing::warn!(
            "gateway.allow_direct is true: requests with the source `direct` leave from this machine's address"
        );
    }
    if !config.tor.enabled {
        tracing::warn!("tor.only is true and tor.enabled is false: no list can be fetched");
    }
}

/// Returns the settings of the outbound side. A reload may change them.
pub(in crate::app) fn outbound_terms(config: &Config, own: &Own, only_tor: &OnlyTor) -> Terms {
    let gateway = &config.gateway;
    let open = gateway.idle_timeout;
    let answer = gateway.answer_timeout.unwrap_or(open).min(open);
    let idle = Idle { open, answer, half: gateway.half_closed_timeout, stalled: STALLED };
    Terms {
        rules: Rules::new(ports(gateway), gateway.allow_private_targets, own.clone()).with_only_tor(only_tor.clone()),
        allow_direct: gateway.allow_direct,
        times: Times { dial: gateway.dial_timeout, attempt: gateway.attempt_timeout, idle },
        public: public_times(&config.check.public),
        max_attempts: gateway.max_attempts,
        hedge: gateway.hedge,
        ban_for: config.check.ban_for,
    }
}

fn public_times(public: &config::CheckPublic) -> dial::public::Times {
    dial::public::Times { connect: public.connect_timeout, reply: public.reply_timeout }
}

/// Returns the tokens and host names that the API accepts.
pub(in crate::app) fn access(config: &Config) -> Access {
    let config::Api { token, read_token, hosts, .. } = &config.api;
    Access { token: token.clone(), read_token: read_token.clone(), hosts: hosts.clone() }
}

/// Returns the largest number of connections: the configured number, but not more than `most`, which the limit on open
/// files allows.
pub(super) fn connections(gateway: &config::Gateway, most: u32) -> usize {
    let wanted = gateway.max_connections.map_or(most, std::num::NonZeroU32::get);
    if wanted > most {
        tracing::warn!(
            wanted,
            room = most,
            "gateway.max_connections is more than open files allow; raise the limit (ulimit -n)"
        );
    }
    wanted.min(most) as usize
}

/// Returns the TLS settings for downloads from sources of exits. The servers of sources need a certificate of a public
/// authority.
pub(super) fn trust() -> Result<Arc<rustls::ClientConfig>, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| StartError::Other(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

/// Returns the configuration entry for a key that exitgate generated. The key has no limits.
pub(super) fn made_key(secret: Secret) -> config::ClientKey {
    config::ClientKey {
        name: "default".to_owned(),
        secret,
        limits: config::Limits::default(),
        budget: config::Budget::default(),
        source_budgets: std::collections::BTreeMap::new(),
    }
}

/// Returns the client keys, the limits of each client, and the rule that makes an address wait after wrong keys.
pub(in crate::app) fn terms(config: &Config) -> (Vec<Key>, Amounts, Damping) {
    let gateway = &config.gateway;
    let keys = gateway.keys.iter().map(|key| Key {
        name: key.name.as_str().into(),
        secret: key.secret.clone(),
        amounts: amounts(&key.limits),
        budgets: budgets(key),
    });
    let damping = Damping { failures: gateway.auth_failures, pause: gateway.auth_pause };
    (keys.collect(), amounts(&gateway.client_limits), damping)
}

pub(super) fn limits(config: &Config) -> Limits {
    let (keys, each_client, damping) = terms(config);
    Limits::new(keys, each_client, damping)
}

fn budgets(key: &config::ClientKey) -> Budgets {
    let of = |budget: &config::Budget| {
        let config::Budget { requests_per_day, requests_per_month, bytes_per_day, bytes_per_month } = *budget;
        Budget { requests_per_day, requests_per_month, bytes_per_day, bytes_per_month }
    };
    let sources = key.source_budgets.iter().map(|(source, budget)| (source.as_str().into(), of(budget)));
    Budgets { all: of(&key.budget), sources: sources.collect() }
}

fn amounts(limits: &config::Limits) -> Amounts {
    let config::Limits { connections, per_second, bytes_per_second } = *limits;
    Amounts { connections, per_second, bytes_per_second }
}

fn ports(gateway: &config::Gateway) -> Ports {
    let of = |ranges: &[config::PortRange]| ranges.iter().map(|range| range.first()..=range.last()).collect();
    Ports { allow: of(gateway.target_ports.allowed()), deny: of(gateway.target_ports.denied()) }
}

/// Loads the database that maps addresses to countries: from the configured files, otherwise from those of tor-geoipdb.
/// `fallback` knows the countries of the addresses that are in neither. `has_fallback` is true if it has a database.
pub(super) fn geoip(tor: &config::Tor, fallback: Identities, has_fallback: bool) -> Arc<GeoIp> {
    let find = |configured: &Option<PathBuf>, name: &str| {
        let installed = || GEOIP_PLACES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
        configured.clone().or_else(installed)
    };
    let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let (v4, v6) = (find(&tor.geoip_file, "geoip"), find(&tor.geoip6_file, "geoip6"));
    if v4.is_none() && has_fallback {
        tracing::info!("no geoip file was found: the countries of exits come from geo.mmdb");
    } else if v4.is_none() {
        tracing::warn!(
            "no geoip file was found: the country of a relay is known only if Onionoo lists the address that sites see, \
             and the countries of public proxies are unknown; install tor-geoipdb, or set tor.geoip_file or geo.mmdb"
        );
    }
    Arc::new(GeoIp::parse(&read(v4), &read(v6)).with_fallback(Arc::new(fallback)))
}

pub(in crate::app) fn tor(config: &Config) -> tor::Settings {
    let of = &config.tor;
    tor::Settings {
        binary: of.binary.clone(),
        engines: of.engines.map_or(0, |count| count.get() as usize),
        data_dir: config.data_dir.join("tor"),
        torrc: of.torrc.clone(),
        extra: of.extra.clone(),
        geoip_file: of.geoip_file.clone(),
        attach: of.attach.iter().map(attach).collect(),
        only_tor: of.only,
        circuits_per_second: of.circuits_per_second,
        streams_per_circuit: u16::try_from(of.streams_per_circuit.get()).unwrap_or(u16::MAX),
        circuit_dirty: of.max_circuit_age,
        circuit_timeout: of.circuit_timeout,
        spare_circuits: of.spare_circuits,
        max_spare_circuits: of.max_spare_circuits,
        ..tor::Settings::default()
    }
}

fn attach(written: &config::Attach) -> tor::Attach {
    let auth = match (&written.password, &written.cookie_file) {
        (Some(password), _) => Auth::Password(password.clone()),
        (None, Some(path)) => Auth::CookieFile(path.clone()),
        (None, None) => Auth::Offered,
    };
    let (control, socks, onion) = (written.control.clone(), written.socks.clone(), written.onion_socks.clone());
    tor::Attach { control, socks, onion, every_address: written.every_address, auth }
}
