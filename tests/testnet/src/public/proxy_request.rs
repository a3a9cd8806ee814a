//! What a client of a proxy says first, in three languages: the target, and how to answer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mix::Protocol;

/// The longest request head that is read. Arbitrary: twice what servers usually take.
const MAX_HEAD: usize = 16 * 1024;

/// A client's wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub host: String,
    pub port: u16,
    pub form: Form,
}

/// How the wish was put.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Socks4,
    Socks5,
    Connect,
    /// A plain request, already turned into what its origin wants to read, without the empty line at its end.
    Plain {
        head: String,
    },
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Unreachable,
    Refused,
}

impl Wish {
    /// Reads a wish, and what the client sent beyond it.
    pub(super) async fn read(stream: &mut TcpStream, protocol: Protocol) -> io::Result<(Self, Vec<u8>)> {
        match protocol {
            Protocol::Http => http(stream).await,
            Protocol::Socks4 => Ok((socks4(stream).await?, Vec::new())),
            Protocol::Socks5 => Ok((socks5(stream).await?, Vec::new())),
        }
    }

    /// Tells the client what came of it.
    pub(super) async fn answer(&self, stream: &mut (impl AsyncWrite + Unpin), outcome: Outcome) -> io::Result<()> {
        let bytes: &[u8] = match (&self.form, outcome) {
            (Form::Socks4, Outcome::Open) => &[0, 90, 0, 0, 0, 0, 0, 0],
            (Form::Socks4, _) => &[0, 91, 0, 0, 0, 0, 0, 0],
            (Form::Socks5, Outcome::Open) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            (Form::Socks5, Outcome::Unreachable) => &[5, 4, 0, 1, 0, 0, 0, 0, 0, 0],
            (Form::Socks5, Outcome::Refused) => &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
            (Form::Connect, Outcome::Open) => b"HTTP/1.1 200 Connection established\r\n\r\n",
            (Form::Plain { .. }, Outcome::Open) => b"",
            (_, Outcome::Unreachable) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            (_, Outcome::Refused) => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        stream.write_all(bytes).await
    }
}

async fn http(stream: &mut TcpStream) -> io::Result<(Wish, Vec<u8>)> {
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

/// A request head in proxy form. The origin gets it without what was meant for us, and closes after its answer: one
/// request a connection keeps a fake simple.
fn parse_head(head: &str) -> Option<Wish> {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let (method, target) = line.strip_suffix(" HTTP/1.1").or(line.strip_suffix(" HTTP/1.0"))?.split_once(' ')?;
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':')?;
        return Some(Wish { host: host.into(), port: port.parse().ok()?, form: Form::Connect });
    }
    let (authority, path) =
        target.strip_prefix("http://").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())))?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 80),
    };
    let ours = |name: &str| ["connection", "keep-alive"].contains(&name) || name.starts_with("proxy-");
    let kept = headers
        .split("\r\n")
        .filter(|line| line.split_once(':').is_some_and(|(name, _)| !ours(&name.trim().to_ascii_lowercase())));
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    kept.for_each(|line| head += &format!("{line}\r\n"));
    Some(Wish { host: host.into(), port, form: Form::Plain { head } })
}

async fn socks4(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Wish> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    if head[..2] != [4, 1] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let port = u16::from_be_bytes([head[2], head[3]]);
    until_zero(stream).await?; // the user's name
    let host = match head[4..] {
        [0, 0, 0, _] => until_zero(stream).await?, // 4a: a name follows
        [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
        _ => unreachable!("four bytes are left"),
    };
    Ok(Wish { host, port, form: Form::Socks4 })
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

async fn socks5(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Wish> {
    let mut hello = [0; 2];
    stream.read_exact(&mut hello).await?;
    let mut methods = vec![0; usize::from(hello[1])];
    stream.read_exact(&mut methods).await?;
    if hello[0] != 5 || !methods.contains(&0) {
        stream.write_all(&[5, 0xff]).await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match (head[1], head[3]) {
        (1, 1) => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        (1, 3) => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(io::Error::other)?
        }
        (1, 4) => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Wish { host, port: stream.read_u16().await?, form: Form::Socks5 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_loses_what_was_meant_for_the_proxy() {
        let head = "GET http://a.test:81/x?y HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic x\r\nConnection: keep-alive\r\nA: b";
        let wish = parse_head(head).unwrap();
        let want = "GET /x?y HTTP/1.1\r\nConnection: close\r\nHost: a.test\r\nA: b\r\n".to_owned();
        assert_eq!(wish, Wish { host: "a.test".into(), port: 81, form: Form::Plain { head: want } });
    }

    #[test]
    fn targets_and_nonsense() {
        let target = |line: &str| parse_head(line).map(|wish| (wish.host, wish.port));
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
            let wish = socks4(&mut &sent[..]).await.unwrap();
            assert_eq!((wish.host.as_str(), wish.port), (host, 80));
        }
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&[5, 1, 0, 5, 1, 0, 3, 3, b'a', b'.', b'b', 1, 187]).await.unwrap();
        let wish = socks5(&mut server).await.unwrap();
        assert_eq!((wish.host.as_str(), wish.port), ("a.b", 443));
    }
}
