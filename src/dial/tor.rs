//! Opens a stream through Tor that leaves at a given exit.
//!
//! The gateway takes three steps to open one stream:
//!
//! 1. The pool of circuits returns a lease on a circuit to the exit, either immediately or after the build of a
//!    circuit.
//! 2. The dial writes greeting, username and request to the engine's SOCKS port in one write, and reads one reply.
//! 3. On the engine's control connection the new stream appears under the username that we generated for the stream.
//!    [`crate::tor`] then attaches the stream to the leased circuit.
//!
//! The reason of a failure comes over the control connection only. SOCKS has eight error codes, and tor uses one of
//! these codes for half of all failures.
//!
//! If a circuit dies or hangs before the target answered, this says nothing about the exit. The dial then tries another
//! circuit to the same exit. If there is another engine, that engine is used, because the guard of the first engine may
//! be what hangs. A dial never tries another exit: only its caller chooses exits.
//!
//! If an answer takes long, the dial finds out who is silent: the target, the exit, or a relay before the exit
//! (`dial/tor/silence.rs`). This costs nothing for a dial that gets its answer soon.
//!
//! Next: [`crate::tor`] lends circuits, `dial/tor/request.rs` sends a request on one circuit, `dial/tor/socks.rs`
//! implements the SOCKS protocol, `dial/tor/fault.rs` maps failures.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout_at};

use super::{DialError, EngineFault, ExitFault, Stream, TargetFault};
use crate::exit::Fingerprint;
use crate::net::{Host, Target};
use crate::tor::event::CircuitId;
use crate::tor::path::{IpVersion, Port};
use crate::tor::{EngineId, Tor};

mod fault;
mod request;
mod silence;
mod socks;
#[cfg(test)]
mod tests;

pub use crate::tor::{BuildClass, Caller, Way};
use request::{connect, lost, read_reply, send};
use silence::Limits;
use socks::{Answer, Ask};

/// The number of circuits to one exit that a dial tries before the failure counts as a fault of the exit.
const CIRCUITS: usize = 3;

/// An exit that is silent on this many circuits counts as hung.
const SILENT_CIRCUITS: usize = 2;

/// Options of one dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// True if the route allows targets over IPv6.
    pub ipv6: bool,
    /// Data that is sent directly after the request and reaches the target one round trip sooner. If the dial fails,
    /// the target may have received the data nevertheless. So the data must be safe to send several times.
    pub early: &'a [u8],
    /// How long the exit and the target may take on one circuit. The wait for the circuit is not counted. `None` if they
    /// may take until the deadline of the dial.
    pub answer: Option<Duration>,
    /// When the dial stops waiting for its first circuit. `None` if it waits until the deadline of the dial.
    pub circuit_by: Option<Instant>,
    /// Is set to the time at which the dial got its first circuit. A failure before that time is no fault of the exit.
    pub leased: Option<&'a OnceLock<Instant>>,
}

/// Details about how a stream was opened, for logs and metrics.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads the fields"))]
pub struct Facts {
    /// The engine that carries the stream.
    pub engine: EngineId,
    /// The circuit that carries the stream. `None` for an onion service, because tor chooses those circuits itself.
    pub circuit: Option<CircuitId>,
    /// The relays of the circuit from guard to exit. Empty for an onion service.
    pub path: Arc<[Fingerprint]>,
    pub timings: Timings,
}

/// The time of each step of the attempt that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// When the dial began.
    pub started: Instant,
    /// When the pool returned a circuit.
    pub leased: Instant,
    /// When the SOCKS request was written.
    pub sent: Instant,
    /// When tor's event about the new stream was read. `None` if the event was not read.
    pub seen: Option<Instant>,
    /// When tor answered the command ATTACHSTREAM. `None` if that answer was not read.
    pub attached: Option<Instant>,
    /// When the SOCKS reply was read.
    pub replied: Instant,
}

impl Timings {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, leased: now, sent: now, seen: None, attached: None, replied: now }
    }

    /// The time that the gateway itself needed: from the lease of the circuit to the written SOCKS request.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn before(&self) -> Duration {
        self.sent.saturating_duration_since(self.leased)
    }

    /// The time that the dial waited for a circuit.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn circuit_wait(&self) -> Duration {
        self.leased.saturating_duration_since(self.started)
    }

    /// The time from tor's event about the new stream to tor's answer that the stream is attached. `None` if one of the
    /// two was not read.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn attach(&self) -> Option<Duration> {
        Some(self.attached?.saturating_duration_since(self.seen?))
    }

    /// The time from the SOCKS request to the reply, which is spent in tor, in the circuit and at the target.
    pub fn connect(&self) -> Duration {
        self.replied.saturating_duration_since(self.sent)
    }
}

/// Opens a stream to a target. The stream leaves the Tor network at the relay `way.exit`.
pub async fn dial(
    tor: &Tor,
    way: Way,
    target: &Target,
    options: Options<'_>,
    deadline: Instant,
) -> Result<(Stream, Facts), DialError> {
    let over = match target.host {
        Host::Ip(IpAddr::V6(_)) if !options.ipv6 => return Err(TargetFault::Unreachable.into()),
        Host::Ip(IpAddr::V6(_)) => IpVersion::V6,
        Host::Name(_) if options.ipv6 => IpVersion::Either,
        Host::Ip(IpAddr::V4(_)) | Host::Name(_) => IpVersion::V4,
    };
    let port = Port { number: target.port, over };
    let (stream, _, facts) = ask(tor, way, Some(port), Ask::Connect(target), options, deadline).await?;
    Ok((stream, facts))
}

/// Opens a stream to an onion service. tor chooses the circuits. Only streams with the same isolation key share
/// circuits.
pub async fn onion(
    tor: &Tor,
    who: Caller,
    target: &Target,
    early: &[u8],
    deadline: Instant,
) -> Result<(Stream, Facts), DialError> {
    let mut timings = Timings::start();
    let port = tor.onion(who, deadline).await?;
    timings.leased = Instant::now();
    let work = async {
        let mut stream = connect(&port.addr).await?;
        stream.write_all(&socks::request(&port.username, &Ask::Connect(target), early)).await.map_err(lost)?;
        timings.sent = Instant::now();
        match read_reply(&mut stream).await {
            Ok(Answer::Yes(_)) => Ok(stream),
            Ok(Answer::No(code)) => Err(fault::of_onion(code)),
            Err(why) => Err(why),
        }
    };
    let stream = timeout_at(deadline, work).await.unwrap_or(Err(DialError::Deadline))?;
    timings.replied = Instant::now();
    Ok((stream, Facts { engine: port.engine, circuit: None, path: Arc::new([]), timings }))
}

/// Resolves a host name at the exit. Returns an IPv4 address if the name has one.
pub async fn resolve(tor: &Tor, way: Way, name: &Host, deadline: Instant) -> Result<IpAddr, DialError> {
    if let Host::Ip(ip) = name {
        return Ok(*ip);
    }
    match ask(tor, way, None, Ask::Resolve(name), Options::default(), deadline).await?.1 {
        Host::Ip(ip) => Ok(ip),
        Host::Name(_) => Err(EngineFault::Protocol.into()),
    }
}

/// Looks up the host name of an address (reverse DNS) at the exit.
pub async fn resolve_ptr(tor: &Tor, way: Way, addr: IpAddr, deadline: Instant) -> Result<Host, DialError> {
    Ok(ask(tor, way, None, Ask::ResolvePtr(addr), Options::default(), deadline).await?.1)
}

/// Sends one request. If a circuit fails, the request is repeated on another circuit, on at most [`CIRCUITS`] circuits.
async fn ask(
    tor: &Tor,
    way: Way,
    port: Option<Port>,
    what: Ask<'_>,
    options: Options<'_>,
    deadline: Instant,
) -> Result<(Stream, Host, Facts), DialError> {
    let mut timings = Timings::start();
    let mut circuit_by = options.circuit_by.unwrap_or(deadline).min(deadline);
    let (mut last, mut failed, mut silent) = (None, None, 0);
    for _ in 0..CIRCUITS {
        let lease = match tor.lease(way, port, failed, circuit_by).await {
            Ok(lease) => lease,
            Err(fault) => return Err(silence::without_another_circuit(last, fault.into())),
        };
        failed = Some(lease.engine());
        timings.leased = Instant::now();
        if let Some(leased) = options.leased {
            leased.get_or_init(|| timings.leased);
        }
        let answer = options.answer.unwrap_or_else(|| deadline.saturating_duration_since(timings.leased));
        let limits = Limits::new(timings.leased, answer, deadline);
        let mut facts =
            Facts { engine: lease.engine(), circuit: Some(lease.circuit()), path: lease.path().clone(), timings };
        circuit_by = deadline;
        let Ok(expected) = lease.expect(options.ipv6) else {
            last = Some(EngineFault::Lost.into());
            continue;
        };
        match send(expected, &what, options.early, limits, &mut facts.timings).await {
            Ok((stream, host)) => return Ok((stream, host, facts)),
            Err(why) if !another_circuit_may_help(why) => return Err(why),
            Err(hung @ DialError::Exit(ExitFault::Hung)) => {
                silent += 1;
                if silent == SILENT_CIRCUITS {
                    return Err(hung);
                }
                // The exit of the failed circuit may hang. So the dial waits only half of the time for another circuit
                // to this exit: the caller needs the rest of the time for a dial through another exit.
                circuit_by = deadline.min(Instant::now() + answer / 2);
                last = Some(hung);
            }
            Err(why) => last = Some(why),
        }
    }
    Err(last.unwrap_or(DialError::Deadline))
}

/// Returns true if the request may succeed on another circuit to the same exit: over other relays, or on another engine
/// with another guard.
fn another_circuit_may_help(why: DialError) -> bool {
    matches!(
        why,
        DialError::Exit(ExitFault::Died | ExitFault::Hung)
            | DialError::Engine(EngineFault::Lost | EngineFault::FirstHop | EngineFault::Middle)
    )
}
