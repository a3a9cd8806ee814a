//! Opens streams through Tor exits: gets a circuit to the exit, and opens a stream on that circuit.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{ExitDialer, OpenedStream, Wait};
use crate::dial::tor::{Options, Way, dial};
use crate::dial::{DialError, EngineFault, ExitFault, Stream};
use crate::exit::ExitId;
use crate::net::Target;
use crate::route::Isolation;
use crate::tor::path::{IpVersion, Port};
use crate::tor::{BuildClass, LeaseFault, Tor};

/// The isolation of checks: checks share circuits with one another, and with no client, because otherwise the servers
/// that checks use could link a client to the checks.
const CHECKS: Isolation = Isolation(u64::from_be_bytes(*b"exitgate"));

/// The number of relays in a circuit: as many as a route has by default, because the measured latency must be the
/// latency of a client.
const HOPS: u8 = 3;

/// How long a check waits for its circuit. Not tuned: while circuits are slow, a longer wait would only make the queue
/// longer.
const QUEUE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct TorExitDialer(pub Tor);

impl ExitDialer for TorExitDialer {
    type Stream = Stream;

    fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.changes())
    }

    async fn open(&self, exit: &ExitId, target: &Target, wait: Wait) -> Result<OpenedStream<Stream>, DialError> {
        let ExitId::Tor(relay) = exit else { return Err(ExitFault::Unknown.into()) };
        // A client that waits for this check waits for its circuit too.
        let class = if wait.awaited { BuildClass::Live } else { BuildClass::Check };
        let way = Way { exit: *relay, hops: HOPS, isolation: CHECKS, class, own: None };
        let begun = Instant::now();
        // The wait for the circuit is measured separately from the stream, because a queue in our engines must not look
        // like a slow exit. The lease (the right to use the circuit) is held until the stream has a lease of its own,
        // because a circuit without leases may be closed.
        let port = Port { number: target.port, over: IpVersion::V4 };
        let lease = self.0.lease(way, Some(port), None, begun + QUEUE).await.map_err(|fault| match fault {
            LeaseFault::Deadline => EngineFault::NotReady.into(),
            other => DialError::from(other),
        })?;
        let circuit = begun.elapsed();
        let (stream, facts) = dial(&self.0, way, target, Options::default(), Instant::now() + wait.timeout).await?;
        drop(lease);
        Ok(OpenedStream { stream, circuit: Some(circuit), connect: facts.timings.connect() })
    }

    fn first_hop_answered(&self, since: Instant) -> bool {
        self.0.first_hop_answered(since)
    }
}
