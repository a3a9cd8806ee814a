//! Opens the streams over which lists of exits are fetched: directly, or through a Tor exit if this machine must connect
//! to nothing but Tor.
//!
//! A user of bridges hides from their network that they use Tor. A request for a list of Tor relays from this machine's
//! own address would reveal the use of Tor. So [`Rules::only_tor`] is read again before each stream is opened, because
//! a reload may have changed it.

use rand::Rng;
use tokio::time::Instant;

use super::fetch::{Connect, Direct};
use crate::dial::tor::{Options, Way};
use crate::dial::{self, DialError, EngineFault, TargetFault};
use crate::limit::target::Rules;
use crate::net::Target;
use crate::route::{self, Isolation};
use crate::state::State;
use crate::tor::{BuildClass, Tor};

/// The isolation key of the streams to the servers of lists. These streams share circuits with one another, but not
/// with streams of clients or checks.
const SOURCES: Isolation = Isolation(u64::from_be_bytes(*b"exitlist"));

/// The number of relays in a circuit: as many as a route has by default.
const HOPS: u8 = 3;

/// Opens streams to the servers of lists.
#[derive(Clone)]
pub struct Outward {
    /// Which addresses are allowed, and whether this machine may connect to them itself.
    pub rules: Rules,
    /// The Tor engines. `None` if Tor is switched off.
    pub tor: Option<Tor>,
    pub state: State,
}

impl Outward {
    /// Returns the way (exit and kind of circuit) for one stream. The exit is drawn at random from those that passed
    /// their check. `None` if there is no such exit.
    fn way(&self, port: u16, rng: &mut impl Rng) -> Option<Way> {
        let exit = route::any_carrier(&self.state.load().catalog, port, rng)?;
        Some(Way { exit, hops: HOPS, isolation: SOURCES, class: BuildClass::Live, own: None })
    }
}

impl Connect for Outward {
    type Stream = dial::Stream;

    async fn connect(&self, target: &Target, deadline: Instant) -> Result<dial::Stream, DialError> {
        if !self.rules.only_tor() {
            return Direct::new(self.rules.clone()).connect(target, deadline).await;
        }
        self.rules.target(target).map_err(|_| TargetFault::Forbidden)?;
        let tor = self.tor.as_ref().ok_or(EngineFault::NotReady)?;
        let way = self.way(target.port, &mut rand::rng()).ok_or(EngineFault::NotReady)?;
        let (stream, _) = dial::tor::dial(tor, way, target, Options::default(), deadline).await?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::target::{OnlyTor, Own, Ports};
    use crate::route::memory::{Bounds, Memory};
    use crate::route::{Policy, Words};
    use crate::state::{Clock, Snapshot};

    #[tokio::test]
    async fn with_only_tor_no_socket_is_opened_from_here() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(server.local_addr().unwrap());
        let only_tor = OnlyTor::default();
        let rules = Rules::new(Ports::default(), true, Own::new()).with_only_tor(only_tor.clone());
        let snapshot = Snapshot::new(Words::default(), Policy::default());
        let (state, _wished) = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None);
        let outward = Outward { rules, tor: None, state };
        let soon = || Instant::now() + Duration::from_secs(20);
        outward.connect(&target, soon()).await.unwrap();
        server.accept().await.unwrap();
        only_tor.set(true);
        let refused = outward.connect(&target, soon()).await.unwrap_err();
        assert_eq!(refused, EngineFault::NotReady.into(), "it waits for an engine");
        only_tor.set(false);
        outward.connect(&target, soon()).await.unwrap();
        let (_, from) = server.accept().await.unwrap();
        assert!(from.ip().is_loopback(), "the refused one has left no connection before this one");
    }
}
