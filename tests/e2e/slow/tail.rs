//! One exit in six is slow, and scrapers should hardly feel it.

use std::convert::Infallible;
use std::time::Duration;

use exitgate_testnet::{ExitSpec, Network, Options, Testbed};
use tokio::time::sleep;

use crate::gateway::Gateway;
use crate::parallel_requests::{Answer, Ask, WAYS, send_many, tally};

/// Requests a measurement: twenty of them are slower than the 99th percentile.
const REQUESTS: usize = 2000;

/// Requests at once: enough to keep two cores busy without making them the bottleneck of the tail.
const AT_ONCE: usize = 6;

/// How long the slow exit stops each time, and how long it then works. What came meanwhile waits: a quarter of a second on
/// average at worst, ten times what a quick exit takes here.
const STOPS: Duration = Duration::from_millis(300);
const WORKS: Duration = Duration::from_millis(30);

async fn stutter(network: &Network, name: &str) -> Infallible {
    loop {
        network.pause(name).await.unwrap();
        sleep(STOPS).await;
        network.resume(name).await.unwrap();
        sleep(WORKS).await;
    }
}

/// The 50th and the 99th percentile of the time to the first byte.
fn percentiles(answers: &[Answer]) -> [Duration; 2] {
    let mut times: Vec<_> = answers.iter().map(|answer| answer.first_byte).collect();
    times.sort_unstable();
    [50, 99].map(|percent| times[times.len() * percent / 100 - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_exit_is_hardly_felt() {
    let exits = (1..=6).map(|n| ExitSpec::new(&format!("us{n}"), "US")).collect();
    let bed = Testbed::start_with(Options { exits, ..Options::default() }).await.unwrap();
    let route = "[[routes]]\nname = \"shop\"\nselector = \"us\"\nport = 20001\npool = 6\n";
    let gateway = Gateway::start(&bed, route).await;
    gateway.wait_tested(6).await;
    let ask = Ask { at: gateway.port(20001), user: None, host: "echo.test".into(), port: bed.web.http_port() };
    let measure = async |count| send_many(&ask, count, AT_ONCE, |n| WAYS[n % 3]).await;
    tally(&measure(300).await);

    let quiet = measure(REQUESTS).await;
    let slow = bed.network.relay("us3").outbound.to_string();
    let slowed = tokio::select! {
        slowed = measure(REQUESTS) => slowed,
        never = stutter(&bed.network, "us3") => match never {},
    };
    bed.network.resume("us3").await.unwrap();
    let (quiet_by, slowed_by) = (tally(&quiet), tally(&slowed));
    let (before, after) = (percentiles(&quiet), percentiles(&slowed));
    println!("time to first byte, p50 and p99: {before:?}; with one exit in six slow: {after:?}");
    println!("of {REQUESTS}, the slow exit served {:?}, before {:?}", slowed_by.get(&slow), quiet_by.get(&slow));
    assert_eq!(quiet_by.len(), 6, "{quiet_by:?}");
    // Of two thousand requests twenty are slower than the 99th percentile: the exit's first three late dials and its trials
    // are fewer, and whoever meets one is helped by a second dial beside it.
    let share = slowed_by.get(&slow).copied().unwrap_or_default() as f64 / REQUESTS as f64;
    assert!(share < 0.01, "the slow exit served {share:.3} of all: {slowed_by:?}");
    assert!(after[1] <= before[1].mul_f64(1.5), "{before:?} became {after:?}: {slowed_by:?}");
}
