//! `[tor]`: engines, and how hard they are driven.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Endpoint;
use super::finding::{Findings, KeyPath};
use super::keyword::{List, Word};
use super::schema;
use super::secret::{Written, check_file};
use crate::net::{Host, Secret};

/// How Tor is driven.
#[derive(Clone, Debug, PartialEq)]
pub struct Tor {
    /// Whether the `tor` source exists.
    pub enabled: bool,
    /// The program: a path, or a name that is looked up on `PATH`.
    pub binary: PathBuf,
    /// Engines that we start; `None` is up to us: one per two cores, at least two, and none beside `attach`.
    pub engines: Option<NonZeroU32>,
    /// New circuits a second through one guard; above 0.
    pub circuits_per_second: f64,
    /// How long a circuit may take to build.
    pub circuit_timeout: Duration,
    /// How old a circuit may be when a new stream is put on it.
    pub max_circuit_age: Duration,
    /// Streams at once on one circuit.
    pub streams_per_circuit: NonZeroU32,
    /// Warm circuits kept per exit in use.
    pub spare_circuits: u8,
    /// A file of the user's own torrc lines.
    pub torrc: Option<PathBuf>,
    /// The user's own torrc lines; none holds a line break.
    pub extra: Vec<String>,
    /// Countries of IPv4 addresses, in tor's own format.
    pub geoip_file: Option<PathBuf>,
    /// Countries of IPv6 addresses.
    pub geoip6_file: Option<PathBuf>,
    /// Engines that run elsewhere.
    pub attach: Vec<Attach>,
}

/// An engine that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Its control port.
    pub control: Endpoint,
    /// Its SOCKS port for streams that we attach.
    pub socks: Endpoint,
    /// Its SOCKS port for onion services.
    pub onion_socks: Option<Endpoint>,
    /// Every address behind the name is a tor of its own, and a name that nobody has is no tor.
    pub every_address: bool,
    /// The control port's password; without one, its cookie or nothing.
    pub password: Option<Secret>,
    /// Where its cookie is, when tor sees it under another path than we do.
    pub cookie_file: Option<PathBuf>,
}

/// The pace of circuits from which public relays defend themselves, per client address.
const DEFENDED_PACE: f64 = 3.0;

impl Tor {
    pub(super) fn settle(file: &schema::Tor, findings: &mut Findings) -> Self {
        check_pace(file.circuits_per_second, findings);
        let table = KeyPath::from("tor");
        let files = [("torrc", &file.torrc), ("geoip_file", &file.geoip_file), ("geoip6_file", &file.geoip6_file)];
        for (key, path) in files {
            if let Some(path) = path {
                check_file(findings, &table.key(key), path);
            }
        }
        if file.binary.as_os_str().is_empty() {
            findings.fault("tor.binary", "is empty", "write \"tor\", or the full path of the program");
        }
        Self {
            enabled: file.enabled,
            binary: file.binary.clone(),
            engines: NonZeroU32::new(file.engines.0),
            circuits_per_second: file.circuits_per_second,
            circuit_timeout: file.circuit_timeout.0,
            max_circuit_age: file.max_circuit_age.0,
            streams_per_circuit: file.streams_per_circuit.positive(),
            spare_circuits: u8::try_from(file.spare_circuits.0).unwrap_or(u8::MAX),
            torrc: file.torrc.clone(),
            extra: extra(&file.extra, findings),
            geoip_file: file.geoip_file.clone(),
            geoip6_file: file.geoip6_file.clone(),
            attach: attach(&file.attach, findings),
        }
    }
}

fn check_pace(pace: f64, findings: &mut Findings) {
    let at = "tor.circuits_per_second";
    if !(pace > 0.0 && pace <= 10_000.0) {
        findings.fault(at, format!("is {pace}"), "write a number above 0, such as 0.5 or 1.0");
    } else if pace > DEFENDED_PACE {
        let hint = format!("stay at {DEFENDED_PACE} or below unless the Tor network is a private one");
        findings.warn(at, format!("is {pace}: public relays take that for an attack and block us"), hint);
    }
}

fn extra(lines: &List<String>, findings: &mut Findings) -> Vec<String> {
    let mut extra = Vec::new();
    for (index, line) in lines.iter() {
        if line.contains(['\n', '\r', '\0']) {
            let at = KeyPath::from("tor.extra").index(index);
            findings.fault(at, "holds a line break", "write one torrc line per item, or name a file by tor.torrc");
        }
        extra.push(line.trim().to_owned());
    }
    extra
}

fn attach(written: &List<schema::Attach>, findings: &mut Findings) -> Vec<Attach> {
    let mut engines: Vec<Attach> = Vec::new();
    for (index, engine) in written.iter() {
        let at = KeyPath::from("tor.attach").index(index);
        let control = required(&engine.control, &at, "control", findings);
        let socks = required(&engine.socks, &at, "socks", findings);
        let (inline, file) = (engine.password.as_ref(), engine.password_file.as_ref());
        let password = Written { table: &at, key: "password", inline, file }.settle(findings);
        if password.is_some() && engine.cookie_file.is_some() {
            findings.fault(at.key("cookie_file"), "stands beside a password", "keep the one that this tor asks for");
        }
        let (Some(control), Some(socks)) = (control, socks) else { continue };
        if engines.iter().any(|other| other.control == control) {
            let what = format!("is {control}, as is another engine's");
            findings.fault(at.key("control"), what, "one engine needs one entry: remove the other");
        }
        let onion_socks = engine.onion_socks.as_ref().map(|Word(endpoint)| endpoint.clone());
        let every_address = engine.every_address;
        if every_address && !share_a_name([Some(&control), Some(&socks), onion_socks.as_ref()]) {
            let hint = "write the same host name in control, socks and onion_socks, or leave every_address out";
            findings.fault(at.key("every_address"), "needs one name for all ports of a tor", hint);
        }
        let cookie_file = engine.cookie_file.clone();
        engines.push(Attach { control, socks, onion_socks, every_address, password, cookie_file });
    }
    engines
}

/// True if all that are there are ports of one host that is given by its name.
fn share_a_name(endpoints: [Option<&Endpoint>; 3]) -> bool {
    let name = |endpoint: &Endpoint| match endpoint {
        Endpoint::Tcp(target) => Some(&target.host).filter(|host| matches!(host, Host::Name(_))).cloned(),
        Endpoint::Unix(_) => None,
    };
    let names: Vec<_> = endpoints.into_iter().flatten().map(name).collect();
    names.iter().all(|name| name.is_some() && *name == names[0])
}

fn required(written: &Option<Word<Endpoint>>, table: &KeyPath, key: &str, findings: &mut Findings) -> Option<Endpoint> {
    if written.is_none() {
        let hint = format!("write {key} = \"unix:/path/of/the/socket\" or {key} = \"host:port\"");
        findings.fault(table.key(key), "is missing", hint);
    }
    written.as_ref().map(|Word(endpoint)| endpoint.clone())
}
