//! Hundreds or thousands of public proxies, each listening, and the list that names them.
//!
//! Most entries of a free proxy list are wrong: dead hosts, proxies that hang, that claim another address, that read what they relay.
//! Here the truth about each proxy is known, so that a test can compare a gateway's verdicts with it ([`PublicProxies::proxies`]).
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
use crate::dns::Names;
use crate::fake_runtime::{self, Task};
use crate::sandbox::Sandbox;
pub use crate::source_behaviour::Behaviour;
use crate::web::CertificateAuthority;
use crate::{Dns, Web, layout, process};

mod cdn;
mod list;
pub(crate) mod mix;
mod proxy_request;
mod serve;

/// Running proxies and their list; dropping this ends them.
#[derive(Debug)]
pub struct PublicProxies {
    pub cdn: Cdn,
    fakes: Vec<Arc<FakeProxy>>,
    shared: Arc<Shared>,
    geoip: PathBuf,
    _sandbox: Arc<Sandbox>,
}

/// A proxy that runs, or could run.
#[derive(Debug)]
struct FakeProxy {
    truth: Proxy,
    /// What it does now; a test may change it.
    kind: Mutex<Kind>,
    served: AtomicU64,
    task: Mutex<Option<Task>>,
}

/// What all proxies use.
struct Shared {
    dns: Arc<Names>,
    /// Makes certificates that are signed by a CA that nobody trusts.
    untrusted: TlsAcceptor,
    /// The CA of the fake web, for the connection to the target where a proxy breaks TLS.
    ca: PathBuf,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive() // keys
    }
}

impl PublicProxies {
    /// Starts all proxies of a mix, and their list. They resolve names by `dns`, and refuse targets that are not on loopback.
    pub async fn start(sandbox: &Arc<Sandbox>, dns: &Dns, web: &Web, mix: &Mix) -> anyhow::Result<Self> {
        let proxies = mix::lay_out(mix, sandbox)?;
        let listeners = proxies.iter().filter(|proxy| proxy.kind != Kind::Dead).count() as u64;
        let (allowed, needed) = (process::allow_files()?, listeners + SPARE_FILES);
        ensure!(allowed >= needed, "{needed} open files are needed and {allowed} allowed: raise `ulimit -Hn`");
        let untrusted = CertificateAuthority::new(web.ip()).context("cannot make a second CA")?.acceptor();
        let shared = Arc::new(Shared { dns: dns.names(), untrusted, ca: web.ca_pem().to_owned() });
        let geoip = sandbox.folder().join("geoip-public");
        fs::write(&geoip, layout::geoip(&[], sandbox))?;
        let mut fakes = Vec::with_capacity(proxies.len());
        for proxy in &proxies {
            let fake = Arc::new(FakeProxy {
                kind: Mutex::new(proxy.kind),
                truth: proxy.clone(),
                served: AtomicU64::new(0),
                task: Mutex::default(),
            });
            fake.listen(&shared).await?;
            fakes.push(fake);
        }
        let cdn = Cdn::start(sandbox, proxies).await?;
        Ok(Self { cdn, fakes, shared, geoip, _sandbox: sandbox.clone() })
    }

    /// The truth about every proxy.
    pub fn proxies(&self) -> Vec<&Proxy> {
        self.fakes.iter().map(|fake| &fake.truth).collect()
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
        self.fake(proxy).served.load(Ordering::Relaxed)
    }

    /// Makes a proxy behave as another kind from its next connection on. [`PublicProxies::proxies`] still returns the original kind.
    pub async fn change_kind(&self, proxy: &Proxy, kind: Kind) -> anyhow::Result<()> {
        let fake = self.fake(proxy);
        *fake.kind.lock().unwrap_or_else(PoisonError::into_inner) = kind;
        fake.listen(&self.shared).await
    }

    /// A `GeoIPFile` with the countries of all proxies. The file of the Tor network has them too.
    pub fn geoip_file(&self) -> PathBuf {
        self.geoip.clone()
    }

    fn fake(&self, proxy: &Proxy) -> &Arc<FakeProxy> {
        let found = self.fakes.iter().find(|fake| fake.truth.address == proxy.address);
        found.unwrap_or_else(|| panic!("{} is not one of these", proxy.address))
    }
}

/// Open files beyond the listeners: both sides of a few hundred connections, and what the test itself opens.
const SPARE_FILES: u64 = 1024;

impl FakeProxy {
    fn kind(&self) -> Kind {
        *self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to listen; a dead proxy stops.
    async fn listen(self: &Arc<Self>, shared: &Arc<Shared>) -> anyhow::Result<()> {
        let listens = self.task.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let task = match (self.kind(), listens) {
            (Kind::Dead, _) => None,
            (_, true) => return Ok(()),
            (_, false) => {
                let listener = fake_runtime::listen(SocketAddr::V4(self.truth.address)).await?;
                let (fake, shared) = (Arc::downgrade(self), shared.clone());
                Some(fake_runtime::accept(listener, move |stream, source| {
                    let (fake, shared) = (fake.upgrade(), shared.clone());
                    async move {
                        if let Some(fake) = fake {
                            serve::connection(stream, source, &fake, &shared).await;
                        }
                    }
                }))
            }
        };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
        Ok(())
    }
}
