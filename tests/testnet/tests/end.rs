//! A network ends together with its owner, however the owner ends.

use std::io::{BufRead as _, BufReader};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exitgate_testnet::{ExitSpec, Network, Options};

/// Set in the process that the test kills.
const VICTIM: &str = "EXITGATE_TESTNET_VICTIM";

/// How long the kernel and the cleaner may take after the owner was killed.
const CLEARED: Duration = Duration::from_secs(10);

/// The smallest network that works: these tests do not depend on the size.
fn small() -> Options {
    Options { guards: 2, exits: vec![ExitSpec::new("us1", "US")], ..Options::default() }
}

/// Processes whose command line names the folder: the relays and the cleaner.
fn processes(folder: &Path) -> Vec<u32> {
    let names = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(folder.to_str().unwrap()))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(names).collect()
}

fn wait_until_cleared(folder: &Path) {
    let begun = Instant::now();
    while folder.exists() || !processes(folder).is_empty() {
        assert!(begun.elapsed() < CLEARED, "{} is left, and {:?}", folder.display(), processes(folder));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn it_is_gone_when_dropped() {
    let network = Network::start(small()).await.unwrap();
    let client = network.client("held", &[]).await.unwrap();
    let folder = network.sandbox().folder().to_owned();
    assert!(processes(&folder).len() >= 6, "four relays, a client and a cleaner");
    drop(network);
    assert!(client.pid().await.unwrap().is_some(), "a client keeps its network alive");
    drop(client);
    assert!(!folder.exists());
    assert_eq!(processes(&folder), [0u32; 0]);
}

#[test]
fn it_is_gone_after_a_panic() {
    let mut folder = PathBuf::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let network = Network::start(small()).await.unwrap();
            folder = network.sandbox().folder().to_owned();
            panic!("on purpose");
        });
    }));
    assert!(outcome.is_err());
    assert!(!folder.exists());
    assert_eq!(processes(&folder), [0u32; 0]);
}

/// Runs this test again in a process of its own, which starts a network and prints its folder; then kills that process.
#[test]
fn it_is_gone_after_the_holder_was_killed() {
    if std::env::var_os(VICTIM).is_some() {
        return hold_a_network();
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "it_is_gone_after_the_holder_was_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let folder: PathBuf = said.filter_map(|line| Some(line.strip_prefix("folder ")?.into())).next().unwrap();
    assert!(processes(&folder).len() >= 5, "four relays and a cleaner");
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until_cleared(&folder);
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn hold_a_network() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let network = runtime.block_on(Network::start(small())).unwrap();
    println!("\nfolder {}", network.sandbox().folder().display());
    std::thread::sleep(Duration::from_secs(60));
    drop(network);
}
