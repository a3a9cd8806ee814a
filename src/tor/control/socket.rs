//! The address of a port of tor (a unix path or a TCP address), and the socket that is connected to this address.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};

use crate::config::Endpoint;
use crate::net::{Host, Target};

/// The address of a control port or a SOCKS port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
}

/// Error: the text is neither `unix:/path`, `/path` nor `ip:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address of tor is unix:/path, /path or ip:port")]
pub struct BadAddr;

impl Addr {
    /// Returns the current address of `at`. A host name is looked up each time, because a container may get another
    /// address at its restart. If the name has several addresses, an IPv4 address is used, because tor listens on IPv4
    /// by default.
    pub async fn find(at: &Endpoint) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "there is no such host name");
        Self::all(at).await?.into_iter().next().ok_or_else(unknown)
    }

    /// Returns all current addresses of `at`, IPv4 first. The list is empty if the host name does not exist.
    pub async fn all(at: &Endpoint) -> io::Result<Vec<Self>> {
        let Target { host, port } = match at {
            Endpoint::Unix(path) => return Ok(vec![Self::Unix(path.clone())]),
            Endpoint::Tcp(target) => target,
        };
        let name = match host {
            Host::Ip(ip) => return Ok(vec![Self::Tcp(SocketAddr::new(*ip, *port))]),
            Host::Name(name) => name,
        };
        #[expect(clippy::disallowed_methods, reason = "the operator's own tor, and not a client's target")]
        let mut found: Vec<_> = match tokio::net::lookup_host((&**name, *port)).await {
            Ok(found) => found.collect(),
            Err(error) if is_unknown(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(Self::Tcp).collect())
    }

    /// Returns this address with the port of `at`.
    pub(in crate::tor) fn with_port(&self, at: &Endpoint) -> Self {
        match (self, at) {
            (Self::Tcp(addr), Endpoint::Tcp(target)) => Self::Tcp(SocketAddr::new(addr.ip(), target.port)),
            _ => self.clone(),
        }
    }
}

/// Returns true if the error means that the host name does not exist. The standard library shows this only in the
/// error's text. The compared texts are those of glibc and musl for EAI_NONAME and EAI_NODATA.
fn is_unknown(error: &io::Error) -> bool {
    let text = error.to_string();
    [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname",
    ]
    .iter()
    .any(|words| text.contains(words))
}

impl FromStr for Addr {
    type Err = BadAddr;

    fn from_str(text: &str) -> Result<Self, BadAddr> {
        match text.strip_prefix("unix:").unwrap_or(text) {
            path if path.starts_with('/') => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| BadAddr),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => write!(f, "{addr}"),
        }
    }
}

/// A unix or TCP socket without blocking, which many tasks may use at the same time.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    #[expect(clippy::disallowed_methods, reason = "this goes to an engine, whose address no client chooses")]
    pub(super) async fn connect(addr: &Addr) -> io::Result<Self> {
        match addr {
            Addr::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Addr::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?; // commands are small, and a caller waits for each
                Ok(Self::Tcp(stream))
            }
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.readable().await,
            Self::Tcp(stream) => stream.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.writable().await,
            Self::Tcp(stream) => stream.writable().await,
        }
    }

    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read_buf(buffer),
            Self::Tcp(stream) => stream.try_read_buf(buffer),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_what_is_written() {
        let find = async |text: &str| Addr::find(&Endpoint::Tcp(text.parse().unwrap())).await;
        assert_eq!(find("127.0.0.7:9051").await.unwrap().to_string(), "127.0.0.7:9051");
        assert_eq!(find("localhost:9051").await.unwrap().to_string(), "127.0.0.1:9051");
        let error = find("tor.invalid:9051").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        let all = async |text: &str| Addr::all(&Endpoint::Tcp(text.parse().unwrap())).await.unwrap();
        assert!(all("tor.invalid:9051").await.is_empty());
        let here = all("localhost:9051").await;
        let socks = here[0].with_port(&Endpoint::Tcp("localhost:9050".parse().unwrap()));
        assert_eq!(socks.to_string(), "127.0.0.1:9050");
        let path = Endpoint::Unix("/run/tor/control".into());
        assert_eq!(Addr::find(&path).await.unwrap().to_string(), "unix:/run/tor/control");
    }

    #[test]
    fn reads_the_forms_of_an_address() {
        for (text, want) in [
            ("unix:/run/tor/control", Some("unix:/run/tor/control")),
            ("/run/tor/control", Some("unix:/run/tor/control")),
            ("127.0.0.1:9051", Some("127.0.0.1:9051")),
            ("[::1]:9051", Some("[::1]:9051")),
            ("tor:9051", None),
            ("9051", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Addr>().ok().map(|addr| addr.to_string()).as_deref(), want, "{text}");
        }
    }
}
