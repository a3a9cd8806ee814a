//! Opens streams from this machine's own addresses, for the tester.

use tokio::time::Instant;

use super::{ExitDialer, OpenedStream, Wait};
use crate::dial::{DialError, EngineFault, ExitFault, Stream, direct};
use crate::exit::ExitId;
use crate::limit::target::Rules;
use crate::net::Target;

/// Dials from own addresses. The field has the rules for the addresses of the pages that checks request.
#[derive(Clone)]
pub struct OwnAddressDialer(pub Rules);

impl ExitDialer for OwnAddressDialer {
    type Stream = Stream;

    async fn open(&self, exit: &ExitId, target: &Target, wait: Wait) -> Result<OpenedStream<Stream>, DialError> {
        let ExitId::Own(ip) = exit else { return Err(ExitFault::Unknown.into()) };
        // With bridges, exitgate connects to nothing but Tor. This is no fault of the address.
        if self.0.only_tor() {
            return Err(EngineFault::NotReady.into());
        }
        let begun = Instant::now();
        let stream = direct::dial(target, &self.0, Some(*ip), begun + wait.timeout).await?;
        Ok(OpenedStream { stream, circuit: None, connect: begun.elapsed() })
    }

    /// Between this machine and its own address is nothing that could be down.
    fn first_hop_answered(&self, _: Instant) -> bool {
        true
    }
}
