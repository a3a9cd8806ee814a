//! What tor answers, and what simtor answers: the same commands to both, side by side.
//!
//! tor runs with `DisableNetwork 1` and simtor with its uplink cut, so that neither has a directory and nothing leaves the
//! machine. What a network is needed for is compared by the suite in `tests/it/tor`, which runs on both.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::rig::{Engine, SIMTOR, folder, world};

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
    let (_process, world) = world(simulated.path(), &[]);
    world.order_text(r#"{"fault":"uplink_cut"}"#).unwrap();
    let mut simtor = Engine::start(SIMTOR, simulated.path(), Some(world.socket()), lines);
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
    let (_process, world) = world(folder.path(), &[]);
    assert_eq!(first(said(Command::new(SIMTOR).env("SIMTOR_WORLD", world.socket()))), "Tor version 0.4.9.11.");
    world.order_text(r#"{"fault":"tor_version","version":"0.4.9.14"}"#).unwrap();
    assert_eq!(first(said(Command::new(SIMTOR).env("SIMTOR_WORLD", world.socket()))), "Tor version 0.4.9.14.");
}
