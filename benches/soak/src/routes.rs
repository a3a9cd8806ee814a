//! Routes that are made by the API, used, and ended again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::speak;
use crate::tally::End;
use crate::world::{Geo, World};

/// Routes alive at once.
const FEW: usize = 5;
/// What one request through a new route may take.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long after DELETE a port may still answer.
const CLOSED: Duration = Duration::from_secs(2);

/// Makes some, uses each, ends them, over and over.
pub async fn come_and_go(world: Arc<World>, until: tokio::time::Instant) {
    while tokio::time::Instant::now() < until {
        let since = Instant::now();
        let end = match timeout(2 * PATIENCE, round(&world)).await {
            Ok(Ok(())) => (End::Good, String::new()),
            Ok(Err(error)) => (End::Failed, format!("{error:#}")),
            Err(_) => (End::Hung, "no end".into()),
        };
        world.tally.ended("new routes", since, end.0, || end.1);
        sleep(Duration::from_secs(1)).await;
    }
}

async fn round(world: &World) -> anyhow::Result<()> {
    let mut made = Vec::new();
    let used = async {
        for number in 0..FEW {
            let (geo, category) = [(Geo::Us, "US"), (Geo::NonUs, "NON_US"), (Geo::Any, "ANY")][number % 3];
            let (status, answer) =
                world.gateway.api("POST", "/proxies", Some(&json!({ "geo_category": category }))).await?;
            ensure!(status == 201, "POST /proxies gives {status} {answer}");
            let port = answer["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
            made.push(port);
            let url = world.bed.web.http("echo.test", "/ip");
            let (head, body) = timeout(PATIENCE, speak::get_through(world.gateway.port(port), "", &url)).await??;
            ensure!(head.status == 200, "a new route's first request gives {}", head.status);
            let seen: IpAddr = String::from_utf8_lossy(&body).trim().parse()?;
            if !world.allowed(geo).contains(&seen) {
                world.tally.wrong(format!("a route of {category} was seen at {seen}"));
            }
        }
        anyhow::Ok(())
    }
    .await;
    for port in made {
        let (status, answer) = world.gateway.api("DELETE", &format!("/proxies/{port}"), None).await?;
        ensure!(status == 202, "DELETE gives {status} {answer}");
        let deadline = Instant::now() + CLOSED;
        while TcpStream::connect(world.gateway.port(port)).await.is_ok() {
            ensure!(Instant::now() < deadline, "the port of an ended route still answers");
            sleep(Duration::from_millis(20)).await;
        }
    }
    used
}
