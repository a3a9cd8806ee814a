//! Dials through a proxy of one's own: HTTP CONNECT, SOCKS4 or SOCKS5, with or without TLS to the proxy.
//!
//! The host name of the proxy is resolved at each dial, and the rules for proxies are checked for each of its
//! addresses. So a list cannot lead the gateway into its own network, unless the source has `allow_private`.
//!
//! The code that relays bytes works on bare sockets. So if the connection to the proxy is encrypted, a task copies
//! bytes between the encrypted connection and one end of a pair of local sockets. The caller gets the other end.
//!
//! What the proxy reports about a target cannot be verified, as with public proxies (`dial/public.rs`).

mod refusal;

use std::pin::pin;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, copy};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use self::refusal::Refusal;
use super::public::{Opened, Times, connect_by_http, socks4, socks5_connect, socks5_login};
use super::{DialError, EngineFault, ExitFault, Stream, TargetFault, direct};
use crate::exit::{AccountFault, AccountRef, Protocol, ProxyTls, UpstreamProxy};
use crate::limit::target::Rules;
use crate::net::{Host, Target};

/// How long the gateway's own look-up of a target's name may take. After that time the target is allowed, because the
/// look-up is only an additional check. Not tuned.
const LOOK_UP: Duration = Duration::from_secs(2);

/// The time between two looks whether the caller of a TLS connection has closed its socket. Not tuned.
const LOOK_CLOSED: Duration = Duration::from_secs(1);

/// Opens a tunnel through the proxy to the target, before the time `by`.
pub async fn tunnel(
    proxy: &UpstreamProxy,
    target: &Target,
    rules: &Rules,
    times: Times,
    by: Instant,
) -> Result<Opened, DialError> {
    let mut stream = connect(proxy, rules, times.connect, by).await?;
    let until = by.min(Instant::now() + times.reply);
    let first = timeout_at(until, ask(&mut stream, proxy, target)).await.unwrap_or(Err(ExitFault::Hung.into()))?;
    Ok(Opened { stream, first })
}

/// Refuses a target whose name resolves, in a look-up by the gateway, to a private address. The proxy may be in a
/// private network, and clients must not reach this network through it. The proxy resolves the name itself, so an
/// attacker who controls the name can still give the proxy another address.
pub async fn check_target(target: &Target, rules: &Rules, by: Instant) -> Result<(), DialError> {
    let Host::Name(name) = &target.host else { return Ok(()) };
    if rules.allows_private() || rules.only_tor() {
        return Ok(()); // with `only_tor` the dial is refused anyway, and no name may be looked up from here
    }
    let until = by.min(Instant::now() + LOOK_UP);
    let found = timeout_at(until, direct::resolve(name, target.port)).await;
    let addresses = found.ok().and_then(Result::ok).unwrap_or_default();
    let is_inner = addresses.iter().any(|addr| rules.address(*addr).is_err());
    if is_inner { Err(TargetFault::Forbidden.into()) } else { Ok(()) }
}

/// Opens a stream to the proxy itself, before the time `by`. If the connection to the proxy is encrypted, the TLS
/// handshake is part of this.
pub async fn connect(proxy: &UpstreamProxy, rules: &Rules, limit: Duration, by: Instant) -> Result<Stream, DialError> {
    // With bridges, exitgate connects to nothing but Tor. This is no fault of the proxy, and exits of Tor may serve.
    if rules.only_tor() {
        return Err(ExitFault::NoPath.into());
    }
    let until = by.min(Instant::now() + limit);
    let rules = if proxy.allow_private { rules.clone().with_private() } else { rules.clone() };
    let stream = match direct::dial_proxy(&proxy.at, &rules, until).await {
        Err(DialError::Target(TargetFault::Forbidden)) => return Err(ExitFault::Refused.into()),
        Err(DialError::Target(_)) => return Err(ExitFault::Unreachable.into()),
        other => other?,
    };
    match &proxy.tls {
        None => Ok(stream),
        Some(tls) => {
            timeout_at(until, encrypt(stream, tls, &proxy.at.host)).await.unwrap_or(Err(ExitFault::Hung.into()))
        }
    }
}

/// Makes a TLS connection over the stream. Returns a local socket, whose bytes a task passes through the TLS
/// connection.
async fn encrypt(stream: Stream, ProxyTls(connector): &ProxyTls, host: &Host) -> Result<Stream, DialError> {
    let name = match host {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| ExitFault::Refused)?,
    };
    let secure = connector.connect(name, stream).await.map_err(|error| {
        tracing::debug!(%error, "the TLS connection to a proxy failed");
        DialError::from(ExitFault::Refused)
    })?;
    let (near, far) = UnixStream::pair().map_err(|_| EngineFault::Exhausted)?;
    spawn(pass(secure, far));
    Ok(Stream::Unix(near))
}

/// Passes bytes between the TLS connection and the local socket `far`, until the caller has closed its end of the local
/// socket, or until both directions have ended.
async fn pass<S: AsyncRead + AsyncWrite>(secure: S, mut far: UnixStream) {
    let (mut from_proxy, mut to_proxy) = tokio::io::split(secure);
    let (mut from_caller, mut to_caller) = far.split();
    // An error means that one of the two connections broke. Both are closed then, which the relay notices.
    let mut down = pin!(async {
        let _ = copy(&mut from_proxy, &mut to_caller).await;
        let _ = to_caller.shutdown().await;
    });
    let mut up = pin!(async {
        let _ = copy(&mut from_caller, &mut to_proxy).await;
        let _ = to_proxy.shutdown().await;
        from_caller
    });
    let from_caller = tokio::select! {
        () = &mut down => {
            up.await;
            return;
        }
        from_caller = &mut up => from_caller,
    };
    // The caller sends nothing more, but it may still read. A silent proxy must not keep this task after the caller has
    // closed its socket.
    let closed = async {
        while from_caller.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
            tokio::time::sleep(LOOK_CLOSED).await;
        }
    };
    tokio::select! {
        () = down => {}
        () = closed => {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the task ends when the caller drops its socket, so shutdown waits for the caller"
)]
fn spawn(copy: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(copy));
}

/// Sends the request for the target to the proxy, in the proxy's protocol. Returns bytes of the target that were
/// received directly after the proxy's answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &UpstreamProxy,
    target: &Target,
) -> Result<Vec<u8>, DialError> {
    let login = proxy.login.as_ref();
    match proxy.protocol {
        Protocol::Http => {
            let judge = |status, head: &[u8]| note(proxy, refusal::read(status, head));
            connect_by_http(stream, login, target, judge).await
        }
        Protocol::Socks4 => socks4(stream, login, target).await.map(|()| Vec::new()),
        Protocol::Socks5 => {
            let greeted = socks5_login(stream, login).await;
            if greeted == Err(ExitFault::Refused.into()) {
                note(proxy, Err(Refusal::Account(AccountFault::Login)))?;
            }
            greeted?;
            let opened = socks5_connect(stream, target).await;
            if opened.is_ok() {
                note(proxy, Ok(()))?;
            }
            opened.map(|()| Vec::new())
        }
    }
}

/// Records what an answer says of the account at the provider. A proxy of a list has no account besides its own login,
/// so there every refusal is the fault of this exit.
fn note(proxy: &UpstreamProxy, answer: Result<(), Refusal>) -> Result<(), DialError> {
    match (answer, &proxy.account) {
        (Ok(()), Some(AccountRef(account))) => account.accept(),
        (Err(Refusal::Account(fault)), Some(AccountRef(account))) => account.refuse(fault),
        (Err(Refusal::Account(_)), None) => return Err(ExitFault::Refused.into()),
        _ => {}
    }
    answer.map_err(DialError::from)
}

#[cfg(test)]
mod tests;
