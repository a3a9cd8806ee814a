//! Public proxies by the hundred or thousand, each really listening, and the list that names them.
//!
//! A free proxy list is mostly lies: dead hosts, proxies that hang, that claim another address, that read what they carry.
//! Here the truth about each is planted, so that a test can hold a gateway's verdicts against it ([`PublicProxies::proxies`]).
//! The list has the shape of ProxiFly's CDN. Next: `public/mix.rs` (the kinds), `public/serve.rs` (what each does).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use tokio_rustls::TlsAcceptor;

pub(crate) use self::cdn::SUBNET as CDN_SUBNET;
pub use self::cdn::{Cdn, PORT as CDN_PORT};
pub use self::mix::{Kind, Mix, Protocol, Proxy};
pub use crate::behaviour::Behaviour;
use crate::dns::Book;
use crate::ground::Ground;
use crate::stage::{self, Task};
use crate::web::Authority;
use crate::{Dns, Web, layout, process};

mod cdn;
mod handshake;
mod list;
pub(crate) mod mix;
mod serve;

/// Running proxies and their list; they end with this value.
#[derive(Debug)]
pub struct PublicProxies {
    /// The list.
    pub cdn: Cdn,
    stations: Vec<Arc<Station>>,
    shared: Arc<Shared>,
    geoip: PathBuf,
    _ground: Arc<Ground>,
}

/// Where one proxy stands.
#[derive(Debug)]
struct Station {
    proxy: Proxy,
    /// What it does now; a test may change it.
    kind: Mutex<Kind>,
    served: AtomicU64,
    task: Mutex<Option<Task>>,
}

/// What all proxies use.
struct Shared {
    dns: Arc<Book>,
    /// Forges certificates, signed by a CA that nobody trusts.
    forger: TlsAcceptor,
    /// The CA of the web, for the far side of a broken TLS connection.
    ca: PathBuf,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive() // keys
    }
}

impl PublicProxies {
    /// Starts all proxies of a mix, and their list. Names are resolved as `dns` says; targets outside loopback are refused.
    pub async fn start(ground: &Arc<Ground>, dns: &Dns, web: &Web, mix: &Mix) -> anyhow::Result<Self> {
        let proxies = mix::lay_out(mix, ground)?;
        let listeners = proxies.iter().filter(|proxy| proxy.kind != Kind::Dead).count() as u64;
        let (allowed, needed) = (process::allow_files()?, listeners + SPARE_FILES);
        ensure!(allowed >= needed, "{needed} open files are needed and {allowed} allowed: raise `ulimit -Hn`");
        let forger = Authority::new(web.ip()).context("cannot make a second CA")?.acceptor();
        let shared = Arc::new(Shared { dns: dns.book(), forger, ca: web.ca_pem().to_owned() });
        let geoip = ground.folder().join("geoip-public");
        fs::write(&geoip, layout::geoip(&[], ground))?;
        let mut stations = Vec::with_capacity(proxies.len());
        for proxy in &proxies {
            let station = Arc::new(Station {
                kind: Mutex::new(proxy.kind),
                proxy: proxy.clone(),
                served: AtomicU64::new(0),
                task: Mutex::default(),
            });
            station.open(&shared).await?;
            stations.push(station);
        }
        let cdn = Cdn::start(ground, proxies).await?;
        Ok(Self { cdn, stations, shared, geoip, _ground: ground.clone() })
    }

    /// The truth about every proxy.
    pub fn proxies(&self) -> Vec<&Proxy> {
        self.stations.iter().map(|station| &station.proxy).collect()
    }

    /// The proxies of one kind.
    pub fn of_kind(&self, kind: Kind) -> Vec<&Proxy> {
        self.proxies().into_iter().filter(|proxy| proxy.kind == kind).collect()
    }

    /// The proxy that a target sees as `ip`.
    pub fn at(&self, ip: IpAddr) -> Option<&Proxy> {
        self.proxies().into_iter().find(|proxy| IpAddr::V4(*proxy.address.ip()) == ip)
    }

    /// How many connections a proxy has had.
    pub fn served(&self, proxy: &Proxy) -> u64 {
        self.station(proxy).served.load(Ordering::Relaxed)
    }

    /// Makes a proxy behave as another kind from the next connection on; what [`PublicProxies::proxies`] says stays.
    pub async fn turn(&self, proxy: &Proxy, kind: Kind) -> anyhow::Result<()> {
        let station = self.station(proxy);
        *station.kind.lock().unwrap_or_else(PoisonError::into_inner) = kind;
        station.open(&self.shared).await
    }

    /// A `GeoIPFile` with the countries of all proxies; the network's own has them too.
    pub fn geoip_file(&self) -> PathBuf {
        self.geoip.clone()
    }

    fn station(&self, proxy: &Proxy) -> &Arc<Station> {
        let found = self.stations.iter().find(|station| station.proxy.address == proxy.address);
        found.unwrap_or_else(|| panic!("{} is not one of these", proxy.address))
    }
}

/// Files beyond the listeners: both sides of a few hundred connections at once, and whatever the test itself opens.
const SPARE_FILES: u64 = 1024;

impl Station {
    fn kind(&self) -> Kind {
        *self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens, unless it is dead; a dead one that listened stops.
    async fn open(self: &Arc<Self>, shared: &Arc<Shared>) -> anyhow::Result<()> {
        let listens = self.task.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let task = match (self.kind(), listens) {
            (Kind::Dead, _) => None,
            (_, true) => return Ok(()),
            (_, false) => {
                let listener = stage::listen(SocketAddr::V4(self.proxy.address)).await?;
                let (station, shared) = (Arc::downgrade(self), shared.clone());
                Some(stage::accept(listener, move |stream, source| {
                    let (station, shared) = (station.upgrade(), shared.clone());
                    async move {
                        if let Some(station) = station {
                            serve::connection(stream, source, &station, &shared).await;
                        }
                    }
                }))
            }
        };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
        Ok(())
    }
}
