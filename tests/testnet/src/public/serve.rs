//! One connection to a proxy, and what each kind does to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::mix::{Kind, Protocol};
use super::proxy_request::{Outcome, ProxyRequest, RequestKind};
use super::{FakeProxy, Shared};
use crate::fetch;

/// How long a slow proxy waits before it does anything: long enough to differ from a fast proxy on a busy machine.
const SLOW: Duration = Duration::from_secs(3);

/// How long a proxy tries to reach a target.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one connection as this proxy does.
pub(super) async fn connection(mut client: TcpStream, source: SocketAddr, proxy: &FakeProxy, shared: &Shared) {
    let kind = proxy.kind();
    let number = proxy.served.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Hanging => std::future::pending().await,
        Kind::Flapping if number % 2 == 1 => {
            let _ = client.set_zero_linger(); // closing resets
        }
        Kind::WebServer => {
            let _ = web_server(client).await;
        }
        Kind::Locked => {
            let _ = locked(&mut client, proxy.truth.protocol).await;
        }
        _ => {
            if kind == Kind::Slow {
                tokio::time::sleep(SLOW).await;
            }
            let _ = carry(client, source, kind, proxy, shared).await; // an error of either side ends the connection
        }
    }
}

async fn carry(
    client: TcpStream,
    source: SocketAddr,
    kind: Kind,
    proxy: &FakeProxy,
    shared: &Shared,
) -> anyhow::Result<()> {
    let (request, client, rest) = ProxyRequest::read(client, proxy.truth.protocol).await?;
    if request.kind == RequestKind::Connect && kind == Kind::NoConnect {
        return request.answer(client, Outcome::Refused).await.map(drop);
    }
    let Ok(mut target) = dial(&request, proxy, shared).await else {
        return request.answer(client, Outcome::Unreachable).await.map(drop);
    };
    let Some(client) = request.answer(client, Outcome::Open).await? else { return Ok(()) };
    if let RequestKind::Plain { head } = &request.kind {
        let added = match kind {
            Kind::Transparent => format!("Via: 1.1 proxy\r\nX-Forwarded-For: {}\r\n", source.ip()),
            Kind::Anonymous => "Via: 1.1 proxy\r\n".into(),
            _ => String::new(),
        };
        target.write_all(format!("{head}{added}\r\n").as_bytes()).await?;
    }
    target.write_all(&rest).await?;
    let plain = matches!(request.kind, RequestKind::Plain { .. });
    if kind == Kind::BreaksTls && !plain && rest.is_empty() && speaks_tls(&client).await? {
        return break_tls(client, target, shared).await;
    }
    relay(client, target, kind, proxy).await?;
    Ok(())
}

/// Connects from the proxy's own address, and to nowhere but loopback.
async fn dial(request: &ProxyRequest, proxy: &FakeProxy, shared: &Shared) -> anyhow::Result<TcpStream> {
    let ip = match request.host.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => shared.dns.resolve(&request.host).context("no such name")?,
    };
    anyhow::ensure!(ip.is_ipv4() && ip.is_loopback(), "{ip} is not on loopback");
    let socket = TcpSocket::new_v4()?;
    socket.bind((*proxy.truth.address.ip(), 0).into())?;
    let stream = tokio::time::timeout(CONNECT_DEADLINE, socket.connect((ip, request.port).into())).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn speaks_tls(client: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(client.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE)
}

/// Ends TLS on both sides, so that this proxy can read everything.
async fn break_tls(client: TcpStream, target: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut client = TlsAcceptor::accept(&shared.untrusted, client).await?;
    let host = client.get_ref().1.server_name().unwrap_or("echo.test").to_owned();
    let mut target = fetch::tls(target, &host, &shared.ca).await?;
    tokio::io::copy_bidirectional(&mut client, &mut target).await?;
    Ok(())
}

/// Relays in both directions. Lying and tampering proxies change what comes from the target.
async fn relay(mut client: TcpStream, mut target: TcpStream, kind: Kind, proxy: &FakeProxy) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_target, mut to_target) = target.split();
    let upload = async {
        tokio::io::copy(&mut from_client, &mut to_target).await?;
        to_target.shutdown().await
    };
    let download = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let length = from_target.read(&mut chunk).await?;
            if length == 0 {
                return to_client.shutdown().await;
            }
            let chunk = &mut chunk[..length];
            match kind {
                Kind::Lying => lie(chunk, proxy),
                Kind::Tampering => tamper(chunk),
                _ => {}
            }
            to_client.write_all(chunk).await?;
        }
    };
    tokio::try_join!(upload, download).map(drop)
}

/// Replaces the proxy's own address by another one of the same length.
fn lie(chunk: &mut [u8], proxy: &FakeProxy) {
    let (own, other) = (proxy.truth.address.ip().to_string(), proxy.truth.claims().to_string());
    let mut at = 0;
    while let Some(found) = chunk[at..].windows(own.len()).position(|window| window == own.as_bytes()) {
        at += found;
        chunk[at..at + own.len()].copy_from_slice(other.as_bytes());
    }
}

/// Changes the last byte of a piece of an answer, if it is HTML or a download. Echoes are not changed, so only a comparison with a known
/// body finds this proxy out.
fn tamper(chunk: &mut [u8]) {
    let head_end = chunk.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = String::from_utf8_lossy(&chunk[..head_end.unwrap_or(0)]).to_ascii_lowercase();
    let changed = head.contains("content-type: text/html") || head.contains("content-type: application/octet-stream");
    if changed && head_end.is_some_and(|end| end < chunk.len()) {
        let last = chunk.len() - 1;
        chunk[last] ^= 0x55;
    }
}

async fn web_server(mut client: TcpStream) -> io::Result<()> {
    let mut ignored = [0; 4096];
    if client.read(&mut ignored).await? > 0 {
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nwelcome\n").await?;
    }
    client.shutdown().await
}

async fn locked(client: &mut TcpStream, protocol: Protocol) -> io::Result<()> {
    let mut ignored = [0; 4096];
    if client.read(&mut ignored).await? == 0 {
        return Ok(());
    }
    let no: &[u8] = match protocol {
        Protocol::Http => {
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"
        }
        Protocol::Socks4 => &[0, 93, 0, 0, 0, 0, 0, 0],
        Protocol::Socks5 => &[5, 0xff],
    };
    client.write_all(no).await?;
    client.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_downloads_and_pages_are_tampered_with() {
        for (kind, changed) in
            [("text/html; charset=utf-8", true), ("application/octet-stream", true), ("text/plain", false)]
        {
            let whole = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\nbody").into_bytes();
            let mut chunk = whole.clone();
            tamper(&mut chunk);
            assert_eq!(chunk != whole, changed, "{kind}");
            assert_eq!(chunk[..whole.len() - 4], whole[..whole.len() - 4], "the head stays");
        }
    }
}
