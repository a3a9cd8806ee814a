//! Dials through a public proxy, by HTTP CONNECT, SOCKS4 or SOCKS5.
//!
//! The proxy is not trusted. So the dial reads the answer of the proxy before a deadline and in pieces of a known size
//! (an HTTP head up to [`http::LONGEST_HEAD`]). The proxy resolves host names.
//!
//! What a proxy reports about a target cannot be verified: a free proxy that answers "host unreachable" may be broken
//! itself. After such a report the caller tries another exit, and the proxy is not blamed ([`ExitFault::Unclear`]).
//!
//! A proxy that refuses CONNECT may still forward plain HTTP. For that case [`forward`] opens a stream to the proxy
//! itself, and the caller writes HTTP requests with absolute URLs into the stream.
//!
//! Next: `dial/public/http.rs` and `dial/public/socks.rs` contain the protocols, without I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::{DialError, EngineFault, ExitFault, Stream, TargetFault, direct, tor};
use crate::exit::{Login, Protocol, PublicId};
use crate::limit::target::Rules;
use crate::net::{Host, Target};
use crate::tor::Tor;

pub(super) mod http;
mod socks;

pub use http::authorization;

/// How long the gateway's own look-up of a target's name may take. After that time the target is allowed, because the
/// look-up is only an additional check. Not tuned.
const LOOK_UP: Duration = Duration::from_secs(2);

/// The way from the gateway to the proxy.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// A direct connection from this machine's own address.
    Direct,
    /// A connection through this Tor exit: the proxy then sees the exit's address and not ours.
    Tor(&'a Tor, tor::Way),
}

/// Time limits of the two stages of a dial.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Time limit for opening the connection to the proxy.
    pub connect: Duration,
    /// Time limit for the proxy's whole answer to the request.
    pub reply: Duration,
}

/// A public proxy, and the way to reach that proxy.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub id: &'a PublicId,
    /// The username and password that the proxy requires. `None` if the proxy requires none.
    pub login: Option<&'a Login>,
    pub reach: Reach<'a>,
    pub times: Times,
    /// The rules that say which addresses a proxy may have.
    pub rules: &'a Rules,
    /// True if the gateway also resolves the target's name itself and refuses a name that leads into a private network.
    /// False for checks of proxies, which only request pages of our own.
    pub check_names: bool,
}

/// A stream that is connected to its target through the proxy.
#[derive(Debug)]
pub struct Opened {
    /// The connection to the proxy, from now on a tunnel to the target.
    pub stream: Stream,
    /// The target's first bytes, if these bytes came together with the proxy's answer. Otherwise empty.
    pub first: Vec<u8>,
}

/// Opens a tunnel through the proxy to the target, before the time `by`.
pub async fn tunnel(way: Way<'_>, target: &Target, by: Instant) -> Result<Opened, DialError> {
    let (mut stream, ()) = tokio::try_join!(connect(way, by), check_name(way, target, by))?;
    let until = by.min(Instant::now() + way.times.reply);
    let first = timeout_at(until, ask(&mut stream, way, target)).await.unwrap_or(Err(ExitFault::Hung.into()))?;
    Ok(Opened { stream, first })
}

/// Opens a stream to the proxy itself. The caller then writes a plain HTTP request to `target`, and the proxy forwards
/// this request.
pub async fn forward(way: Way<'_>, target: &Target, by: Instant) -> Result<Stream, DialError> {
    let (stream, ()) = tokio::try_join!(connect(way, by), check_name(way, target, by))?;
    Ok(stream)
}

/// Opens a stream to the proxy, before the time `by`.
async fn connect(way: Way<'_>, by: Instant) -> Result<Stream, DialError> {
    way.rules.peer(way.id.addr).map_err(|_| ExitFault::Refused)?;
    let until = by.min(Instant::now() + way.times.connect);
    match way.reach {
        // The configuration says that this proxy is reached directly, but exitgate may connect to nothing but Tor. This
        // is no fault of the proxy.
        Reach::Direct if way.rules.only_tor() => Err(EngineFault::NotReady.into()),
        Reach::Direct => {
            let connected = timeout_at(until, direct::connect(way.id.addr)).await;
            match connected.unwrap_or(Err(TargetFault::Timeout.into())) {
                Err(DialError::Target(_)) => Err(ExitFault::Unreachable.into()),
                other => other,
            }
        }
        Reach::Tor(tor, by_tor) => {
            // The connect time limit of the proxy does not apply here, because a Tor circuit may have to be built
            // first.
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

/// Refuses a target whose name resolves, in a look-up by the gateway, to a private address. The proxy may get other
/// addresses for the name. So this check protects the network of an honest proxy but guarantees nothing.
async fn check_name(way: Way<'_>, target: &Target, by: Instant) -> Result<(), DialError> {
    let Host::Name(name) = &target.host else { return Ok(()) };
    let is_closed = matches!(way.reach, Reach::Direct) && way.rules.only_tor();
    if !way.check_names || way.rules.allows_private() || is_closed {
        return Ok(()); // if `is_closed` is true, the dial is refused later anyway
    }
    let until = by.min(Instant::now() + LOOK_UP);
    let addresses: Vec<SocketAddr> = match way.reach {
        Reach::Direct => {
            let found = timeout_at(until, direct::resolve(name, target.port)).await;
            found.ok().and_then(Result::ok).unwrap_or_default()
        }
        // This proxy is reached through Tor, so the gateway's own look-up of the target's name must also go through
        // Tor. Otherwise the DNS resolver of this machine would learn the name.
        Reach::Tor(tor, by_tor) => {
            let found = timeout_at(until, tor::resolve(tor, by_tor, &target.host, until)).await;
            let found: Option<IpAddr> = found.ok().and_then(Result::ok);
            found.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect()
        }
    };
    let inner = addresses.iter().any(|addr| way.rules.address(*addr).is_err());
    if inner { Err(TargetFault::Forbidden.into()) } else { Ok(()) }
}

/// Sends the request for the target to the proxy, in the proxy's protocol. Returns bytes of the target that were
/// received directly after the proxy's answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    way: Way<'_>,
    target: &Target,
) -> Result<Vec<u8>, DialError> {
    match way.id.protocol {
        Protocol::Http => {
            connect_by_http(stream, way.login, target, |status, _| Ok(http::status_result(status)?)).await
        }
        Protocol::Socks4 => socks4(stream, way.login, target).await.map(|()| Vec::new()),
        Protocol::Socks5 => socks5(stream, way.login, target).await.map(|()| Vec::new()),
    }
}

/// Sends a CONNECT request. `judge` maps the status and the head of the answer to success or a fault. Returns bytes of
/// the target that were received directly after the proxy's answer.
pub(super) async fn connect_by_http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
    judge: impl Fn(u16, &[u8]) -> Result<(), DialError>,
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
            return judge(status, answer.head()).map(|()| rest);
        }
    }
}

pub(super) async fn socks4<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
) -> Result<(), DialError> {
    // SOCKS4 cannot carry IPv6 addresses. The error lets the caller try another exit, which may use another protocol.
    send(stream, &socks::request4(target, login).ok_or(ExitFault::Policy)?).await?;
    let answer = read::<8, S>(stream).await?;
    Ok(socks::result4(answer)?)
}

async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
    target: &Target,
) -> Result<(), DialError> {
    socks5_login(stream, login).await?;
    socks5_connect(stream, target).await
}

/// Sends the SOCKS5 greeting, and the login if the proxy requires one.
pub(super) async fn socks5_login<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
) -> Result<(), DialError> {
    send(stream, socks::greeting(login)).await?;
    match (read::<2, S>(stream).await?, login) {
        ([5, 0], _) => Ok(()),
        ([5, 2], Some(login)) => {
            send(stream, &socks::login(login).ok_or(ExitFault::Refused)?).await?;
            let [_, code] = read::<2, S>(stream).await?;
            Ok((code == 0).then_some(()).ok_or(ExitFault::Refused)?)
        }
        _ => Err(ExitFault::Refused.into()),
    }
}

/// Sends the SOCKS5 request for the target, after the login.
pub(super) async fn socks5_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
) -> Result<(), DialError> {
    send(stream, &socks::request5(target)).await?;
    let head = read::<4, S>(stream).await?;
    socks::result5(head)?;
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

/// Reads exactly `N` bytes of the proxy's answer and no more, because the bytes after the answer belong to the target.
async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], DialError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| ExitFault::Died)?;
    Ok(bytes)
}

/// Returns true if the proxy caused the error, and not this gateway or the way to the proxy.
pub fn blames_the_proxy(error: DialError) -> bool {
    match error {
        DialError::Exit(fault) => fault != ExitFault::Unclear,
        DialError::Engine(_) | DialError::Target(_) | DialError::Deadline => false,
    }
}

#[cfg(test)]
mod tests;
