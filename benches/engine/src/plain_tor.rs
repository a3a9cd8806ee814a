//! tor without exitgate: a plain client, and a controller that does only what is needed to send a stream over a chosen path.

use anyhow::Context as _;
use exitgate_testnet::{Client, ClientOptions, Control, Relay, Testbed, Wait, fetch};
use tokio::net::TcpStream;

/// A tor client that leaves its streams to a controller, and that controller.
pub struct Controller {
    pub client: Client,
    commands: Control,
    events: Control,
}

impl Controller {
    pub async fn start(bed: &Testbed, name: &str) -> anyhow::Result<Self> {
        let lines = ["__LeaveStreamsUnattached 1", "__DisablePredictedCircuits 1", "ConfluxEnabled 0"];
        let lines = lines.map(str::to_owned).to_vec();
        let client = bed.network.client_with(name, ClientOptions { lines, wait: Wait::Directory, seed: None }).await?;
        let (commands, mut events) = (client.control().await?, client.control().await?);
        events.command("SETEVENTS CIRC STREAM").await?;
        Ok(Self { client, commands, events })
    }

    /// Builds a circuit over this path and returns its id.
    pub async fn extend(&mut self, path: &[String]) -> anyhow::Result<String> {
        let hops: Vec<_> = path.iter().map(|relay| format!("${relay}")).collect();
        let answer = self.commands.command(&format!("EXTENDCIRCUIT 0 {} purpose=controller", hops.join(","))).await?;
        let id = answer[0].strip_prefix("EXTENDED ").context("tor did not answer EXTENDED")?.to_owned();
        self.wait_for(&format!("CIRC {id} BUILT")).await?;
        Ok(id)
    }

    /// Opens a stream on this circuit.
    pub async fn open(&mut self, circuit: &str, host: &str, port: u16) -> anyhow::Result<TcpStream> {
        let socks = fetch::socks5(self.client.socks(), None, host, port);
        let attach = async {
            let event = self.wait_for("STREAM ").await?;
            let id = event.split(' ').nth(1).context("the event has no id")?;
            self.commands.command(&format!("ATTACHSTREAM {id} {circuit}")).await
        };
        let (stream, _) = tokio::try_join!(socks, attach)?;
        Ok(stream)
    }

    /// Waits for an event that begins with `what`. Of stream events only those of new streams count.
    async fn wait_for(&mut self, what: &str) -> anyhow::Result<String> {
        loop {
            let event = self.events.event().await?;
            let is_new = !event.starts_with("STREAM ") || event.split(' ').nth(2) == Some("NEW");
            anyhow::ensure!(!event.starts_with("CIRC ") || !event.contains(" FAILED "), "{event}");
            if event.starts_with(what) && is_new {
                return Ok(event);
            }
        }
    }
}

/// Starts a tor client that builds its circuits through these relays only. `path`: guard and middle, where they matter.
pub async fn pinned(bed: &Testbed, name: &str, path: [Option<&str>; 2], exit: &Relay) -> anyhow::Result<Client> {
    let mut lines = vec![format!("ExitNodes ${}", exit.fingerprint), "StrictNodes 1".to_owned()];
    for (option, relay) in ["EntryNodes", "MiddleNodes"].into_iter().zip(path) {
        lines.extend(relay.map(|relay| format!("{option} ${relay}")));
    }
    lines.push("ConfluxEnabled 0".to_owned());
    bed.network.client_with(name, ClientOptions { lines, ..ClientOptions::default() }).await
}
