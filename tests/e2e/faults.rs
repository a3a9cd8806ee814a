//! What breaks, and who notices.

use std::time::{Duration, Instant};

use exitgate_testnet::Testbed;

use crate::gateway::{Gateway, curl, run, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_survived() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let engines = gateway.engines();
    assert!(engines.len() >= 2, "one engine is a single point of failure: {engines:?}");
    let slow: Vec<_> = (0..20)
        .map(|i| {
            let proxy = format!("socks5h://any-session-s{i}@{}", gateway.addr());
            let url = bed.web.http("echo.test", "/slow/5");
            tokio::spawn(async move { curl(&["-x", &proxy, &url]).await })
        })
        .collect();
    until(|| async { bed.web.sources("/slow").len() }, |seen| *seen == 20).await;
    run("kill", &["-KILL", &engines[0].to_string()]).await;
    let begun = Instant::now();
    let mut answered = 0;
    while answered < 20 {
        let got = gateway.get("any", &page).await;
        if got.status == 200 {
            answered += 1;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{answered} of 20: {} {}", got.body, got.errors);
    }
    let mut whole = 0;
    for download in slow {
        whole += usize::from(download.await.unwrap().body.len() == 5);
    }
    assert!(whole > 0, "every stream died with one engine");
    let back = until(|| async { gateway.engines() }, |now| now.len() == engines.len()).await;
    assert_eq!(back.len(), engines.len(), "the engine did not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_exit_leaves_the_pool_and_comes_back() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let dead = bed.network.relay("us1").clone();
    bed.network.kill(&dead.name).await.unwrap();
    let mut failed = 0;
    for _ in 0..40 {
        let got = gateway.get("us", &page).await;
        failed += usize::from(got.status != 200);
        assert_ne!(got.body, dead.outbound.to_string());
    }
    assert_eq!(failed, 0, "a flexible route must fail over");
}
