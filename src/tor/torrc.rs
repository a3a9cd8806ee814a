//! Writes the torrc file of an engine: our lines, followed by the user's lines. The user's lines are checked first.
//!
//! The user must not set some options. For example, if tor attached streams by itself, or if another program used the
//! control port, nothing would fail visibly, but traffic would leave through wrong exits. A line with such an option is
//! refused, and the error shows the place of the line and a reason. All such lines are reported together.
//!
//! tor accepts abbreviated option names and does not distinguish upper and lower case. So a line is also refused if its
//! option name could be an abbreviation of a refused option.
//!
//! Next: `preflight.rs` lets tor verify the result; `engine/run.rs` writes the result to a file.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reply::quote;
use crate::exit::Fingerprint;

mod reach;

/// Options that the user must not set, each with the reason that the error message shows.
const OURS: &[(&str, &str)] = &[
    ("DataDirectory", FOLDER),
    ("CacheDirectory", FOLDER),
    ("KeyDirectory", FOLDER),
    ("PidFile", FOLDER),
    ("ControlPort", COMMAND),
    ("ControlSocket", COMMAND),
    ("ControlListenAddress", COMMAND),
    ("ControlPortWriteToFile", COMMAND),
    ("CookieAuthentication", COMMAND),
    ("CookieAuthFile", COMMAND),
    ("HashedControlPassword", COMMAND),
    ("__HashedControlSessionPassword", COMMAND),
    ("__OwningControllerProcess", COMMAND),
    ("__OwningControllerFD", COMMAND),
    ("__LeaveStreamsUnattached", PATHS),
    ("__DisablePredictedCircuits", PATHS),
    ("MaxCircuitDirtiness", PATHS),
    ("ConfluxEnabled", PATHS),
    ("LearnCircuitBuildTimeout", PATHS),
    ("CircuitBuildTimeout", PATHS),
    ("ExitNodes", "which exit is used is said by the username or the route, never by tor"),
    ("ExcludeNodes", UNHEEDED),
    ("ExcludeExitNodes", UNHEEDED),
    ("MiddleNodes", UNHEEDED),
    ("StrictNodes", UNHEEDED),
    ("EntryNodes", GUARDS),
    ("UseEntryGuards", GUARDS),
    ("NumEntryGuards", GUARDS),
    ("NumDirectoryGuards", GUARDS),
    ("NumPrimaryGuards", GUARDS),
    ("SocksPort", LISTENERS),
    ("SocksListenAddress", LISTENERS),
    ("SocksPolicy", LISTENERS),
    ("TransPort", LISTENERS),
    ("NATDPort", LISTENERS),
    ("DNSPort", LISTENERS),
    ("HTTPTunnelPort", LISTENERS),
    ("ORPort", CLIENT),
    ("DirPort", CLIENT),
    ("ExtORPort", CLIENT),
    ("ClientOnly", CLIENT),
    ("BridgeRelay", CLIENT),
    ("HiddenServiceDir", "every engine would publish the same onion service"),
    ("UseMicrodescriptors", "exitgate reads the directory from microdescriptors"),
    ("DormantTimeoutEnabled", DORMANT),
    ("DormantCanceledByStartup", DORMANT),
    ("DormantOnFirstStartup", DORMANT),
    ("DisableNetwork", "an engine without a network is of no use; set tor.enabled = false instead"),
    ("RunAsDaemon", "exitgate watches its engines, so that they stay in the foreground"),
    ("User", "start exitgate as that user instead"),
    ("%include", "what it includes cannot be checked; use tor.torrc"),
];

const FOLDER: &str = "each engine has a folder of its own under data_dir";
const COMMAND: &str = "only exitgate commands its engines";
const PATHS: &str = "exitgate builds the circuits and attaches the streams itself";
const UNHEEDED: &str = "exitgate chooses paths itself and would not heed it";
const GUARDS: &str = "exitgate gives each engine a guard of its own";
const LISTENERS: &str = "exitgate would not attach its streams; clients use exitgate's own listeners";
const CLIENT: &str = "an engine is a client and nothing else";
const DORMANT: &str = "a gateway that is quiet for a day must still be ready";

/// Complete names of tor options that are also the beginning of the name of a refused option. Lines with these options
/// are allowed, because these names are not abbreviations.
const NOT_AN_ABBREVIATION: &[&str] = &["Bridge", "Log", "Socks5Proxy", "Socks4Proxy"];

/// The location of a torrc line that the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the user's file, counted from 1.
    File(PathBuf, usize),
    /// An entry of the setting `tor.extra`, counted from 0.
    Extra(usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Extra(at) => write!(f, "tor.extra[{at}]"),
        }
    }
}

/// A line of the user that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub origin: Origin,
    pub line: String,
    /// The reason why the line is refused.
    pub why: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` is refused: {}", self.origin, self.line, self.why)
    }
}

/// Why no configuration for an engine could be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TorrcError {
    /// The user's file cannot be read.
    #[error("cannot read tor.torrc {path}: {why}")]
    Unreadable { path: String, why: String },
    /// Some lines are refused. The error contains all of them.
    #[error("{}", list(.0))]
    Conflicts(Vec<Conflict>),
    /// tor refuses the configuration.
    #[error("tor refuses the configuration: {0}")]
    Refused(String),
}

fn list(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(Conflict::to_string).collect::<Vec<_>>().join("\n")
}

/// The user's torrc lines after a successful check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserLines {
    lines: Vec<(String, String)>,
}

impl UserLines {
    /// Reads and checks the user's lines.
    pub async fn load(file: Option<&Path>, extra: &[String]) -> Result<Self, TorrcError> {
        let text = match file {
            None => None,
            Some(path) => Some((
                path,
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|e| TorrcError::Unreadable { path: path.display().to_string(), why: e.to_string() })?,
            )),
        };
        Self::parse(text.as_ref().map(|(path, text)| (*path, text.as_str())), extra)
    }

    /// Checks the lines of a file (given with its path) and those of `tor.extra`.
    pub fn parse(file: Option<(&Path, &str)>, extra: &[String]) -> Result<Self, TorrcError> {
        let mut all = Vec::new();
        if let Some((path, text)) = file {
            let lines = joined(text).into_iter();
            all.extend(lines.map(|(number, line)| (Origin::File(path.to_owned(), number), line)));
        }
        for (at, entry) in extra.iter().enumerate() {
            all.extend(joined(entry).into_iter().map(|(_, line)| (Origin::Extra(at), line)));
        }
        let (mut user, mut conflicts) = (Self::default(), Vec::new());
        for (origin, line) in all {
            let (key, value) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
            // `+Option` adds a value to the option, and `/Option` clears it. Both change the same option, so both are
            // checked.
            match refusal(key.trim_start_matches(['+', '/'])) {
                Some(why) => conflicts.push(Conflict { origin, line: line.clone(), why }),
                None => user.lines.push((key.to_owned(), value.trim().to_owned())),
            }
        }
        if conflicts.is_empty() { Ok(user) } else { Err(TorrcError::Conflicts(conflicts)) }
    }

    /// Returns true if the user's lines set this option.
    pub fn sets(&self, option: &str) -> bool {
        self.values(option).next().is_some()
    }

    /// Returns true if the user's lines turn on bridges.
    pub fn use_bridges(&self) -> bool {
        self.values("UseBridges").last() == Some("1")
    }

    /// Returns true if some line contains a country code. tor then needs its GeoIP file.
    fn names_countries(&self) -> bool {
        self.lines.iter().any(|(_, value)| value.contains('{'))
    }

    /// Returns true if relays of one subnet must not be in one path. On private networks the user may turn this rule
    /// off.
    pub fn distinct_subnets(&self) -> bool {
        match self.values("EnforceDistinctSubnets").last() {
            Some(value) => value != "0",
            None => self.values("TestingTorNetwork").last() != Some("1"),
        }
    }

    fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines
            .iter()
            .filter(move |(key, _)| key.trim_start_matches('+').eq_ignore_ascii_case(option))
            .map(|(_, value)| value.as_str())
    }
}

/// Returns the reason why the user must not set this option, or `None` if the user may.
fn refusal(key: &str) -> Option<&'static str> {
    let exact = OURS.iter().find(|(ours, _)| ours.eq_ignore_ascii_case(key));
    if let Some((_, why)) = exact {
        return Some(why);
    }
    if NOT_AN_ABBREVIATION.iter().any(|option| option.eq_ignore_ascii_case(key)) {
        return None;
    }
    let begins = |ours: &str| ours.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key));
    OURS.iter().find(|(ours, _)| begins(ours)).map(|(_, why)| *why)
}

/// Returns the lines of a torrc, each with its line number. Comments and blank lines are left out, and continued lines
/// are joined.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (at, raw) in text.lines().enumerate() {
        // tor skips comment lines inside a continued line.
        if raw.trim_start().starts_with('#') {
            continue;
        }
        let (piece, more) = match raw.trim_end().strip_suffix('\\') {
            Some(piece) => (piece, true),
            None => (raw, false),
        };
        let piece = uncommented(piece).trim();
        match lines.last_mut() {
            Some((_, line)) if continued => {
                line.push(' ');
                line.push_str(piece);
            }
            _ if piece.is_empty() => {}
            _ => lines.push((at + 1, piece.to_owned())),
        }
        continued = more && (continued || !piece.is_empty());
    }
    lines
}

/// Returns a line without its comment. A `#` inside quotes does not begin a comment.
fn uncommented(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The values in one engine's torrc, except the user's lines.
#[derive(Clone, Debug)]
pub struct EnginePaths<'a> {
    /// The engine's folder.
    pub folder: &'a Path,
    /// The folder of the engine's sockets.
    pub sockets: &'a Path,
    /// The process id of this gateway. tor ends when the gateway's process ends.
    pub owner: u32,
    /// The guard that tor must use. `None` until a guard is chosen.
    pub guard: Option<Fingerprint>,
    /// The index of this engine (from 0) and the number of all engines. With both values, bridges are divided among
    /// engines.
    pub engine: (usize, usize),
    /// The GeoIP file (countries of addresses). `None` if no such file is configured. tor needs the file only if the
    /// user's lines contain countries.
    pub geoip_file: Option<&'a Path>,
    /// How long the build of a circuit may take.
    pub circuit_timeout: Duration,
}

/// The least value for tor's CircuitBuildTimeout, in seconds. tor warns about values below 10.
const LEAST_TIMEOUT: u64 = 20;

/// The name of the control socket in [`EnginePaths::sockets`].
pub const CONTROL_SOCKET: &str = "control";
/// The name of the SOCKS socket for targets over IPv4.
pub const SOCKS_SOCKET: &str = "socks";
/// The name of the SOCKS socket for routes that allow targets over IPv6.
pub const SOCKS6_SOCKET: &str = "socks6";
/// The name of the SOCKS socket for onion services.
pub const ONION_SOCKET: &str = "onion";

/// Returns the options that make a tor process an engine. For an attached tor, these options are set over its control
/// port. The time-out for builds also applies to circuits that tor builds by itself, such as those to onion services.
pub fn behaviour(circuit_timeout: Duration) -> Vec<(&'static str, String)> {
    let build = circuit_timeout.as_secs().max(LEAST_TIMEOUT).to_string();
    let options = [
        ("__LeaveStreamsUnattached", "1"),
        ("__DisablePredictedCircuits", "1"),
        ("MaxCircuitDirtiness", "30 days"),
        ("LearnCircuitBuildTimeout", "0"),
        ("CircuitBuildTimeout", &build),
        ("DormantTimeoutEnabled", "0"),
        ("ConfluxEnabled", "0"),
    ];
    options.into_iter().map(|(option, value)| (option, value.to_owned())).collect()
}

/// Returns the text of an engine's torrc.
pub fn render(place: &EnginePaths<'_>, user: &UserLines) -> String {
    let mut text = String::new();
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} {value}"); // writing to a String cannot fail
    };
    let path = |path: &Path| quote(&path.to_string_lossy());
    put("DataDirectory", &path(place.folder));
    put("PidFile", &path(&place.folder.join("pid")));
    put("Log", "notice stdout");
    put("RunAsDaemon", "0");
    put("ClientOnly", "1");
    put("DormantCanceledByStartup", "1");
    put("ControlSocket", &path(&place.sockets.join(CONTROL_SOCKET)));
    put("CookieAuthentication", "1");
    put("__OwningControllerProcess", &place.owner.to_string());
    let socket = |name: &str| format!("unix:{}", path(&place.sockets.join(name)));
    // The gateway decides which streams share a circuit. If tor also isolated streams, it would log a bug message for
    // each further stream on the same circuit.
    let ours =
        "NoIsolateClientAddr NoIsolateSOCKSAuth NoIsolateClientProtocol SessionGroup=1 NoOnionTraffic ExtendedErrors";
    put("SocksPort", &format!("{} IPv4Traffic NoIPv6Traffic {ours}", socket(SOCKS_SOCKET)));
    put("SocksPort", &format!("{} IPv6Traffic PreferIPv6 {ours}", socket(SOCKS6_SOCKET)));
    put("SocksPort", &format!("{} OnionTrafficOnly ExtendedErrors", socket(ONION_SOCKET)));
    for (key, value) in behaviour(place.circuit_timeout) {
        put(key, &value);
    }
    if !user.use_bridges() {
        put("NumEntryGuards", "1");
        put("NumDirectoryGuards", "1");
        if let Some(guard) = place.guard {
            put("EntryNodes", &format!("${guard}"));
        }
    }
    let geoip = place.geoip_file.filter(|_| user.names_countries());
    for option in ["GeoIPFile", "GeoIPv6File"] {
        match geoip {
            _ if user.sets(option) => {}
            Some(file) if option == "GeoIPFile" => put(option, &path(file)),
            _ if user.names_countries() => {}
            _ => put(option, "/dev/null"),
        }
    }
    put("# the user's own lines", "");
    let (engine, engines) = place.engine;
    let bridges = user.values("Bridge").count();
    let mut bridge = 0;
    for (key, value) in &user.lines {
        if key.eq_ignore_ascii_case("Bridge") {
            bridge += 1;
            // If there are fewer bridges than engines, several engines share one bridge. Otherwise each bridge belongs
            // to one engine.
            if bridges >= engines && (bridge - 1) % engines.max(1) != engine {
                continue;
            }
        }
        put(key, value);
    }
    text
}

#[cfg(test)]
mod tests;
