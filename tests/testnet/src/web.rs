//! A fake web: one server on loopback that serves every site a test needs, and records every request.
//!
//! Only the target can see from which address a request came. So every request is recorded with its source ([`Web::seen`]), and open connections
//! are counted. Next: `web/pages.rs` lists every page, `web/exit_fault.rs` what bad exits do, `web/certificates.rs` makes the
//! certificates.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use self::body::pattern;
pub(crate) use self::certificates::CertificateAuthority;
pub use self::exit_fault::ExitFault;
pub use self::request_log::Seen;
use crate::fake_runtime::{self, Task};
use crate::sandbox::Sandbox;

mod body;
mod certificates;
mod exit_fault;
mod pages;
mod raw_ports;
mod request_log;
mod server;
mod websocket;

/// Third octet of the web's addresses.
pub(crate) const SUBNET: u8 = 80;
/// Fourth octet of the main address.
pub(crate) const WEB: u8 = 1;
/// Fourth octet of the site that hangs.
pub(crate) const HANG: u8 = 2;
/// Fourth octet of the site where nobody listens.
pub(crate) const CLOSED: u8 = 3;
/// Fourth octet of the second address.
pub(crate) const OTHER: u8 = 4;

/// Port that echoes every byte.
pub const ECHO_PORT: u16 = 7007;
/// Port that accepts and never answers.
pub const HANG_PORT: u16 = 7008;
/// Port where nobody listens.
pub const REFUSED_PORT: u16 = 7009;
/// Port that resets a connection as soon as it is open.
pub const RESET_PORT: u16 = 7010;

/// A running fake web; dropping this ends it and every connection.
#[derive(Debug)]
pub struct Web {
    state: Arc<WebState>,
    ca: PathBuf,
    http_port: u16,
    https_port: u16,
    dual_port: u16,
    _tasks: Vec<Task>,
    _sandbox: Arc<Sandbox>,
}

/// What all connections share.
#[derive(Debug)]
struct WebState {
    seen: request_log::Log,
    open: AtomicUsize,
    accepted: AtomicU64,
    shop: Mutex<HashMap<IpAddr, u16>>,
    folders: Mutex<HashMap<String, PathBuf>>,
    exit_faults: exit_fault::ExitFaults,
    /// The CA of exits that break TLS; no client trusts it.
    untrusted_ca: Arc<CertificateAuthority>,
}

impl Web {
    /// Starts on ports 80 and 443, or on 8080 and 8443 if this user may not use those.
    pub async fn start(sandbox: &Arc<Sandbox>) -> anyhow::Result<Self> {
        let authority = CertificateAuthority::new(sandbox.ip(SUBNET, WEB)).context("cannot make a test CA")?;
        let ca = sandbox.folder().join("ca.pem");
        std::fs::write(&ca, authority.pem())?;
        let tls = authority.acceptor();
        let state = Arc::new(WebState {
            seen: request_log::Log::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            shop: Mutex::default(),
            folders: Mutex::default(),
            exit_faults: exit_fault::ExitFaults::default(),
            untrusted_ca: CertificateAuthority::new(sandbox.ip(SUBNET, WEB)).context("cannot make a false CA")?,
        });
        let ip = sandbox.ip(SUBNET, WEB);
        let (http, http_port) = listen_on_either(ip, 80, 8080).await?;
        let (https, https_port) = listen_on_either(ip, 443, 8443).await?;
        let other = fake_runtime::listen((sandbox.ip(SUBNET, OTHER), http_port).into()).await?;
        let other_tls = fake_runtime::listen((sandbox.ip(SUBNET, OTHER), https_port).into()).await?;
        let mut tasks = vec![
            serve(http, None, &state),
            serve(other, None, &state),
            serve(https, Some(tls.clone()), &state),
            serve(other_tls, Some(tls), &state),
        ];
        let hang = sandbox.ip(SUBNET, HANG);
        for address in [(hang, http_port), (hang, https_port), (ip, HANG_PORT)] {
            tasks.push(raw_ports::hang(fake_runtime::listen(address.into()).await?));
        }
        tasks.push(raw_ports::echo(fake_runtime::listen((ip, ECHO_PORT).into()).await?, &state));
        tasks.push(raw_ports::reset(fake_runtime::listen((ip, RESET_PORT).into()).await?));
        let dual_port = 18_000 + u16::from(sandbox.octet()); // all sandboxes share ::1, so the port must differ
        tasks.push(serve(fake_runtime::listen((ip, dual_port).into()).await?, None, &state));
        if let Ok(listener) = fake_runtime::listen((std::net::Ipv6Addr::LOCALHOST, dual_port).into()).await {
            tasks.push(serve(listener, None, &state)); // fails on a machine without IPv6
        }
        Ok(Self { state, ca, http_port, https_port, dual_port, _tasks: tasks, _sandbox: sandbox.clone() })
    }

    pub fn ip(&self) -> Ipv4Addr {
        self._sandbox.ip(SUBNET, WEB)
    }

    /// A second address of the web with the same pages, which counts as another server.
    pub fn other_ip(&self) -> Ipv4Addr {
        self._sandbox.ip(SUBNET, OTHER)
    }

    /// The port of `http://`: 80, or 8080.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The port of `https://`: 443, or 8443.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// An HTTP port that also listens on `::1`: the port of `dual.test`, over IPv4 and IPv6.
    pub fn dual_port(&self) -> u16 {
        self.dual_port
    }

    /// `http://host/path`, with the port if it is not 80.
    pub fn http(&self, host: &str, path: &str) -> String {
        url("http", host, self.http_port, 80, path)
    }

    /// `https://host/path`, with the port if it is not 443.
    pub fn https(&self, host: &str, path: &str) -> String {
        url("https", host, self.https_port, 443, path)
    }

    /// The PEM file with the certificate of the CA that signs every `https://` site.
    pub fn ca_pem(&self) -> &Path {
        &self.ca
    }

    /// Every request, oldest first; at most the last hundred thousand.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.all()
    }

    /// The sources of requests whose path begins with `path`, in order.
    pub fn sources(&self, path: &str) -> Vec<IpAddr> {
        self.seen().into_iter().filter(|seen| seen.path.starts_with(path)).map(|seen| seen.source.ip()).collect()
    }

    /// Forgets all recorded requests.
    pub fn forget(&self) {
        self.state.seen.clear();
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Makes `shop.test` answer `status` (403, 429, …) to `source` from now on.
    pub fn shop_refuses(&self, source: impl Into<IpAddr>, status: u16) {
        self.state.shop.lock().unwrap_or_else(PoisonError::into_inner).insert(source.into(), status);
    }

    /// Makes `shop.test` serve `source` again.
    pub fn shop_serves(&self, source: impl Into<IpAddr>) {
        self.state.shop.lock().unwrap_or_else(PoisonError::into_inner).remove(&source.into());
    }

    /// From now on the web plays this fault to requests from `source`.
    pub fn plant(&self, source: impl Into<IpAddr>, fault: ExitFault) {
        self.state.exit_faults.put(source.into(), Some(fault));
    }

    /// Ends the fault of `source`.
    pub fn unplant(&self, source: impl Into<IpAddr>) {
        self.state.exit_faults.put(source.into(), None);
    }

    /// Serves the files of `folder` at `/files/<name>/`, which is enough for `git clone`.
    pub fn serve_folder(&self, name: &str, folder: &Path) {
        self.state.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), folder.into());
    }
}

fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: &Arc<WebState>) -> Task {
    let state = state.clone();
    fake_runtime::accept(listener, move |stream, peer| server::connection(stream, peer, tls.clone(), state.clone()))
}

/// Listens on the first port, or on the second if this user may not use the first.
async fn listen_on_either(ip: Ipv4Addr, port: u16, fallback: u16) -> anyhow::Result<(TcpListener, u16)> {
    match fake_runtime::listen(SocketAddr::from((ip, port))).await {
        Ok(listener) => Ok((listener, port)),
        Err(error) if is_denied(&error) => Ok((fake_runtime::listen((ip, fallback).into()).await?, fallback)),
        Err(error) => Err(error),
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn url(scheme: &str, host: &str, port: u16, usual: u16, path: &str) -> String {
    if port == usual { format!("{scheme}://{host}{path}") } else { format!("{scheme}://{host}:{port}{path}") }
}
