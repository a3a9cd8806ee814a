//! Opens the streams of checks through exits of one's own.

use tokio::time::Instant;

use super::{ExitDialer, OpenedStream, Wait};
use crate::dial::public::Times;
use crate::dial::{DialError, EngineFault, ExitFault, Stream, upstream};
use crate::exit::ExitId;
use crate::limit::target::Rules;
use crate::net::Target;
use crate::state::State;

/// Opens streams through the proxies of upstream sources.
#[derive(Clone)]
pub struct UpstreamDialer {
    /// The state, whose catalog says where each proxy is.
    pub state: State,
    /// Which addresses a proxy may have.
    pub rules: Rules,
    /// How long each stage of the connection to a proxy may take.
    pub times: Times,
}

impl ExitDialer for UpstreamDialer {
    type Stream = Stream;

    async fn open(&self, exit: &ExitId, target: &Target, wait: Wait) -> Result<OpenedStream<Stream>, DialError> {
        let proxy = self.state.load().catalog.get(exit).and_then(|exit| exit.listing().upstream.clone());
        let proxy = proxy.ok_or(EngineFault::NotReady)?;
        let begun = Instant::now();
        let opened = upstream::tunnel(&proxy, target, &self.rules, self.times, begun + wait.timeout).await?;
        // A server that checks use never speaks first, so these bytes are the proxy's own.
        if !opened.first.is_empty() {
            return Err(ExitFault::Refused.into());
        }
        Ok(OpenedStream { stream: opened.stream, circuit: None, connect: begun.elapsed() })
    }

    /// The outage rule (`check/outage.rs`) detects that all proxies fail together, so this dialer need not.
    fn first_hop_answered(&self, _: Instant) -> bool {
        true
    }
}
