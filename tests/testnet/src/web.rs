//! A fake web: one server on loopback that is every site a test needs, and that remembers who came.
//!
//! What a gateway is for can only be seen from the target's side: which address did the request come from? So every
//! request is kept ([`Web::seen`]) with its source, and open connections are counted. Next: `web/pages.rs` lists
//! every page; `web/plant.rs` is what bad exits do; `web/authority.rs` mints the certificates.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::authority::Authority;
pub use self::body::pattern;
pub use self::plant::Plant;
pub use self::record::Seen;
use crate::ground::Ground;
use crate::stage::{self, Task};

mod authority;
mod body;
mod odd;
mod pages;
mod plant;
mod record;
mod server;
mod websocket;

/// Third octet of the web's addresses.
pub(crate) const SUBNET: u8 = 80;
/// Fourth octet of the web itself.
pub(crate) const WEB: u8 = 1;
/// Of the site that hangs.
pub(crate) const HANG: u8 = 2;
/// Of the site where nobody listens.
pub(crate) const CLOSED: u8 = 3;
/// Of the web's second address.
pub(crate) const OTHER: u8 = 4;

/// Port on which every byte comes back.
pub const ECHO_PORT: u16 = 7007;
/// Port that accepts and never answers.
pub const HANG_PORT: u16 = 7008;
/// Port where nobody listens.
pub const REFUSED_PORT: u16 = 7009;
/// Port that resets a connection as soon as it is open.
pub const RESET_PORT: u16 = 7010;

/// A running fake web; it ends, with every connection, with this value.
#[derive(Debug)]
pub struct Web {
    site: Arc<Site>,
    ca: PathBuf,
    http_port: u16,
    https_port: u16,
    dual_port: u16,
    _tasks: Vec<Task>,
    _ground: Arc<Ground>,
}

/// What the connections share.
#[derive(Debug)]
struct Site {
    seen: record::Log,
    open: AtomicUsize,
    accepted: AtomicU64,
    shop: Mutex<HashMap<IpAddr, u16>>,
    folders: Mutex<HashMap<String, PathBuf>>,
    plants: plant::Plants,
    /// Signs for exits that break TLS.
    forger: Arc<Authority>,
}

impl Web {
    /// Starts on `ground`, on ports 80 and 443, or on 8080 and 8443 where those need a privilege that we lack.
    pub async fn start(ground: &Arc<Ground>) -> anyhow::Result<Self> {
        let authority = Authority::new(ground.ip(SUBNET, WEB)).context("cannot make a test CA")?;
        let ca = ground.folder().join("ca.pem");
        std::fs::write(&ca, authority.pem())?;
        let tls = authority.acceptor();
        let site = Arc::new(Site {
            seen: record::Log::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            shop: Mutex::default(),
            folders: Mutex::default(),
            plants: plant::Plants::default(),
            forger: Authority::new(ground.ip(SUBNET, WEB)).context("cannot make a false CA")?,
        });
        let ip = ground.ip(SUBNET, WEB);
        let (http, http_port) = either(ip, 80, 8080).await?;
        let (https, https_port) = either(ip, 443, 8443).await?;
        let other = stage::listen((ground.ip(SUBNET, OTHER), http_port).into()).await?;
        let other_tls = stage::listen((ground.ip(SUBNET, OTHER), https_port).into()).await?;
        let mut tasks = vec![
            serve(http, None, &site),
            serve(other, None, &site),
            serve(https, Some(tls.clone()), &site),
            serve(other_tls, Some(tls), &site),
        ];
        let hang = ground.ip(SUBNET, HANG);
        for address in [(hang, http_port), (hang, https_port), (ip, HANG_PORT)] {
            tasks.push(odd::hang(stage::listen(address.into()).await?));
        }
        tasks.push(odd::echo(stage::listen((ip, ECHO_PORT).into()).await?, &site));
        tasks.push(odd::reset(stage::listen((ip, RESET_PORT).into()).await?));
        let dual_port = 18_000 + u16::from(ground.octet()); // there is one ::1 for all networks, so the port must differ
        tasks.push(serve(stage::listen((ip, dual_port).into()).await?, None, &site));
        if let Ok(listener) = stage::listen((std::net::Ipv6Addr::LOCALHOST, dual_port).into()).await {
            tasks.push(serve(listener, None, &site)); // a machine without IPv6 has no such site
        }
        Ok(Self { site, ca, http_port, https_port, dual_port, _tasks: tasks, _ground: ground.clone() })
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self._ground.ip(SUBNET, WEB)
    }

    /// The port of `http://`: 80, or 8080.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The port of `https://`: 443, or 8443.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// A port of HTTP that also listens on `::1`: what `dual.test` is reached by, over either family.
    pub fn dual_port(&self) -> u16 {
        self.dual_port
    }

    /// `http://host/path`, with the port where it is not 80.
    pub fn http(&self, host: &str, path: &str) -> String {
        url("http", host, self.http_port, 80, path)
    }

    /// `https://host/path`, with the port where it is not 443.
    pub fn https(&self, host: &str, path: &str) -> String {
        url("https", host, self.https_port, 443, path)
    }

    /// The certificate of the CA that signed every `https://` site, as a PEM file.
    pub fn ca_pem(&self) -> &Path {
        &self.ca
    }

    /// Every request so far, oldest first (the last hundred thousand).
    pub fn seen(&self) -> Vec<Seen> {
        self.site.seen.all()
    }

    /// The sources of the requests for paths that begin with `path`, in order.
    pub fn sources(&self, path: &str) -> Vec<IpAddr> {
        self.seen().into_iter().filter(|seen| seen.path.starts_with(path)).map(|seen| seen.source.ip()).collect()
    }

    /// Forgets all requests.
    pub fn forget(&self) {
        self.site.seen.clear();
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.site.open.load(Ordering::Relaxed)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> u64 {
        self.site.accepted.load(Ordering::Relaxed)
    }

    /// Makes `shop.test` answer `status` (403, 429, …) to `source` from now on.
    pub fn shop_refuses(&self, source: impl Into<IpAddr>, status: u16) {
        self.site.shop.lock().unwrap_or_else(PoisonError::into_inner).insert(source.into(), status);
    }

    /// Makes `shop.test` serve `source` again.
    pub fn shop_serves(&self, source: impl Into<IpAddr>) {
        self.site.shop.lock().unwrap_or_else(PoisonError::into_inner).remove(&source.into());
    }

    /// From now on this befalls what leaves from `source`.
    pub fn plant(&self, source: impl Into<IpAddr>, plant: Plant) {
        self.site.plants.put(source.into(), Some(plant));
    }

    /// Nothing befalls what leaves from `source` any more.
    pub fn unplant(&self, source: impl Into<IpAddr>) {
        self.site.plants.put(source.into(), None);
    }

    /// Serves the files of `folder` at `/files/<name>/`, as a dumb HTTP server does (enough for `git clone`).
    pub fn serve_folder(&self, name: &str, folder: &Path) {
        self.site.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), folder.into());
    }
}

fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, site: &Arc<Site>) -> Task {
    let site = site.clone();
    stage::accept(listener, move |stream, peer| server::connection(stream, peer, tls.clone(), site.clone()))
}

/// Listens on the first port, or on the second where the first needs a privilege.
async fn either(ip: Ipv4Addr, port: u16, fallback: u16) -> anyhow::Result<(TcpListener, u16)> {
    match stage::listen(SocketAddr::from((ip, port))).await {
        Ok(listener) => Ok((listener, port)),
        Err(error) if is_denied(&error) => Ok((stage::listen((ip, fallback).into()).await?, fallback)),
        Err(error) => Err(error),
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn url(scheme: &str, host: &str, port: u16, usual: u16, path: &str) -> String {
    if port == usual { format!("{scheme}://{host}{path}") } else { format!("{scheme}://{host}:{port}{path}") }
}
