//! The real way: a circuit to the exit, and a stream on it.

use std::time::Duration;

use tokio::time::Instant;

use super::{ExitDialer, OpenedStream};
use crate::dial::tor::{Options, Way, dial};
use crate::dial::{DialError, EngineFault, ExitFault, Stream};
use crate::exit::ExitId;
use crate::net::Target;
use crate::route::Isolation;
use crate::tor::path::{IpVersion, Port};
use crate::tor::{LeaseFault, Tor};

/// Checks share circuits with one another and with nobody else: the servers that they ask would link whoever did.
const CHECKS: Isolation = Isolation(u64::from_be_bytes(*b"exitgate"));

/// As many relays as a route has by default: what is timed must be what a client will get.
const HOPS: u8 = 3;

/// How long a circuit is waited for. Arbitrary: three minutes of everybody's guards would be worse than a check less.
const QUEUE: Duration = Duration::from_secs(60);

/// Opens streams through Tor exits.
#[derive(Clone)]
pub struct TorExitDialer(pub Tor);

impl ExitDialer for TorExitDialer {
    type Stream = Stream;

    async fn open(&self, exit: &ExitId, target: &Target, timeout: Duration) -> Result<OpenedStream<Stream>, DialError> {
        let ExitId::Tor(relay) = exit else { return Err(ExitFault::Unknown.into()) };
        let way = Way { exit: *relay, hops: HOPS, isolation: CHECKS, own: None };
        let begun = Instant::now();
        // The circuit is waited for apart, because a queue in our engines must not look like a slow exit. Its lease is
        // held until the stream has its own, so that it cannot be closed for lack of use.
        let port = Port { number: target.port, over: IpVersion::V4 };
        let lease = self.0.lease(way, Some(port), None, begun + QUEUE).await.map_err(|fault| match fault {
            LeaseFault::Deadline => EngineFault::NotReady.into(),
            other => DialError::from(other),
        })?;
        let circuit = begun.elapsed();
        let (stream, facts) = dial(&self.0, way, target, Options::default(), Instant::now() + timeout).await?;
        drop(lease);
        Ok(OpenedStream { stream, circuit: Some(circuit), connect: facts.timings.connect() })
    }
}
