//! Routes that are created over the API, used, and deleted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use exitgate_bench_shared::http;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::outcomes::End;
use crate::setup::{Geo, Setup};

/// Routes that exist at the same time.
const FEW: usize = 5;
/// How long one request through a new route may take.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long after DELETE a port may still answer.
const CLOSED: Duration = Duration::from_secs(2);

/// Creates some routes, uses each, deletes them, and begins again.
pub async fn come_and_go(setup: Arc<Setup>, until: tokio::time::Instant) {
    while tokio::time::Instant::now() < until {
        let since = Instant::now();
        let end = match timeout(2 * PATIENCE, round(&setup)).await {
            Ok(Ok(())) => (End::Good, String::new()),
            Ok(Err(error)) => (End::Failed, format!("{error:#}")),
            Err(_) => (End::Hung, "no answer".into()),
        };
        setup.outcomes.ended("new routes", since, end.0, || end.1);
        sleep(Duration::from_secs(1)).await;
    }
}

async fn round(setup: &Setup) -> anyhow::Result<()> {
    let mut made = Vec::new();
    let used = async {
        for number in 0..FEW {
            let (geo, category) = [(Geo::Us, "US"), (Geo::NonUs, "NON_US"), (Geo::Any, "ANY")][number % 3];
            let order = json!({ "geo_category": category });
            let created = setup.gateway.ask("POST", "/proxies", Some(&order)).await?;
            ensure!(created.status == 201, "POST /proxies gives {} {}", created.status, created.text());
            let port = created.json()["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
            made.push(port);
            let url = setup.bed.web.http("echo.test", "/ip");
            let answer = timeout(PATIENCE, http::get_through(setup.gateway.port(port), "", &url)).await??;
            ensure!(answer.status == 200, "the first request of a new route gives {}", answer.status);
            let seen: IpAddr = answer.text().trim().parse()?;
            if !setup.allowed(geo).contains(&seen) {
                setup.outcomes.wrong(format!("a route of {category} was seen at {seen}"));
            }
        }
        anyhow::Ok(())
    }
    .await;
    for port in made {
        let deleted = setup.gateway.ask("DELETE", &format!("/proxies/{port}"), None).await?;
        ensure!(deleted.status == 202, "DELETE gives {} {}", deleted.status, deleted.text());
        let deadline = Instant::now() + CLOSED;
        while TcpStream::connect(setup.gateway.port(port)).await.is_ok() {
            ensure!(Instant::now() < deadline, "the port of a deleted route still accepts connections");
            sleep(Duration::from_millis(20)).await;
        }
    }
    used
}
