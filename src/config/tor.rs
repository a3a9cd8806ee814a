//! `[tor]`: the tor processes (engines), and limits for the circuits in them.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Endpoint;
use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::secret::{SecretKeys, check_file};
use super::text_value::{List, Text};
use crate::net::{Host, Secret};

/// The settings of `[tor]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tor {
    /// True if Tor exits are used.
    pub enabled: bool,
    /// The tor program: a path, or a name that is searched in `PATH`.
    pub binary: PathBuf,
    /// The number of engines to start. `None`: one for every two CPU cores, but at least two. If `attach` is not empty,
    /// none.
    pub engines: Option<NonZeroU32>,
    /// The largest number of new circuits per second through one guard. Above 0.
    pub circuits_per_second: f64,
    /// The time limit for the build of one circuit.
    pub circuit_timeout: Duration,
    /// The age after which a circuit gets no new streams.
    pub max_circuit_age: Duration,
    /// The largest number of open streams on one circuit.
    pub streams_per_circuit: NonZeroU32,
    /// The number of spare circuits that are kept ready to each exit in use.
    pub spare_circuits: u8,
    /// The largest number of spare circuits of one engine.
    pub max_spare_circuits: u16,
    /// A file with more lines for the torrc of each engine. `None`: there is no such file.
    pub torrc: Option<PathBuf>,
    /// More lines for the torrc of each engine. None of them contains a line break.
    pub extra: Vec<String>,
    /// True if exitgate itself connects to nothing but Tor. Lines of `torrc` or `extra` that turn on bridges have the
    /// same effect.
    pub only: bool,
    /// A file with the countries of IPv4 addresses, in tor's format.
    pub geoip_file: Option<PathBuf>,
    /// A file with the countries of IPv6 addresses, in tor's format.
    pub geoip6_file: Option<PathBuf>,
    /// Engines that were started by somebody else.
    pub attach: Vec<Attach>,
}

/// An engine (tor process) that somebody else starts, and how exitgate connects to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub control: Endpoint,
    /// The SOCKS port that exitgate uses for streams which it attaches to circuits.
    pub socks: Endpoint,
    /// The SOCKS port for onion services. `None`: this engine has no such port.
    pub onion_socks: Option<Endpoint>,
    /// True if each IP address of the host name is an engine of its own. If the name has no addresses, there is no
    /// engine.
    pub every_address: bool,
    /// The password of the control port. `None`: exitgate uses tor's cookie file, or no authentication.
    pub password: Option<Secret>,
    /// The path of tor's cookie file on this machine, if it differs from the path that tor reports.
    pub cookie_file: Option<PathBuf>,
}

/// Public relays refuse new circuits from a client address that builds this many circuits per second.
const DEFENDED_PACE: f64 = 3.0;

impl Tor {
    pub(super) fn validate(file: &schema::Tor, findings: &mut Findings) -> Self {
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
            max_spare_circuits: u16::try_from(file.max_spare_circuits.0).unwrap_or(u16::MAX),
            torrc: file.torrc.clone(),
            extra: extra(&file.extra, findings),
            only: file.only,
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
        let hint = format!("use {DEFENDED_PACE} or less unless the Tor network is a private one");
        findings.warn(at, format!("is {pace}: public relays treat that as an attack and refuse circuits"), hint);
    }
}

fn extra(lines: &List<String>, findings: &mut Findings) -> Vec<String> {
    let mut extra = Vec::new();
    for (index, line) in lines.iter() {
        if line.contains(['\n', '\r', '\0']) {
            let at = KeyPath::from("tor.extra").index(index);
            findings.fault(at, "contains a line break", "write one torrc line per item, or name a file by tor.torrc");
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
        let password = SecretKeys { table: &at, key: "password", inline, file }.validate(findings);
        if password.is_some() && engine.cookie_file.is_some() {
            findings.fault(
                at.key("cookie_file"),
                "is given in addition to a password",
                "keep the one that this tor asks for",
            );
        }
        let (Some(control), Some(socks)) = (control, socks) else { continue };
        if engines.iter().any(|other| other.control == control) {
            let what = format!("is {control}, which another entry has already");
            findings.fault(at.key("control"), what, "remove one of the two: an engine needs one entry");
        }
        let onion_socks = engine.onion_socks.as_ref().map(|Text(endpoint)| endpoint.clone());
        let every_address = engine.every_address;
        if every_address && !share_a_name([Some(&control), Some(&socks), onion_socks.as_ref()]) {
            let hint = "write the same host name in control, socks and onion_socks, or leave every_address out";
            findings.fault(at.key("every_address"), "needs the same host name in all ports of a tor", hint);
        }
        let cookie_file = engine.cookie_file.clone();
        engines.push(Attach { control, socks, onion_socks, every_address, password, cookie_file });
    }
    engines
}

/// Returns true if all given endpoints are ports of the same host, and the host is written as a name.
fn share_a_name(endpoints: [Option<&Endpoint>; 3]) -> bool {
    let name = |endpoint: &Endpoint| match endpoint {
        Endpoint::Tcp(target) => Some(&target.host).filter(|host| matches!(host, Host::Name(_))).cloned(),
        Endpoint::Unix(_) => None,
    };
    let names: Vec<_> = endpoints.into_iter().flatten().map(name).collect();
    names.iter().all(|name| name.is_some() && *name == names[0])
}

fn required(written: &Option<Text<Endpoint>>, table: &KeyPath, key: &str, findings: &mut Findings) -> Option<Endpoint> {
    if written.is_none() {
        let hint = format!("write {key} = \"unix:/path/of/the/socket\" or {key} = \"host:port\"");
        findings.fault(table.key(key), "is missing", hint);
    }
    written.as_ref().map(|Text(endpoint)| endpoint.clone())
}
