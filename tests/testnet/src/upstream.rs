//! Proxies of one's own, with logins: HTTP (also over TLS), SOCKS4 and SOCKS5.
//!
//! What such a proxy does with a login is a function of the test: it lets a client leave from an address, or answers with a
//! refusal. Next: `upstream/provider.rs` (the gateways of providers, where each session has an address).

mod provider;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::dns::Names;
use crate::fake_runtime::{self, Task};
use crate::public::mix;
use crate::sandbox::Sandbox;
use crate::web::CertificateAuthority;
use crate::{Dns, layout};

pub use self::provider::{Grammar, Provider, Standing};

/// The longest request head that is read.
const MAX_HEAD: usize = 16 * 1024;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Http,
    /// HTTP in TLS.
    Https,
    Socks4,
    Socks5,
}

/// What a proxy does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Opens the tunnel from this address.
    Leave(Ipv4Addr),
    /// Refuses the login: 407, or the code of SOCKS.
    BadLogin,
    /// Answers CONNECT with these bytes. SOCKS answers with a general failure.
    Answer(String),
    /// Says nothing.
    Silent,
}

/// Decides on a request by its username and password.
pub type Decide = Arc<dyn Fn(&str, &str) -> Verdict + Send + Sync>;

/// A running proxy; dropping this ends it.
pub struct OwnProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca: Option<PathBuf>,
    _task: Task,
}

struct Shared {
    spoken: Spoken,
    decide: Decide,
    dns: Arc<Names>,
    tls: Option<TlsAcceptor>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl OwnProxy {
    /// Starts a proxy at this address; port 0 takes a free one.
    pub async fn start(
        sandbox: &Sandbox,
        dns: &Dns,
        address: SocketAddr,
        spoken: Spoken,
        decide: Decide,
    ) -> anyhow::Result<Self> {
        let listener = fake_runtime::listen(address).await?;
        let address = listener.local_addr()?;
        let IpAddr::V4(ip) = address.ip() else { bail!("an IPv4 address is needed") };
        let (mut tls, mut ca) = (None, None);
        if spoken == Spoken::Https {
            let authority = CertificateAuthority::new(ip).context("cannot make a CA")?;
            let path = sandbox.folder().join(format!("proxy-{}-{}.pem", ip, address.port()));
            std::fs::write(&path, authority.pem())?;
            (tls, ca) = (Some(authority.acceptor()), Some(path));
        }
        let (requests, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { spoken, decide, dns: dns.names(), tls, requests, bytes });
        let served = shared.clone();
        let task = fake_runtime::accept(listener, move |stream, _| {
            let shared = served.clone();
            async move { drop(serve(stream, &shared).await) } // an error of either side ends the connection
        });
        Ok(Self { address, shared, ca, _task: task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificates to trust for TLS to this proxy.
    pub fn ca_pem(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// How many requests arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many bytes tunnels carried, both ways: what a provider would bill.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

/// An address that the geoip file of [`geoip`] has in this country.
pub fn address_in(sandbox: &Sandbox, country: &str, number: u8) -> Ipv4Addr {
    let block = mix::COUNTRIES.iter().position(|known| *known == country);
    let block = block.unwrap_or_else(|| panic!("{country} is none of {:?}", mix::COUNTRIES)) as u8;
    sandbox.ip(mix::FIRST_SUBNET + block * mix::SUBNETS_A_COUNTRY, number)
}

/// Writes a `GeoIPFile` that knows the countries of [`address_in`].
pub fn geoip(sandbox: &Sandbox) -> anyhow::Result<PathBuf> {
    let path = sandbox.folder().join("geoip-upstream");
    std::fs::write(&path, layout::geoip(&[], sandbox))?;
    Ok(path)
}

async fn serve(stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    match &shared.tls {
        None => speak(stream, shared).await,
        Some(tls) => speak(tls.accept(stream).await?, shared).await,
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(mut client: S, shared: &Shared) -> anyhow::Result<()> {
    let asked = match shared.spoken {
        Spoken::Http | Spoken::Https => http(&mut client).await?,
        Spoken::Socks4 => socks4(&mut client).await?,
        Spoken::Socks5 => socks5(&mut client, shared).await?,
    };
    let Asked { host, port, user, password } = asked;
    if shared.spoken != Spoken::Socks5 {
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
    let verdict = (shared.decide)(&user, &password);
    let answer = match (&verdict, shared.spoken) {
        (Verdict::Silent, _) => return std::future::pending().await,
        (Verdict::Leave(_), _) => None,
        (Verdict::Answer(text), Spoken::Http | Spoken::Https) => Some(text.clone().into_bytes()),
        (Verdict::BadLogin, Spoken::Http | Spoken::Https) => Some(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        (_, Spoken::Socks4) => Some(vec![0, 93, 0, 0, 0, 0, 0, 0]),
        (_, Spoken::Socks5) => Some(vec![5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
    };
    if let Some(answer) = answer {
        client.write_all(&answer).await?;
        return Ok(client.shutdown().await?);
    }
    let Verdict::Leave(from) = verdict else { return Ok(()) };
    let mut target = dial(&host, port, from, shared).await?;
    let open: &[u8] = match shared.spoken {
        Spoken::Http | Spoken::Https => b"HTTP/1.1 200 Connection established\r\n\r\n",
        Spoken::Socks4 => &[0, 90, 0, 0, 0, 0, 0, 0],
        Spoken::Socks5 => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    };
    client.write_all(open).await?;
    let (up, down) = copy_bidirectional(&mut client, &mut target).await?;
    shared.bytes.fetch_add(up + down, Ordering::Relaxed);
    Ok(())
}

/// Connects from this address, and to nowhere but loopback.
async fn dial(host: &str, port: u16, from: Ipv4Addr, shared: &Shared) -> anyhow::Result<TcpStream> {
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => shared.dns.resolve(host).context("no such name")?,
    };
    ensure!(ip.is_loopback(), "{ip} is not on loopback");
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    Ok(socket.connect((ip, port).into()).await?)
}

struct Asked {
    host: String,
    port: u16,
    user: String,
    password: String,
}

async fn http(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the head is too long");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).context("no CONNECT")?;
    let (host, port) = target.rsplit_once(':').context("no port")?;
    let coded = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
    let login = coded.map(|coded| STANDARD.decode(coded.trim())).transpose()?.unwrap_or_default();
    let login = String::from_utf8(login)?;
    let (user, password) = login.split_once(':').unwrap_or((&login, ""));
    Ok(Asked { host: host.into(), port: port.parse()?, user: user.into(), password: password.into() })
}

async fn socks4(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Asked> {
    let mut head = [0; 8];
    client.read_exact(&mut head).await?;
    ensure!(head[..2] == [4, 1], "no SOCKS4");
    let port = u16::from_be_bytes([head[2], head[3]]);
    let user = until_zero(client).await?;
    let host = match head[4..] {
        [0, 0, 0, _] => until_zero(client).await?,
        [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
        _ => unreachable!("four bytes are left"),
    };
    Ok(Asked { host, port, user, password: String::new() })
}

async fn until_zero(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut text = Vec::new();
    loop {
        match client.read_u8().await? {
            0 => return Ok(String::from_utf8(text)?),
            byte => text.push(byte),
        }
        ensure!(text.len() < 256, "the text is too long");
    }
}

/// Speaks SOCKS5 up to the request. The login must be right already for the greeting, as at real proxies.
async fn socks5(client: &mut (impl AsyncRead + AsyncWrite + Unpin), shared: &Shared) -> anyhow::Result<Asked> {
    let [version, count] = array(client).await?;
    ensure!(version == 5, "no SOCKS5");
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let (mut user, mut password) = (String::new(), String::new());
    if methods.contains(&2) {
        client.write_all(&[5, 2]).await?;
        let [_, length] = array(client).await?;
        user = text(client, length).await?;
        let [length] = array(client).await?;
        password = text(client, length).await?;
        let refused = (shared.decide)(&user, &password) == Verdict::BadLogin;
        client.write_all(&[1, u8::from(refused)]).await?;
        ensure!(!refused, "the login is wrong");
    } else if (shared.decide)("", "") == Verdict::BadLogin {
        client.write_all(&[5, 0xff]).await?;
        bail!("a login is needed");
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let [_, command, _, kind] = array(client).await?;
    ensure!(command == 1, "no CONNECT");
    let host = match kind {
        1 => Ipv4Addr::from(array::<4>(client).await?).to_string(),
        3 => {
            let [length] = array(client).await?;
            text(client, length).await?
        }
        _ => bail!("this kind of address is not served"),
    };
    let port = u16::from_be_bytes(array(client).await?);
    Ok(Asked { host, port, user, password })
}

async fn array<const N: usize>(client: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn text(client: &mut (impl AsyncRead + Unpin), length: u8) -> anyhow::Result<String> {
    let mut bytes = vec![0; usize::from(length)];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes)?)
}
