//! Everything that most tests want, with one call.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::dns::Dns;
use crate::ground::Ground;
use crate::layout::Options;
use crate::network::Network;
use crate::onionoo::Onionoo;
use crate::public::{Mix, PublicProxies};
use crate::web::Web;

/// A private Tor network whose exits reach a fake web by name, and an Onionoo that knows it.
#[derive(Debug)]
pub struct Testbed {
    /// The fake web.
    pub web: Web,
    /// The name server of the exits.
    pub dns: Dns,
    /// What the outside world says about the network's relays.
    pub onionoo: Onionoo,
    /// The network.
    pub network: Network,
    /// The addresses and the folder of all of them.
    pub ground: Arc<Ground>,
}

static SHARED: OnceCell<Testbed> = OnceCell::const_new();

impl Testbed {
    /// Starts everything with the default network.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts everything with a network of one's own.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let ground = Ground::claim()?;
        let (web, dns) = (Web::start(&ground).await?, Dns::start(&ground).await?);
        let network = Network::start_on(&ground, options).await?;
        let onionoo = Onionoo::start(&ground, network.relays()).await?;
        Ok(Self { web, dns, onionoo, network, ground })
    }

    /// What the configuration of any gateway on this network needs: how its engines join, where countries are, and what
    /// its tester asks. Dotted keys, so that more may stand before and behind them.
    pub fn gateway_lines(&self) -> String {
        format!(
            r#"tor.extra = {extra:?}
tor.geoip_file = {geoip:?}
check.echo = [{echo:?}, {second:?}]
check.canary = [{canary:?}]
check.ca_file = {ca:?}"#,
            extra = self.network.client_torrc_lines(),
            geoip = self.network.geoip_file(),
            echo = self.web.https("echo.test", "/ip"),
            second = self.web.http("ip.test", "/ip.json"),
            canary = self.web.http("echo.test", "/bytes/64"),
            ca = self.web.ca_pem(),
        )
    }

    /// Starts public proxies beside the network.
    pub async fn public_proxies(&self, mix: &Mix) -> anyhow::Result<PublicProxies> {
        PublicProxies::start(&self.ground, &self.dns, &self.web, mix).await
    }

    /// The testbed of this process, started by whoever asks first. It ends with the process, so a test that stops relays or
    /// changes what others see starts its own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(|| async { Self::start().await.expect("the testbed starts") }).await
    }
}
