//! Everything that most tests need, with one call.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::dns::Dns;
use crate::layout::Options;
use crate::network::Network;
use crate::onionoo::Onionoo;
use crate::public::{Mix, PublicProxies};
use crate::sandbox::Sandbox;
use crate::web::Web;

/// A private Tor network whose exits reach a fake web by name, and an Onionoo that knows it.
#[derive(Debug)]
pub struct Testbed {
    pub web: Web,
    /// The name server that the exits ask.
    pub dns: Dns,
    /// The source that describes the network's relays.
    pub onionoo: Onionoo,
    pub network: Network,
    /// The addresses and the folder that all parts share.
    pub sandbox: Arc<Sandbox>,
}

static SHARED: OnceCell<Testbed> = OnceCell::const_new();

impl Testbed {
    /// Starts everything with the default network.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts everything with a network of this shape.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let sandbox = Sandbox::claim()?;
        let (web, dns) = (Web::start(&sandbox).await?, Dns::start(&sandbox).await?);
        let network = Network::start_on(&sandbox, options).await?;
        let onionoo = Onionoo::start(&sandbox, network.relays()).await?;
        Ok(Self { web, dns, onionoo, network, sandbox })
    }

    /// Configuration lines that any gateway on this network needs: how its engines join, the file of countries, and the servers that its tester
    /// asks. The keys are dotted, so that other lines may come before and after them.
    pub fn gateway_lines(&self) -> String {
        format!(
            r#"tor.extra = {extra:?}
tor.geoip_file = {geoip:?}
check.echo = [{echo:?}, {second:?}]
check.canary = [{canary:?}, {other:?}]
check.ca_file = {ca:?}"#,
            extra = self.network.client_torrc_lines(),
            geoip = self.network.geoip_file(),
            echo = self.web.https("echo.test", "/ip"),
            second = self.web.http("ip.test", "/ip.json"),
            canary = self.web.http("echo.test", "/bytes/64"),
            other = self.web.http("ip.test", "/bytes/64"),
            ca = self.web.ca_pem(),
        )
    }

    /// Starts public proxies in addition.
    pub async fn public_proxies(&self, mix: &Mix) -> anyhow::Result<PublicProxies> {
        PublicProxies::start(&self.sandbox, &self.dns, &self.web, mix).await
    }

    /// The testbed that all tests of this process share. The first caller starts it, and it ends with the process. A test that stops relays
    /// or changes what others see must start its own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(|| async { Self::start().await.expect("the testbed starts") }).await
    }
}
