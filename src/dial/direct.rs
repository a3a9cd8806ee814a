//! Connects to the target from this machine's own address, without an exit. This is used for measurements, and for
//! routes that mix direct connections with other sources.
//!
//! Only this module resolves host names. With every other source of exits, the exit resolves them. Here a name is
//! resolved once, the rules on targets are checked for each address, and the connection goes to an address that was
//! checked. So an attacker gains nothing by changing the DNS answer after the check.
//!
//! The connection leaves from the address that the operating system chooses, or from one of this machine's own addresses
//! (`sources.direct.bind`). From an own address only targets of the same family (IPv4 or IPv6) can be reached.
//!
//! Several addresses of one name are tried as in a short form of RFC 8305. IPv4 and IPv6 addresses alternate. The next
//! address is tried when the last one failed or after 250 ms. The first connection that opens is used.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout_at};

use super::{DialError, EngineFault, ExitFault, Stream, TargetFault};
use crate::limit::target::Rules;
use crate::net::{Host, Target};

/// How long a connection attempt may stay without an answer before the next address is tried in parallel. RFC 8305
/// recommends this value.
const HEAD_START: Duration = Duration::from_millis(250);

/// The number of addresses of one host name that are tried. Any value from 2 to 8 works: when four addresses in a row
/// are dead, more addresses rarely help.
const MOST_ADDRESSES: usize = 4;

/// Opens a stream to the target. Every address is checked against `rules` before a connection to that address. `from` is
/// the own address from which the connection leaves. `None`: the operating system chooses the address.
pub async fn dial(
    target: &Target,
    rules: &Rules,
    from: Option<IpAddr>,
    deadline: Instant,
) -> Result<Stream, DialError> {
    rules.target(target).map_err(|_| TargetFault::Forbidden)?;
    let Host::Name(name) = &target.host else {
        let Host::Ip(ip) = target.host else { unreachable!("a host is a name or an address") };
        return connected(SocketAddr::new(ip, target.port), from, deadline).await;
    };
    let resolved = timeout_at(deadline, resolve(name, target.port)).await.map_err(|_| TargetFault::NameFailed)??;
    let addresses = of_family(allowed(resolved, |addr| rules.address(addr).is_ok())?, from)?;
    match addresses[..] {
        [one] => connected(one, from, deadline).await,
        _ => timeout_at(deadline, race(&addresses, from)).await.map_err(|_| TargetFault::Timeout)?,
    }
}

/// Opens a connection to a proxy. A host name is resolved, and each of its addresses is checked against the rules for
/// proxies ([`Rules::peer`]) before the connection.
pub(super) async fn dial_proxy(proxy: &Target, rules: &Rules, deadline: Instant) -> Result<Stream, DialError> {
    let resolved = match &proxy.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, proxy.port)],
        Host::Name(name) => {
            timeout_at(deadline, resolve(name, proxy.port)).await.map_err(|_| TargetFault::NameFailed)??
        }
    };
    let addresses = allowed(resolved, |addr| rules.peer(addr).is_ok())?;
    timeout_at(deadline, race(&addresses, None)).await.map_err(|_| TargetFault::Timeout)?
}

async fn connected(addr: SocketAddr, from: Option<IpAddr>, deadline: Instant) -> Result<Stream, DialError> {
    let opened = timeout_at(deadline, connect_from(addr, from)).await.map_err(|_| TargetFault::Timeout)?;
    match opened {
        // There may be no route from this own address, while other exits reach the target.
        Err(DialError::Target(TargetFault::Unreachable)) if from.is_some() => Err(ExitFault::Unclear.into()),
        other => other,
    }
}

/// Returns the addresses that can be reached from the address `from`. If there are none, the fault is that of the exit:
/// another exit may have an address of the other family.
fn of_family(addresses: Vec<SocketAddr>, from: Option<IpAddr>) -> Result<Vec<SocketAddr>, DialError> {
    let Some(from) = from else { return Ok(addresses) };
    let same: Vec<_> = addresses.into_iter().filter(|addr| addr.is_ipv4() == from.is_ipv4()).collect();
    if same.is_empty() { Err(ExitFault::Policy.into()) } else { Ok(same) }
}

/// Returns the addresses for which `allows` returns true, IPv4 and IPv6 alternating. If no address is allowed, returns
/// an error.
fn allowed(resolved: Vec<SocketAddr>, allows: impl Fn(SocketAddr) -> bool) -> Result<Vec<SocketAddr>, TargetFault> {
    if resolved.is_empty() {
        return Err(TargetFault::NoSuchName);
    }
    let mut left: Vec<SocketAddr> = resolved
        .into_iter()
        .map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
        .filter(|addr| allows(*addr))
        .collect();
    let mut ordered = Vec::with_capacity(MOST_ADDRESSES);
    while !left.is_empty() && ordered.len() < MOST_ADDRESSES {
        let last: Option<&SocketAddr> = ordered.last();
        let other = left.iter().position(|addr| last.is_some_and(|last| last.is_ipv4() != addr.is_ipv4()));
        ordered.push(left.remove(other.unwrap_or(0)));
    }
    if ordered.is_empty() { Err(TargetFault::Forbidden) } else { Ok(ordered) }
}

#[expect(clippy::disallowed_methods, reason = "the one place that resolves names; see above")]
pub(super) async fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, TargetFault> {
    match tokio::net::lookup_host((name, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(fault) => Err(resolver_fault(&fault.to_string())),
    }
}

/// Classifies a failed name look-up by the error's text, because the standard library returns no error code of
/// `getaddrinfo`. The texts are those of glibc, musl and macOS for "no such name" and "no address of that kind". Every
/// other failure may be temporary.
fn resolver_fault(text: &str) -> TargetFault {
    const NO_SUCH_NAME: [&str; 5] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
        "nodename nor servname provided",
    ];
    if NO_SUCH_NAME.iter().any(|words| text.contains(words)) {
        TargetFault::NoSuchName
    } else {
        TargetFault::NameFailed
    }
}

/// Connects to several addresses, each a little later than the one before, and returns the first stream that opens. If
/// all attempts fail, returns the error of the attempt that failed first.
async fn race(addresses: &[SocketAddr], from: Option<IpAddr>) -> Result<Stream, DialError> {
    let mut waiting = addresses.iter();
    let mut tries: Vec<Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>> = Vec::new();
    let mut first_fault = None;
    loop {
        if let Some(addr) = waiting.next() {
            tries.push(Box::pin(connect_from(*addr, from)));
        }
        if tries.is_empty() {
            return Err(first_fault.unwrap_or(TargetFault::Unreachable.into()));
        }
        let may_add = waiting.len() > 0;
        let mut head_start = pin!(sleep(HEAD_START));
        let ended = poll_fn(|cx| {
            for at in 0..tries.len() {
                if let Poll::Ready(outcome) = tries[at].as_mut().poll(cx) {
                    drop(tries.swap_remove(at));
                    return Poll::Ready(Some(outcome));
                }
            }
            if may_add { head_start.as_mut().poll(cx).map(|()| None) } else { Poll::Pending }
        })
        .await;
        match ended {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(fault)) => _ = first_fault.get_or_insert(fault),
            None => {}
        }
    }
}

pub(super) async fn connect(addr: SocketAddr) -> Result<Stream, DialError> {
    connect_from(addr, None).await
}

async fn connect_from(addr: SocketAddr, from: Option<IpAddr>) -> Result<Stream, DialError> {
    let socket = match from {
        // `dial` has sorted out the other family for names. Here the target is an address.
        Some(from) if from.is_ipv4() != addr.is_ipv4() => return Err(ExitFault::Policy.into()),
        Some(from) => bound(from).map_err(|fault| bind_fault(&fault)),
        None => unbound(addr.ip()).map_err(|fault| connect_fault(&fault)),
    }?;
    socket.connect(addr).await.map(Stream::Tcp).map_err(|fault| connect_fault(&fault))
}

fn unbound(family: IpAddr) -> io::Result<TcpSocket> {
    let socket = if family.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Returns a socket whose connection leaves from the address `from`.
fn bound(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = unbound(from)?;
    // Linux binds an address of a network that is routed to this machine as a whole only with this option. For IPv4, the
    // kernel's table of local routes is enough, and without the option a wrong address is an error here.
    #[cfg(target_os = "linux")]
    if from.is_ipv6() {
        socket2::SockRef::from(&socket).set_freebind_v6(true)?;
    }
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket)
}

/// Returns an error if no connection can leave from this address, because it is not an address of this machine. On
/// Linux, an IPv6 address can always be bound, so only a check of the exit shows whether it is one.
pub fn can_leave_from(from: IpAddr) -> io::Result<()> {
    bound(from).map(drop)
}

/// Maps an error of the system call `bind` to a fault. The address may be none of this machine's: then the exit is at
/// fault.
fn bind_fault(fault: &io::Error) -> DialError {
    match fault.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => ExitFault::Unreachable.into(),
        // EADDRINUSE means that every local port of this address is in use.
        Some(libc::EADDRINUSE) => EngineFault::Exhausted.into(),
        _ => connect_fault(fault),
    }
}

/// Maps an error of the system call `connect` to a fault of this machine or of the target.
fn connect_fault(fault: &io::Error) -> DialError {
    use io::ErrorKind::*;
    // EADDRNOTAVAIL means that every local port for this target is in use.
    if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN) =
        fault.raw_os_error()
    {
        return EngineFault::Exhausted.into();
    }
    let whose = match fault.kind() {
        ConnectionRefused => TargetFault::Refused,
        ConnectionReset | ConnectionAborted => TargetFault::Reset,
        TimedOut => TargetFault::Timeout,
        _ => TargetFault::Unreachable, // no route, address family not available, or a local firewall
    };
    whose.into()
}

#[cfg(test)]
mod tests;
