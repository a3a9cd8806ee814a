//! Targets that refuse, hang or do not exist, thousands of times: nothing is left of any of it.

use std::time::Duration;

use exitgate::dial::DialError;
use exitgate::dial::tor::{Options, dial};
use exitgate_testnet::web::{REFUSED_PORT, RESET_PORT};
use tokio::time::{Instant, timeout};

use super::rig::{all, target};
use super::*;

/// Dials at once. More would only wait for one another: a circuit takes 64 streams, and refusals burn circuits.
const AT_ONCE: usize = 500;

/// What a target is given to answer. Those that hang take all of it.
const GIVEN: Duration = Duration::from_secs(3);

/// How many: `make verify` says ten thousand.
fn dials() -> usize {
    std::env::var("EXITGATE_DIALS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_500)
}

/// How much memory this process holds, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

on_both!(targets_that_fail_leave_no_stream_circuit_or_task_behind);

async fn targets_that_fail_leave_no_stream_circuit_or_task_behind(backend: Backend) {
    let bed = bed(backend).await;
    let change = |settings: &mut exitgate::tor::Settings| settings.circuit_idle = Duration::from_secs(2);
    let rig = Rig::start_with(&bed, change).await;
    let (exits, web) = (bed.network.exits(), bed.web.http_port());
    // A name that the name server never answers for is what hangs best: a target that took the connection would be a success.
    let places = [
        ("echo.test", REFUSED_PORT),
        ("nx.test", web),
        ("silent.test", web),
        ("closed.test", web),
        ("echo.test", RESET_PORT),
    ];
    let one = async |at: usize| {
        let (host, port) = places[at % places.len()];
        let (way, to) = (way(exits[at % 3], at as u64 % 7), target(host, port));
        let by = Instant::now() + GIVEN;
        (at, timeout(GIVEN * 2, dial(&rig.tor, way, &to, Options::default(), by)).await)
    };
    rig.seen_from(way(exits[0], 100)).await.unwrap();
    rig.until("what that needed is gone", |tor| tor.circuits().is_empty()).await;
    let (tasks, began) = (rig.life.tasks().running(), Instant::now());

    let mut memory = 0;
    for wave in 0..dials().div_ceil(AT_ONCE) {
        for (at, ended) in all((0..AT_ONCE).map(|n| one(wave * AT_ONCE + n))).await {
            let (host, port) = places[at % places.len()];
            let ended = ended.unwrap_or_else(|_| panic!("{host}:{port} is not given up"));
            match ended {
                Ok(_) => assert_eq!(port, RESET_PORT, "{host}"), // it was open for a moment
                Err(DialError::Target(_) | DialError::Deadline) => {}
                Err(why) => panic!("{host}:{port}: {why:?} is blamed"),
            }
        }
        memory = if wave == 0 { resident() } else { memory };
    }
    let waves = dials().div_ceil(AT_ONCE) as u32;
    assert!(began.elapsed() < GIVEN * 3 * waves, "{:?}", began.elapsed());
    rig.all_given_back().await;
    rig.until("no circuit is left", |tor| tor.circuits().is_empty()).await;
    rig.until("no task is left", |_| rig.life.tasks().running() == tasks).await;
    for engine in 0..2 {
        let control = rig.control(engine).await;
        let gone = async || !control.circuits().await.unwrap().iter().any(|circuit| circuit.ours);
        super::rig::until("tor holds no circuit of ours", gone, String::new).await;
    }
    assert_eq!(rig.life.tasks().panics(), 0);
    let grown = resident().saturating_sub(memory);
    assert!(grown < 32 * 1024, "{grown} KiB more than after the first {AT_ONCE}");
    // And all of it still works.
    assert_eq!(rig.seen_from(way(exits[0], 1)).await.unwrap().0, exits[0].outbound.to_string());
    rig.stop().await;
}
