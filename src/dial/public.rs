//! Through a public proxy, whoever runs it.
//!
//! Three languages and one attitude: the peer is a stranger. It gets one connection and one request, its answer is read
//! in pieces of a known size (a head of HTTP up to [`http::LONGEST_HEAD`]) against a deadline, and what it says about a
//! target is hearsay: a free proxy that answers "host unreachable" may be out of order itself, so another exit is asked
//! and nobody is blamed ([`ExitFault::Unclear`]). Names are resolved at the far end.
//!
//! A proxy that refuses to open tunnels may still forward plain HTTP: then the stream ends at the proxy ([`connect`]), and
//! whoever speaks HTTP over it writes its requests for a proxy.
//!
//! Next: `dial/public/http.rs` and `dial/public/socks.rs` are the languages, without I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::{DialError, EngineFault, ExitFault, Stream, TargetFault, direct, tor};
use crate::exit::{Login, Protocol, PublicId};
use crate::limit::target::Rules;
use crate::net::{Host, Target};
use crate::tor::Tor;

mod http;
mod socks;

pub use http::authorization;

/// How long a name of a target may take to be looked up before it is let pass. Arbitrary: a resolver that is slower
/// than this is no witness.
const LOOK_UP: Duration = Duration::from_secs(2);

/// How a proxy is reached.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// From this machine's own address.
    Direct,
    /// Through this Tor exit: the proxy learns the exit's address and not ours.
    Tor(&'a Tor, tor::Way),
}

/// How long the stages may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The connection to the proxy.
    pub connect: Duration,
    /// The proxy's answer to what it is asked for, all of it.
    pub reply: Duration,
}

/// A proxy, and how to get there.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Which one.
    pub id: &'a PublicId,
    /// What it wants to hear before it serves.
    pub login: Option<&'a Login>,
    /// The way to it.
    pub reach: Reach<'a>,
    /// How long it may take.
    pub times: Times,
    /// Where proxies may stand.
    pub rules: &'a Rules,
    /// Names of targets are looked up here as well, and those that lead into inner networks refused; not so the pages
    /// of our own tester.
    pub judge_names: bool,
}

/// A stream that ends at its target.
#[derive(Debug)]
pub struct Opened {
    /// The stream.
    pub stream: Stream,
    /// What came behind the proxy's answer: the target's first bytes.
    pub first: Vec<u8>,
}

/// Opens a tunnel to the target.
pub async fn tunnel(way: Way<'_>, target: &Target, by: Instant) -> Result<Opened, DialError> {
    let (mut stream, ()) = tokio::try_join!(connect(way, by), judge(way, target, by))?;
    let until = by.min(Instant::now() + way.times.reply);
    let first = timeout_at(until, ask(&mut stream, way, target)).await.unwrap_or(Err(ExitFault::Hung.into()))?;
    Ok(Opened { stream, first })
}

/// Opens a stream to the proxy itself, for a request of plain HTTP to `target` that it is to forward.
pub async fn forward(way: Way<'_>, target: &Target, by: Instant) -> Result<Stream, DialError> {
    let (stream, ()) = tokio::try_join!(connect(way, by), judge(way, target, by))?;
    Ok(stream)
}

/// Opens a stream to the proxy.
async fn connect(way: Way<'_>, by: Instant) -> Result<Stream, DialError> {
    way.rules.peer(way.id.addr).map_err(|_| ExitFault::Refused)?;
    let until = by.min(Instant::now() + way.times.connect);
    match way.reach {
        Reach::Direct => {
            let connected = timeout_at(until, direct::connect(way.id.addr)).await;
            match connected.unwrap_or(Err(TargetFault::Timeout.into())) {
                Err(DialError::Target(_)) => Err(ExitFault::Unreachable.into()),
                other => other,
            }
        }
        Reach::Tor(tor, by_tor) => {
            // A circuit may have to be built first: that is not the proxy's time.
            let target = Target::from(way.id.addr);
            match tor::dial(tor, by_tor, &target, tor::Options::default(), by).await {
                Ok((stream, _)) => Ok(stream),
                Err(DialError::Target(_)) => Err(ExitFault::Unreachable.into()),
                Err(DialError::Exit(_)) => Err(ExitFault::Unclear.into()),
                Err(other) => Err(other),
            }
        }
    }
}

/// Refuses a target that is, by its name's addresses as they are seen from here, in an inner network. The proxy may see
/// others: this keeps an honest proxy's network from harm, and is no wall.
async fn judge(way: Way<'_>, target: &Target, by: Instant) -> Result<(), DialError> {
    let Host::Name(name) = &target.host else { return Ok(()) };
    if !way.judge_names || way.rules.allows_private() {
        return Ok(());
    }
    let until = by.min(Instant::now() + LOOK_UP);
    let addresses: Vec<SocketAddr> = match way.reach {
        Reach::Direct => {
            let found = timeout_at(until, direct::resolve(name, target.port)).await;
            found.ok().and_then(Result::ok).unwrap_or_default()
        }
        // Nobody near us may hear the name.
        Reach::Tor(tor, by_tor) => {
            let found = timeout_at(until, tor::resolve(tor, by_tor, &target.host, until)).await;
            let found: Option<IpAddr> = found.ok().and_then(Result::ok);
            found.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect()
        }
    };
    let inner = addresses.iter().any(|addr| way.rules.address(*addr).is_err());
    if inner { Err(TargetFault::Forbidden.into()) } else { Ok(()) }
}

/// Asks the proxy for the target, in its language. What is read beyond its answer is the target's.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    way: Way<'_>,
    target: &Target,
) -> Result<Vec<u8>, DialError> {
    match way.id.protocol {
        Protocol::Http => connect_by_http(stream, way.login, target).await,
        Protocol::Socks4 => socks4(stream, way.login, target).await.map(|()| Vec::new()),
        Protocol::Socks5 => socks5(stream, way.login, target).await.map(|()| Vec::new()),
    }
}

async fn connect_by_http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
) -> Result<Vec<u8>, DialError> {
    send(stream, &http::connect(target, login)).await?;
    let mut answer = http::Answer::default();
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await.map_err(|_| ExitFault::Died)?;
        if count == 0 {
            return Err(ExitFault::Died.into());
        }
        if let Some((status, rest)) = answer.take(&piece[..count]).map_err(|http::Garbage| ExitFault::Refused)? {
            return http::judge(status).map(|()| rest).map_err(DialError::from);
        }
    }
}

async fn socks4<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
) -> Result<(), DialError> {
    // SOCKS4 knows no IPv6: another exit may.
    send(stream, &socks::request4(target, login).ok_or(ExitFault::Policy)?).await?;
    let answer = read::<8, S>(stream).await?;
    Ok(socks::judge4(answer)?)
}

async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
) -> Result<(), DialError> {
    send(stream, socks::greeting(login)).await?;
    match (read::<2, S>(stream).await?, login) {
        ([5, 0], _) => {}
        ([5, 2], Some(login)) => {
            send(stream, &socks::login(login).ok_or(ExitFault::Refused)?).await?;
            let [_, code] = read::<2, S>(stream).await?;
            (code == 0).then_some(()).ok_or(ExitFault::Refused)?;
        }
        _ => return Err(ExitFault::Refused.into()),
    }
    send(stream, &socks::request5(target)).await?;
    let head = read::<4, S>(stream).await?;
    socks::judge5(head)?;
    let rest = match head[3] {
        1 => 4 + 2,
        4 => 16 + 2,
        3 => usize::from(read::<1, S>(stream).await?[0]) + 2,
        _ => return Err(ExitFault::Refused.into()),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..rest]).await.map_err(|_| ExitFault::Died)?;
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), DialError> {
    stream.write_all(bytes).await.map_err(|_| ExitFault::Died.into())
}

/// Reads so many bytes and not one more: what follows is the target's.
async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], DialError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| ExitFault::Died)?;
    Ok(bytes)
}

/// Whether a fault speaks of the proxy, rather than of us or of what lies before it.
pub fn blames_the_proxy(error: DialError) -> bool {
    match error {
        DialError::Exit(fault) => fault != ExitFault::Unclear,
        DialError::Engine(
            EngineFault::NotReady | EngineFault::Lost | EngineFault::Protocol | EngineFault::Exhausted,
        )
        | DialError::Target(_)
        | DialError::Deadline => false,
    }
}

#[cfg(test)]
mod tests;
