//! What tor answers, and what simtor answers: the same commands to both, side by side.
//!
//! tor runs with `DisableNetwork 1` and simtor with its uplink cut, so that neither has a directory and nothing leaves the
//! machine. What a network is needed for is compared by the suite in `tests/it/tor`, which runs on both.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use exitgate_simtor::client::WorldClient;
use tempfile::TempDir;

const SIMTOR: &str = env!("CARGO_BIN_EXE_simtor");

/// How long anything may take, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends with the test, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut see: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = see() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap(); // tor insists
    folder
}

/// A small world whose uplink is cut.
fn world(folder: &Path, cut: bool) -> (Process, PathBuf) {
    let socket = folder.join("world");
    let mut command = Command::new(SIMTOR);
    command.arg("world").arg("--socket").arg(&socket).args(["--set", "size=60", "--set", "speed=50"]);
    let process = Process(command.spawn().unwrap());
    let client = WorldClient::new(&socket);
    until("the world answers", || client.orders().ok());
    if cut {
        client.order_text(r#"{"fault":"uplink_cut"}"#).unwrap();
    }
    (process, socket)
}

struct Engine {
    _process: Process,
    stream: BufReader<UnixStream>,
}

impl Engine {
    fn start(program: &str, folder: &Path, world: Option<&Path>, lines: &str) -> Self {
        let torrc = folder.join("torrc");
        let (data, control) = (folder.join("data"), folder.join("control"));
        let own = format!("DataDirectory {}\nControlSocket {}\n{lines}", data.display(), control.display());
        fs::write(&torrc, own).unwrap();
        let mut command = Command::new(program);
        command.arg("-f").arg(&torrc).args(["--defaults-torrc", "/dev/null", "--quiet"]).stdin(Stdio::null());
        command.envs(world.map(|world| ("SIMTOR_WORLD", world)));
        let process = Process(command.spawn().unwrap());
        let stream = until("the control port", || UnixStream::connect(&control).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { _process: process, stream: BufReader::new(stream) }
    }

    /// The whole answer to a command; events that come between are left out.
    fn ask(&mut self, command: &str) -> String {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let (mut answer, mut in_block) = (String::new(), false);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{command}: closed after {answer:?}");
            if !in_block && line.starts_with("650") {
                continue;
            }
            answer.push_str(&line);
            in_block = if in_block { line != ".\r\n" } else { line.get(3..4) == Some("+") };
            if !in_block && line.get(3..4) == Some(" ") && line != ".\r\n" {
                return answer;
            }
        }
    }
}

/// Commands whose answers are the same to the letter.
const COMMANDS: &[&str] = &[
    "FOO",
    "foo bar",
    "EXTENDCIRCUIT",
    "EXTENDCIRCUIT 0",
    "EXTENDCIRCUIT x",
    "EXTENDCIRCUIT 7 $0000000000000000000000000000000000000000",
    "EXTENDCIRCUIT 0 $0000000000000000000000000000000000000000",
    "EXTENDCIRCUIT 0 $0000000000000000000000000000000000000000 purpose=zoo",
    "ATTACHSTREAM",
    "ATTACHSTREAM 1",
    "ATTACHSTREAM 1 1",
    "CLOSESTREAM 1",
    "CLOSESTREAM 1 1",
    "CLOSECIRCUIT",
    "CLOSECIRCUIT 9",
    "SETCIRCUITPURPOSE 9 purpose=general",
    "REDIRECTSTREAM 1 a",
    "SETEVENTS FOO",
    "SETEVENTS CIRC STREAM CIRC_BW STATUS_CLIENT NETWORK_LIVENESS ORCONN",
    "SETEVENTS",
    "SIGNAL FOO",
    "SIGNAL ACTIVE",
    "GETINFO foo",
    "GETINFO",
    "GETINFO version",
    "GETINFO status/enough-dir-info",
    "GETINFO circuit-status",
    "GETINFO stream-status",
    "GETINFO entry-guards",
    "GETINFO dir/status-vote/current/consensus-microdesc",
    "GETINFO md/all",
    "GETINFO md/id/0000000000000000000000000000000000000000",
    "GETINFO ns/id/$0000000000000000000000000000000000000000",
    "GETINFO ns/all",
    "GETINFO network-liveness",
    "GETINFO status/circuit-established",
    "GETINFO status/version/current",
    "GETINFO status/version/recommended",
    "GETINFO dormant",
    "GETINFO events/names",
    "GETINFO features/names",
    "GETINFO signal/names",
    "GETINFO config/names",
    "GETINFO exit-policy/full",
    "GETINFO consensus/valid-after",
    "GETCONF foo",
    "GETCONF BandwidthRate",
    "GETCONF bandwidthrate MaxCircuitDirtiness",
    "GETCONF SocksPort",
    "GETCONF EntryNodes",
    "GETCONF UseBridges",
    "GETCONF EnforceDistinctSubnets",
    "GETCONF CircuitBuildTimeout",
    "GETCONF __LeaveStreamsUnattached",
    "SETCONF foo=bar",
    "SETCONF BandwidthRate=zoo",
    "SETCONF BandwidthRate=\"7 MB\"",
    "GETCONF BandwidthRate",
    "SETCONF EntryNodes=\"$0000000000000000000000000000000000000000\"",
    "GETCONF EntryNodes",
    "SETCONF EntryNodes",
    "GETCONF EntryNodes",
    "RESETCONF BandwidthRate",
    "GETCONF BandwidthRate",
    "SETCONF DataDirectory=/tmp",
    "SETCONF MaxCircuitDirtiness=\"30 days\"",
    "GETCONF MaxCircuitDirtiness",
    "SETCONF __DisablePredictedCircuits=1 LearnCircuitBuildTimeout=0 CircuitBuildTimeout=20 ConfluxEnabled=0",
    "GETCONF CircuitBuildTimeout ConfluxEnabled",
    "USEFEATURE FOO",
    "USEFEATURE EXTENDED_EVENTS",
    "TAKEOWNERSHIP",
    "DROPOWNERSHIP",
    "PROTOCOLINFO",
    "getinfo version",
    "QUIT",
];

#[test]
fn commands_are_answered_as_tor_answers_them() {
    let (real, simulated) = (folder(), folder());
    let lines = "SocksPort 0\n__LeaveStreamsUnattached 1\n";
    let mut tor = Engine::start("tor", real.path(), None, &format!("{lines}DisableNetwork 1\n"));
    let (_world, socket) = world(simulated.path(), true);
    let mut simtor = Engine::start(SIMTOR, simulated.path(), Some(&socket), lines);
    for engine in [&mut tor, &mut simtor] {
        assert_eq!(engine.ask("AUTHENTICATE"), "250 OK\r\n");
    }
    let mut differing = Vec::new();
    for command in COMMANDS {
        let (want, got) = (tor.ask(command), simtor.ask(command));
        if want != got {
            differing.push(format!("{command}\n  tor:    {want:?}\n  simtor: {got:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn verified(program: &str, folder: &Path, line: &str) -> Output {
    let torrc = folder.join("torrc");
    fs::write(&torrc, format!("DataDirectory {}\n{line}\n", folder.join("data").display())).unwrap();
    let mut command = Command::new(program);
    command.arg("-f").arg(&torrc).args(["--defaults-torrc", "/dev/null", "--verify-config"]).stdin(Stdio::null());
    command.output().unwrap()
}

/// The last warning, which says why; tor's line has a time in front.
fn why(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.contains("Failed to parse/validate config"))?;
    line.split_once("[warn] ").map(|(_, why)| why.to_owned())
}

#[test]
fn configurations_are_verified_as_tor_verifies_them() {
    let folder = folder();
    for line in [
        "Foo 1",
        "BandwidthRate zoo",
        "BandwidthRate 7 MBytes",
        "SocksPort zoo",
        "SocksPort unix:/tmp/socks IPv4Traffic NoIPv6Traffic SessionGroup=1 ExtendedErrors",
        "Bridge zoo",
        "Sandbox 1",
        "CircuitBuildTimeout 1",
        "UseBridges 1",
        "UseBridges 1\nBridge 127.0.0.1:9001 0000000000000000000000000000000000000000",
        "DirAuthority zoo",
        "ControlPort 9",
        "ExitNodes {us}",
        "TestingTorNetwork 1",
        "__DisablePredictedCircuits yes",
    ] {
        let (tor, simtor) = (verified("tor", folder.path(), line), verified(SIMTOR, folder.path(), line));
        assert_eq!(simtor.status.code(), tor.status.code(), "{line}: {simtor:?}");
        assert_eq!(why(&simtor).is_some(), why(&tor).is_some(), "{line}");
        if !line.starts_with("__") {
            assert_eq!(why(&simtor), why(&tor), "{line}");
        }
    }
}

#[test]
fn a_version_is_said_as_tor_says_it_and_can_be_ordered() {
    let said = |command: &mut Command| String::from_utf8(command.arg("--version").output().unwrap().stdout).unwrap();
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let tor = first(said(&mut Command::new("tor")));
    assert!(tor.starts_with("Tor version 0.4."), "{tor}");
    let folder = folder();
    let (_world, socket) = world(folder.path(), false);
    assert_eq!(first(said(Command::new(SIMTOR).env("SIMTOR_WORLD", &socket))), "Tor version 0.4.9.11.");
    WorldClient::new(&socket).order_text(r#"{"fault":"tor_version","version":"0.4.9.14"}"#).unwrap();
    assert_eq!(first(said(Command::new(SIMTOR).env("SIMTOR_WORLD", &socket))), "Tor version 0.4.9.14.");
}

#[test]
fn a_circuit_is_built_counted_and_failed_by_order() {
    let folder = folder();
    let (_world, socket) = world(folder.path(), false);
    let world = WorldClient::new(&socket);
    let lines = "SocksPort 0\n__DisablePredictedCircuits 1\n";
    let mut engine = Engine::start(SIMTOR, folder.path(), Some(&socket), lines);
    engine.ask("AUTHENTICATE");
    until("a directory", || engine.ask("GETINFO status/enough-dir-info").contains("=1").then_some(()));
    assert!(
        engine.ask("GETINFO status/bootstrap-phase").contains("PROGRESS=75"),
        "it rests there without own circuits"
    );
    let path = |world: &WorldClient, role: &str| {
        let relays = world.relays().unwrap();
        let found =
            relays.as_array().unwrap().iter().find(|relay| relay[role] == true && relay["exit"] == (role == "exit"));
        found.unwrap()["fingerprint"].as_str().unwrap().to_owned()
    };
    let (guard, exit) = (path(&world, "guard"), path(&world, "exit"));
    let ends = |engine: &mut Engine| {
        let answer = engine.ask(&format!("EXTENDCIRCUIT 0 ${guard},${exit} purpose=controller"));
        let id = answer.trim().strip_prefix("250 EXTENDED ").unwrap_or_else(|| panic!("{answer}")).to_owned();
        until("the circuit's end", || {
            let status = engine.ask("GETINFO circuit-status");
            let line = status.lines().find(|line| line.contains(&format!("{id} "))).map(str::to_owned);
            match line {
                Some(line) => line.contains(" BUILT ").then_some(true),
                None => Some(false),
            }
        })
    };
    // Some fail by chance, as outside.
    assert!((0..5).any(|_| ends(&mut engine)), "one of five is built");
    let id = world.order_text(r#"{"fault":"hop_fails","hop":2}"#).unwrap();
    assert!(!ends(&mut engine));
    world.clear(id).unwrap();
    assert!((0..5).any(|_| ends(&mut engine)), "one of five is built again");
    let stats = world.stats().unwrap();
    assert!(stats.circuits >= 3 && stats.circuits_failed >= 1 && stats.entered.contains_key(&guard), "{stats:?}");
    assert!(world.order_text(r#"{"fault":"nonsense"}"#).is_err());
}
