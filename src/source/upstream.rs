//! Lists of proxies of one's own (`[[sources.upstream]]`): from the configuration, a file, or a URL.
//!
//! Each list has a worker. A file is read again when it changes, a URL is fetched at an interval. If a list cannot be
//! read, the last list stays in use, and `/sources` shows the reason.
//!
//! A list that its owner empties is obeyed: other than a free list, it has no reason to be empty by mistake. Neither
//! `/sources` nor the log shows an entry or the URL, because both may contain a login.
//!
//! Next: `source/upstream/entry.rs` parses a list. `source/upstream/sessions.rs` keeps the sessions of the gateway of a
//! provider. [`crate::check`] tests the exits.

mod demand;
mod entry;
mod plan;
mod sessions;
mod template;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use self::entry::{Entry, Read};
use super::fetch::{Client, Connect, Limits, Validators};
use super::handle::{Handle, report};
use crate::config::{ProxiesFrom, Upstream};
use crate::exit::country::{Country, GeoIp};
use crate::exit::{ExitId, Listing, Protocol, ProxyTls, Source, UpstreamId, UpstreamProxy};
use crate::lifecycle::Tasks;
use crate::net::Host;
use crate::state::{Change, State};
use crate::store::{self, Store, Write};

/// The time between two looks at a file. A look costs one system call.
const LOOK: Duration = Duration::from_secs(2);

/// The first pause after a fetch failed. The pause doubles with each failure, up to the interval of the source.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// How long the worker waits before it removes exits that have left the list. Their open connections may finish.
const REMOVE: Duration = Duration::from_secs(10);

/// The largest list that is read, in bytes: 20,000 proxies with long logins take 4 MB.
const LONGEST: u64 = 8 << 20;

/// How many entries that cannot be used the reason in `/sources` names.
const SHOWN: usize = 3;

/// Why a source of upstream exits cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("sources.upstream[{name}]: {why}")]
pub struct BadUpstream {
    name: &'static str,
    why: String,
}

/// What the workers of all lists need.
pub struct Lists<C> {
    pub client: Client<C>,
    pub geoip: Arc<GeoIp>,
    pub state: State,
    /// Stores the status of the lists.
    pub store: Option<Store>,
    /// The status of each source at the end of the last run.
    pub known: Vec<store::Source>,
}

impl<C: Connect> Lists<C> {
    /// Starts the worker of one source. A list that is in the configuration or in a file is read before this function
    /// returns, so its exits are known before the first client connects.
    pub async fn start(&self, config: &Upstream, tasks: &Tasks) -> Result<Handle, BadUpstream> {
        let name = config.name.as_str();
        let of_last_run = self.known.iter().find(|source| source.name == config.name.as_str()).cloned();
        if let ProxiesFrom::Gateway(gateway) = &config.proxies {
            let (state, store) = (self.state.clone(), self.store.clone());
            return sessions::start(config, gateway, state, store, of_last_run, tasks);
        }
        let tls = connector(config).map_err(|why| BadUpstream { name, why })?;
        let known = of_last_run.map(|known| store::Source { next: None, ..known });
        let (handle, status) = Handle::new(name, known);
        let worker = Worker {
            config: config.clone(),
            tls,
            client: self.client.clone(),
            geoip: self.geoip.clone(),
            state: self.state.clone(),
            store: self.store.clone(),
            status,
            refresh: handle.refresh.clone(),
            read: None,
            looked: None,
            fetch_at: None,
            removed: None,
            failures: 0,
        };
        let worker = Arc::new(tokio::sync::Mutex::new(worker));
        if !matches!(config.proxies, ProxiesFrom::Url { .. }) {
            worker.lock().await.read().await;
        }
        let stopping = tasks.clone();
        tasks.supervise("upstream source", move || {
            let (worker, stopping) = (worker.clone(), stopping.clone());
            async move {
                let mut worker = worker.lock().await;
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = worker.run() => {}
                }
            }
        });
        Ok(handle)
    }
}

/// Returns the TLS settings for connections to the proxies of a source.
fn connector(config: &Upstream) -> Result<ProxyTls, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca_file {
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let certificates = certificates.map_err(|error| format!("ca_file cannot be read: {error}"))?;
        roots.add_parsable_certificates(certificates);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let settings = versions.with_root_certificates(roots).with_no_client_auth();
    Ok(ProxyTls(TlsConnector::from(Arc::new(settings))))
}

/// What shows whether a file has changed: the time of its last change, and its length.
type Stamp = (SystemTime, u64);

struct Worker<C> {
    config: Upstream,
    tls: ProxyTls,
    client: Client<C>,
    geoip: Arc<GeoIp>,
    state: State,
    store: Option<Store>,
    status: watch::Sender<store::Source>,
    refresh: Arc<tokio::sync::Notify>,
    /// The stamp of the file when it was last read. `None` if no file was read.
    read: Option<Stamp>,
    /// The stamp of the file at the last look.
    looked: Option<Stamp>,
    /// When the URL is fetched next. `None` before the first fetch.
    fetch_at: Option<Instant>,
    /// When the exits that have left the list were last removed.
    removed: Option<Instant>,
    /// How many attempts in a row failed.
    failures: u32,
}

/// Why a list cannot be read: the code for metrics, and the reason in words.
type Unread = (&'static str, String);

impl<C: Connect> Worker<C> {
    async fn run(&mut self) {
        if matches!(self.config.proxies, ProxiesFrom::Url { .. }) {
            self.read().await;
        }
        loop {
            let pause = self.pause();
            let forced = tokio::select! {
                () = self.refresh.notified() => true,
                () = tokio::time::sleep(pause) => false,
            };
            let is_due = match &self.config.proxies {
                ProxiesFrom::Here(_) | ProxiesFrom::Gateway(_) => false,
                ProxiesFrom::File(path) => {
                    // A file that changes at this moment is read at a later look, when it is complete.
                    let before = self.looked;
                    self.looked = stamp(path.clone()).await;
                    self.looked != self.read && self.looked == before
                }
                ProxiesFrom::Url { .. } => self.fetch_at.is_none_or(|at| at <= Instant::now()),
            };
            if forced || is_due {
                self.read().await;
            }
            if self.removed.is_none_or(|at| at.elapsed() >= REMOVE) {
                self.removed = Some(Instant::now());
                self.remove_gone().await;
            }
        }
    }

    /// Returns the time until the next look at the list.
    fn pause(&self) -> Duration {
        match &self.config.proxies {
            ProxiesFrom::Url { .. } => {
                let left = self.fetch_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
                if self.has_draining() { left.min(REMOVE) } else { left }
            }
            ProxiesFrom::File(_) => LOOK,
            ProxiesFrom::Here(_) | ProxiesFrom::Gateway(_) => {
                if self.has_draining() {
                    REMOVE
                } else {
                    Duration::from_secs(3600)
                }
            }
        }
    }

    /// Returns the time from one fetch of the URL to the next.
    fn fetch_pause(&self) -> Option<Duration> {
        let ProxiesFrom::Url { every, .. } = &self.config.proxies else { return None };
        let failed = self.failures.checked_sub(1).map(|again| FIRST_PAUSE * (1 << again.min(16)));
        Some(failed.map_or(*every, |pause| pause.min(*every)))
    }

    fn source(&self) -> Source {
        Source::Upstream(self.config.name)
    }

    /// Returns true if an exit has left the list and can be removed: it carries no connection and is not condemned.
    fn has_draining(&self) -> bool {
        let snapshot = self.state.load();
        let mut own = snapshot.catalog.iter().filter(|exit| exit.id().source() == self.source());
        own.any(|exit| {
            let marks = exit.known().marks;
            marks.draining && !marks.bad_for_good && exit.load().in_flight() == 0
        })
    }

    /// Reads the list, applies it, and publishes the status of the source.
    async fn read(&mut self) {
        let before = self.status.borrow().clone();
        let now = self.state.now();
        let text = self.text().await;
        let read = text.and_then(|text| entry::list(&text, self.config.scheme).map_err(|why| ("garbage", why.into())));
        let read = read.and_then(usable);
        let mut status = store::Source { attempt: Some(now), ..before.clone() };
        match read {
            Ok(read) => {
                self.failures = 0;
                (status.records, status.skipped) = (count(read.entries.len()), count(read.bad.len()));
                (status.outcome, status.why) = ("fresh".to_owned(), why(&read));
                (status.good, status.failures) = (Some(now), 0);
                self.apply(read.entries).await;
            }
            Err((outcome, why)) => {
                self.failures = self.failures.saturating_add(1);
                (status.outcome, status.why, status.failures) = (outcome.to_owned(), why, self.failures);
            }
        }
        if let Some(pause) = self.fetch_pause() {
            status.next = Some(now.after(pause));
            self.fetch_at = Some(Instant::now() + pause);
        }
        report(&before, &status);
        if let Some(store) = &self.store {
            store.note(Write::PutSource(status.clone()));
        }
        self.status.send_replace(status);
    }

    /// Returns the text of the list.
    async fn text(&mut self) -> Result<String, Unread> {
        match &self.config.proxies {
            ProxiesFrom::Here(entries) => Ok(entries.iter().map(|entry| entry.expose()).collect::<Vec<_>>().join("\n")),
            ProxiesFrom::Gateway(_) => Ok(String::new()),
            ProxiesFrom::File(path) => {
                let path = path.clone();
                self.read = stamp(path.clone()).await;
                if self.read.is_some_and(|(_, length)| length > LONGEST) {
                    return Err(("too_long", format!("the file is longer than {LONGEST} bytes")));
                }
                let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
                let text = text.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                text.map_err(|error| ("file", format!("the file cannot be read: {error}")))
            }
            ProxiesFrom::Url { url, .. } => {
                let url: Uri = url.expose().parse().map_err(|_| ("url", "the URL is not valid".to_owned()))?;
                let mut bytes = Vec::new();
                let mut sink = |piece: &[u8]| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                };
                let limits = Limits { body: LONGEST, ..Limits::default() };
                let got = self.client.get(&url, &Validators::default(), limits, &mut sink).await;
                got.map_err(|error| (error.as_str(), error.to_string()))?;
                String::from_utf8(bytes).map_err(|_| ("garbage", "it is not text".to_owned()))
            }
        }
    }

    /// Makes the entries the exits of this source.
    async fn apply(&self, entries: Vec<Entry>) {
        let mut ids = HashSet::new();
        let listings: Vec<_> = entries.into_iter().map(|entry| self.listing(entry)).collect();
        let listings = listings.into_iter().filter(|listing| ids.insert(listing.id.clone())).collect();
        self.list(listings).await;
    }

    /// Removes the exits that have left the list and carry no connection any more.
    async fn remove_gone(&self) {
        if self.has_draining() {
            let snapshot = self.state.snapshot();
            let own = snapshot.catalog.iter().filter(|exit| exit.id().source() == self.source());
            let listed = own.filter(|exit| !exit.known().marks.draining).map(|exit| (**exit.listing()).clone());
            self.list(listed.collect()).await;
        }
    }

    async fn list(&self, listings: Vec<Listing>) {
        if let Err(error) = self.state.apply(Change::Listed(self.source(), listings)).await {
            tracing::error!(%error, source = self.config.name.as_str(), "a list of proxies could not be applied");
        }
    }

    /// Returns the listing of one proxy. If the proxy is given by its address, the country of this address counts until
    /// a check has observed the address from which the proxy's traffic leaves.
    fn listing(&self, Entry { protocol, tls, at, login }: Entry) -> Listing {
        let announced: Vec<_> = if let Host::Ip(ip) = at.host { vec![ip] } else { Vec::new() };
        let country = announced.first().map_or(Country::UNKNOWN, |ip| self.geoip.country(*ip));
        let (scheme, tls) = (shown_scheme(protocol, tls), tls.then(|| self.tls.clone()));
        let nickname = format!("{scheme}://{at}").into();
        let proxy = UpstreamProxy { protocol, at, tls, login, allow_private: self.config.allow_private, account: None };
        let id = UpstreamId::of_proxy(self.config.name, &proxy);
        let upstream = Some(Arc::new(proxy));
        Listing { nickname, announced, country, upstream, ..Listing::new(ExitId::Upstream(Arc::new(id))) }
    }
}

fn shown_scheme(protocol: Protocol, tls: bool) -> &'static str {
    if tls { "https" } else { protocol.as_str() }
}

async fn stamp(path: PathBuf) -> Option<Stamp> {
    let meta = tokio::fs::metadata(path).await.ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns which entries of a list cannot be used, and why. Empty if all can be used.
fn why(read: &Read) -> String {
    let bad = read.bad.iter().take(SHOWN).map(|(at, bad)| format!("entry {at}: {bad}"));
    let more = read.bad.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    bad.chain(more).collect::<Vec<_>>().join("; ")
}

/// Refuses a list without a single entry that can be used: it is another page, for example the error page of a shop.
fn usable(read: Read) -> Result<Read, Unread> {
    match read.entries.is_empty() && !read.bad.is_empty() {
        true => Err(("garbage", format!("no entry can be used; {}", why(&read)))),
        false => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, Unread> {
        usable(entry::list(text, "http").unwrap()).map(|read| read.entries.len())
    }

    #[test]
    fn an_empty_list_is_obeyed_and_another_page_is_not() {
        assert_eq!(read(""), Ok(0));
        assert_eq!(read("socks5://192.0.2.1:1080\nRate limit exceeded\n"), Ok(1));
        let (outcome, why) = read("Rate limit exceeded\nTry again later\n").unwrap_err();
        assert!(outcome == "garbage" && why.starts_with("no entry can be used; entry 1"), "{outcome}: {why}");
    }
}
