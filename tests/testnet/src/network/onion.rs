//! An onion service in the network, in front of any address.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;

use super::{Client, ClientOptions, Network, Wait};
use crate::control::Control;

/// How long a service may take to publish its descriptor: a few seconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running onion service; dropping this ends it.
#[derive(Debug)]
pub struct Onion {
    /// Its address, `….onion`.
    pub host: String,
    /// The tor process that serves it.
    pub client: Client,
}

impl Network {
    /// Starts an onion service that relays port 80 to `target`, and waits until clients can find it.
    pub async fn onion(&self, name: &str, target: SocketAddr) -> anyhow::Result<Onion> {
        let lines = vec![
            format!("HiddenServiceDir {}", self.state.home(&format!("client-{name}")).join("service").display()),
            format!("HiddenServicePort 80 {target}"),
            "SocksPort 0".into(),
        ];
        let options = ClientOptions { lines, wait: Wait::Started, seed: None };
        let client = self.client_with(name, options).await?;
        let host = fs::read_to_string(client.folder().join("service/hostname"))?.trim().to_owned();
        let published = timeout(DEADLINE, published(client.control().await?)).await;
        published.with_context(|| format!("{name} is not published: {}", client.log()))??;
        Ok(Onion { host, client })
    }
}

/// Waits until every directory to which the descriptor was uploaded has stored it.
async fn published(mut control: Control) -> anyhow::Result<()> {
    control.command("SETEVENTS HS_DESC").await?;
    let (mut sent, mut stored) = (0, 0);
    while sent == 0 || stored < sent {
        match control.event().await?.split(' ').nth(1) {
            Some("UPLOAD") => sent += 1,
            Some("UPLOADED") => stored += 1,
            _ => {}
        }
    }
    Ok(())
}
