//! The torrc of every process: no I/O. A comment says what goes wrong without a line, where that is not obvious.

use std::fmt::Write as _;
use std::path::Path;

use crate::dates;
use crate::layout::{DIR_PORT, OR_PORT, Options, Relay, Role};

/// What all torrcs of a network have in common.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub folder: &'a Path,
    pub options: &'a Options,
    pub relays: &'a [Relay],
    /// The `DirAuthority` line.
    pub authority: &'a str,
    /// Seconds after each half hour at which the authority would vote by its schedule.
    pub vote_offset: u64,
}

/// The voting interval in seconds before the vote is ordered: so long that there is no vote before all relays are known.
pub(crate) const FIRST_VOTE_INTERVAL: u64 = 1800;

/// The lines that any tor needs to join the network.
pub(crate) fn join(folder: &Path, authority: &str) -> Vec<String> {
    vec![
        "TestingTorNetwork 1".into(),
        authority.into(),
        format!("GeoIPFile {}", folder.join("geoip").display()),
        format!("GeoIPv6File {}", folder.join("geoip6").display()),
    ]
}

fn common(shared: &Shared<'_>, name: &str) -> Vec<String> {
    let home = shared.folder.join(name);
    let mut lines = join(shared.folder, shared.authority);
    lines.extend([
        format!("DataDirectory {}", home.display()),
        format!("Log notice file {}", home.join("log").display()),
        format!("ControlSocket {}", home.join("control").display()),
        format!("__OwningControllerProcess {}", std::process::id()), // tor checks every 15 s whether this process lives; see `process.rs`
        "RunAsDaemon 0".into(),
        "SafeLogging 0".into(),
        "LogTimeGranularity 1".into(),
        "NumCPUs 1".into(),
        "ShutdownWaitLength 0".into(),
    ]);
    lines
}

/// The torrc of a relay.
pub(crate) fn relay(shared: &Shared<'_>, relay: &Relay) -> String {
    let mut lines = common(shared, &relay.name);
    lines.extend([
        format!("Nickname {}", relay.name),
        format!("Address {}", relay.ip),
        format!("ORPort {}:{OR_PORT} IPv4Only", relay.ip),
        "AddressDisableIPv6 1".into(),
        "SocksPort 0".into(),
        "AssumeReachable 1".into(),
        "MaxMemInQueues 256 MB".into(),
        "ContactInfo testnet@example.invalid".into(),
        "ExtraInfoStatistics 0".into(),
        "DirReqStatistics 0".into(),
        "HiddenServiceStatistics 0".into(),
        "PathsNeededToBuildCircuits 0.25".into(),
        "__DisablePredictedCircuits 1".into(), // circuits that relays build for themselves only disturb a test
    ]);
    lines.extend(relay.policy.iter().map(|line| format!("ExitPolicy {line}")));
    let (own, extra) = match relay.role {
        Role::Authority => (authority(shared, relay), &shared.options.authority_lines),
        Role::Guard => (vec!["ExitRelay 0".into()], &shared.options.guard_lines),
        Role::Exit => (exit(shared), &shared.options.exit_lines),
    };
    lines.extend(own);
    lines.extend_from_slice(extra);
    text(&lines)
}

fn authority(shared: &Shared<'_>, relay: &Relay) -> Vec<String> {
    let addresses = |wanted: &dyn Fn(&&Relay) -> bool| {
        shared.relays.iter().filter(wanted).map(|relay| relay.ip.to_string()).collect::<Vec<_>>().join(",")
    };
    let guards = addresses(&|relay| relay.role == Role::Guard);
    // Tor gives the Exit flag only to relays that allow both 80 and 443. TestingDirAuthVoteExit gives it to the one that refuses 443.
    let exits = addresses(&|relay| relay.role == Role::Exit);
    vec![
        format!("DirPort {}:{DIR_PORT}", relay.ip),
        "AuthoritativeDirectory 1".into(),
        "V3AuthoritativeDirectory 1".into(),
        format!("V3AuthVotingInterval {} seconds", shared.options.interval.as_secs().max(FIRST_VOTE_INTERVAL)),
        "V3AuthVoteDelay 5 seconds".into(),
        "V3AuthDistDelay 5 seconds".into(),
        format!("V3AuthNIntervalsValid {}", shared.options.valid_intervals),
        format!("TestingV3AuthInitialVotingInterval {FIRST_VOTE_INTERVAL} seconds"),
        "TestingV3AuthInitialVoteDelay 2 seconds".into(),
        "TestingV3AuthInitialDistDelay 2 seconds".into(),
        format!("TestingV3AuthVotingStartOffset {} seconds", shared.vote_offset),
        "TestingAuthDirTimeToLearnReachability 0".into(),
        "TestingDirAuthVoteHSDir *".into(),
        "AuthDirVoteStableGuaranteeMinUptime 0".into(), // without it no relay is Stable for days
        "AuthDirVoteStableGuaranteeMTBF 0".into(),
        format!("TestingDirAuthVoteGuard {guards}"),
        "TestingDirAuthVoteGuardIsStrict 1".into(),
        format!("TestingDirAuthVoteExit {exits}"),
        "TestingDirAuthVoteExitIsStrict 1".into(),
        "TestingMinFastFlagThreshold 0".into(),
        "AuthDirMaxServersPerAddr 0".into(),
        "MinUptimeHidServDirectoryV2 0".into(),
        // Rotated keys would make a cached consensus useless. cc_alg=2 is the value of the public network. Without maxunmeasuredbw, tor caps
        // bandwidth that nobody measured at 20 kB/s.
        "ConsensusParams onion-key-rotation-days=90 cc_alg=2 sendme_emit_min_version=1 maxunmeasuredbw=1000000".into(),
    ]
}

fn exit(shared: &Shared<'_>) -> Vec<String> {
    vec![
        "ExitRelay 1".into(),
        "ExitPolicyRejectPrivate 0".into(), // all targets are on loopback
        "IPv6Exit 0".into(),
        "ServerDNSDetectHijacking 0".into(),
        "ServerDNSAllowNonRFC953Hostnames 1".into(),
        "ServerDNSAllowBrokenConfig 1".into(),
        "ServerDNSTestAddresses".into(),
        format!("ServerDNSResolvConfFile {}", shared.folder.join("resolv.conf").display()),
    ]
}

/// The torrc of a client. A line of `extra` replaces the default line with the same keyword.
pub(crate) fn client(shared: &Shared<'_>, name: &str, extra: &[String]) -> String {
    let keyword = |line: &str| line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let given: Vec<String> = extra.iter().map(|line| keyword(line)).collect();
    let mut lines = common(shared, name);
    lines.extend(["SocksPort auto", "ClientOnly 1", "ClientUseIPv6 0", "DormantCanceledByStartup 1"].map(String::from));
    lines.retain(|line| !given.contains(&keyword(line)));
    lines.extend_from_slice(extra);
    text(&lines)
}

/// The `state` file of a new relay. It claims a day of traffic, so that the relay advertises a bandwidth.
pub(crate) fn state(role: Role, now: u64) -> String {
    const DAY: u64 = 86_400;
    let rate = role.observed_bandwidth();
    let mut state = String::new();
    for way in ["Read", "Write"] {
        let (end, total) = (dates::stamp(now), rate * DAY);
        let _ = writeln!(state, "BWHistory{way}Ends {end}\nBWHistory{way}Interval {DAY}"); // writing to a String does not fail
        let _ = writeln!(state, "BWHistory{way}Values {total}\nBWHistory{way}Maxima {rate}");
    }
    state
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout;
    use crate::sandbox::Sandbox;

    fn with_torrc<T>(check: impl FnOnce(&Shared<'_>) -> T) -> T {
        let sandbox = Sandbox::claim().unwrap();
        let options = Options { exit_lines: vec!["BandwidthRate 1 MB".into()], ..Options::default() };
        let relays = layout::relays(&options, &sandbox);
        check(&Shared {
            folder: Path::new("/folder"),
            options: &options,
            relays: &relays,
            authority: "DirAuthority auth1 x",
            vote_offset: 7,
        })
    }

    #[test]
    fn each_role_gets_its_own_lines() {
        with_torrc(|shared| {
            let of = |name: &str| relay(shared, shared.relays.iter().find(|relay| relay.name == name).unwrap());
            assert!(of("auth1").contains("\nV3AuthoritativeDirectory 1\n"));
            assert!(of("guard1").contains("\nExitPolicy reject *:*\n") && !of("guard1").contains("BandwidthRate"));
            assert!(of("us1").contains("\nExitPolicy accept *:*\n") && of("us1").ends_with("BandwidthRate 1 MB\n"));
            assert!(of("no443").contains("\nExitPolicy reject *:443\nExitPolicy accept *:*\n"));
        });
    }

    #[test]
    fn a_client_may_replace_a_line() {
        with_torrc(|shared| {
            let torrc = client(shared, "c", &["SocksPort unix:/x".into(), "ExitNodes us".into()]);
            assert_eq!(torrc.matches("SocksPort").count(), 1);
            assert!(torrc.contains("\nClientOnly 1\n") && torrc.ends_with("SocksPort unix:/x\nExitNodes us\n"));
        });
    }
}
