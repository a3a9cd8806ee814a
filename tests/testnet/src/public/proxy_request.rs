//! The first request of a proxy's client, in HTTP, SOCKS4 or SOCKS5, and the answers to it. SOCKS5 is spoken by fast-socks5.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::bail;
use fast_socks5::server::Socks5ServerProtocol;
use fast_socks5::server::states::CommandRead;
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mix::Protocol;

/// The longest request head that is read: twice what servers usually accept.
const MAX_HEAD: usize = 16 * 1024;

/// The address in a SOCKS5 reply: clients of CONNECT ignore it.
const UNSPECIFIED: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// What the client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProxyRequest {
    pub host: String,
    pub port: u16,
    pub kind: RequestKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Socks4,
    Socks5,
    Connect,
    /// A plain request, already in the form that the target expects, without the empty line at its end.
    Plain {
        head: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Unreachable,
    Refused,
}

/// The connection of a client that waits for an answer.
pub(super) enum Client {
    Stream(TcpStream),
    Socks5(Socks5ServerProtocol<TcpStream, CommandRead>),
}

impl ProxyRequest {
    /// Reads a request, and what the client sent after it.
    pub(super) async fn read(mut stream: TcpStream, protocol: Protocol) -> anyhow::Result<(Self, Client, Vec<u8>)> {
        match protocol {
            Protocol::Http => {
                let (request, rest) = http(&mut stream).await?;
                Ok((request, Client::Stream(stream), rest))
            }
            Protocol::Socks4 => Ok((socks4(&mut stream).await?, Client::Stream(stream), Vec::new())),
            Protocol::Socks5 => {
                let (request, client) = socks5(stream).await?;
                Ok((request, Client::Socks5(client), Vec::new()))
            }
        }
    }

    /// Answers the request. Returns the connection if the tunnel is open.
    pub(super) async fn answer(&self, client: Client, outcome: Outcome) -> anyhow::Result<Option<TcpStream>> {
        let mut stream = match (client, outcome) {
            (Client::Stream(stream), _) => stream,
            (Client::Socks5(client), Outcome::Open) => return Ok(Some(client.reply_success(UNSPECIFIED).await?)),
            (Client::Socks5(client), Outcome::Unreachable) => {
                client.reply_error(&ReplyError::HostUnreachable).await?;
                return Ok(None);
            }
            (Client::Socks5(client), Outcome::Refused) => {
                client.reply_error(&ReplyError::ConnectionNotAllowed).await?;
                return Ok(None);
            }
        };
        let bytes: &[u8] = match (&self.kind, outcome) {
            (RequestKind::Socks4, Outcome::Open) => &[0, 90, 0, 0, 0, 0, 0, 0],
            (RequestKind::Socks4, _) => &[0, 91, 0, 0, 0, 0, 0, 0],
            (RequestKind::Connect, Outcome::Open) => b"HTTP/1.1 200 Connection established\r\n\r\n",
            (_, Outcome::Open) => b"",
            (_, Outcome::Unreachable) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            (_, Outcome::Refused) => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        stream.write_all(bytes).await?;
        Ok((outcome == Outcome::Open).then_some(stream))
    }
}

async fn http(stream: &mut TcpStream) -> io::Result<(ProxyRequest, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if read.len() > MAX_HEAD || stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let rest = read.split_off(end + 4);
    let head = String::from_utf8_lossy(&read[..end]);
    Ok((parse_head(&head).ok_or(io::ErrorKind::InvalidData)?, rest))
}

/// Parses a request head in proxy form. The target gets it without the fields that are meant for a proxy, and closes after its answer:
/// this fake serves one request on each connection.
fn parse_head(head: &str) -> Option<ProxyRequest> {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let (method, target) = line.strip_suffix(" HTTP/1.1").or(line.strip_suffix(" HTTP/1.0"))?.split_once(' ')?;
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':')?;
        return Some(ProxyRequest { host: host.into(), port: port.parse().ok()?, kind: RequestKind::Connect });
    }
    let (authority, path) =
        target.strip_prefix("http://").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())))?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 80),
    };
    let for_proxy = |name: &str| ["connection", "keep-alive"].contains(&name) || name.starts_with("proxy-");
    let kept = headers
        .split("\r\n")
        .filter(|line| line.split_once(':').is_some_and(|(name, _)| !for_proxy(&name.trim().to_ascii_lowercase())));
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    kept.for_each(|line| head += &format!("{line}\r\n"));
    Some(ProxyRequest { host: host.into(), port, kind: RequestKind::Plain { head } })
}

async fn socks4(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxyRequest> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    if head[..2] != [4, 1] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let port = u16::from_be_bytes([head[2], head[3]]);
    until_zero(stream).await?; // the username
    let host = match head[4..] {
        [0, 0, 0, _] => until_zero(stream).await?, // 4a: a name follows
        [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
        _ => unreachable!("four bytes are left"),
    };
    Ok(ProxyRequest { host, port, kind: RequestKind::Socks4 })
}

async fn until_zero(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await? {
            0 => return String::from_utf8(text).map_err(io::Error::other),
            _ if text.len() > 255 => return Err(io::ErrorKind::InvalidData.into()),
            byte => text.push(byte),
        }
    }
}

async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
) -> anyhow::Result<(ProxyRequest, Socks5ServerProtocol<S, CommandRead>)> {
    let authenticated = Socks5ServerProtocol::accept_no_auth(stream).await?;
    let (client, command, target) = authenticated.read_command().await?;
    if command != Socks5Command::TCPConnect {
        client.reply_error(&ReplyError::CommandNotSupported).await?;
        bail!("this proxy opens tunnels only");
    }
    let (host, port) = match target {
        TargetAddr::Ip(address) => (address.ip().to_string(), address.port()),
        TargetAddr::Domain(name, port) => (name, port),
    };
    Ok((ProxyRequest { host, port, kind: RequestKind::Socks5 }, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_loses_the_fields_for_the_proxy() {
        let head = "GET http://a.test:81/x?y HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic x\r\nConnection: keep-alive\r\nA: b";
        let request = parse_head(head).unwrap();
        let want = "GET /x?y HTTP/1.1\r\nConnection: close\r\nHost: a.test\r\nA: b\r\n".to_owned();
        assert_eq!(request, ProxyRequest { host: "a.test".into(), port: 81, kind: RequestKind::Plain { head: want } });
    }

    #[test]
    fn targets_and_nonsense() {
        let target = |line: &str| parse_head(line).map(|request| (request.host, request.port));
        assert_eq!(target("CONNECT a.test:443 HTTP/1.1"), Some(("a.test".into(), 443)));
        assert_eq!(target("GET http://a.test HTTP/1.0"), Some(("a.test".into(), 80)));
        for line in
            ["", "GET / HTTP/1.1", "CONNECT a.test HTTP/1.1", "CONNECT a.test:x HTTP/1.1", "GET ftp://a HTTP/1.1"]
        {
            assert_eq!(target(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn socks_of_every_kind() {
        for (sent, host) in [
            (&[4, 1, 0, 80, 127, 1, 2, 3, b'u', 0][..], "127.1.2.3"),
            (&[4, 1, 0, 80, 0, 0, 0, 1, 0, b'a', b'.', b'b', 0], "a.b"),
        ] {
            let request = socks4(&mut &sent[..]).await.unwrap();
            assert_eq!((request.host.as_str(), request.port), (host, 80));
        }
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&[5, 1, 0, 5, 1, 0, 3, 3, b'a', b'.', b'b', 1, 187]).await.unwrap();
        let (request, _) = socks5(&mut server).await.unwrap();
        assert_eq!((request.host.as_str(), request.port), ("a.b", 443));
    }
}
