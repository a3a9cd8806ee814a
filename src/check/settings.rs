//! The settings of the testers of Tor exits and of exits of one's own, which are made from the configuration. URLs are
//! parsed and certificates are read here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::TlsConnector;

use super::probe::{BadPage, Page, connector};
use super::{schedule, verdict};
use crate::config::{Check, CheckTarget, CheckUpstream};
use crate::exit::Source;
use crate::net::{BadTarget, Host};
use crate::route::Site;

/// Which exits a tester tests. Each kind has a tester of its own, with the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// Tor exit relays. Checks cost nothing, and nobody vouches for an exit.
    Tor,
    /// The addresses of this machine in `sources.direct.bind`.
    Own,
    /// The exits of upstream sources, which the operator owns or pays for. Checks cost paid bytes.
    Upstream,
}

impl Tested {
    pub fn includes(self, source: Source) -> bool {
        match self {
            Self::Tor => source == Source::Tor,
            Self::Own => source == Source::Direct,
            Self::Upstream => matches!(source, Source::Upstream(_)),
        }
    }
}

/// How exits of one kind are tested.
#[derive(Clone)]
pub struct Settings {
    pub tested: Tested,
    /// The echo servers: pages that answer with the address that they see.
    pub echoes: Vec<Page>,
    /// The canaries: pages that are the same for all clients.
    pub canaries: Vec<Page>,
    /// The sites that routes may name.
    pub sites: Vec<CheckedSite>,
    /// How many echo probes a check makes, and how many of them must pass.
    pub terms: verdict::Terms,
    /// How often exits are checked, and how many at the same time.
    pub schedule: schedule::Terms,
    /// How long one probe may take.
    pub timeout: Duration,
    /// The age after which a verdict no longer counts.
    pub stale_after: Duration,
    /// How long a site's refusal counts.
    pub ban_for: Duration,
    /// A TLS connector that accepts certificates of the public authorities, and of those in `check.ca_file`.
    pub tls: TlsConnector,
}

/// A check target (an entry of `check.targets`) with its parsed page and site.
#[derive(Clone, Debug)]
pub struct CheckedSite {
    /// The name by which routes refer to this target in their `check` setting.
    pub name: Arc<str>,
    /// What an answer must look like to pass.
    pub target: Arc<CheckTarget>,
    pub page: Page,
    /// The site from which an exit is banned if the exit fails this target.
    pub site: Site,
}

impl CheckedSite {
    fn of(target: &CheckTarget) -> Result<Self, BadSettings> {
        let bad = |why| BadSettings::Page { url: target.url.to_string(), why };
        let host = Host::parse(&target.site).map_err(|why| BadSettings::Site { site: target.site.clone(), why })?;
        let (name, page) = (target.name.as_str().into(), Page::of(&target.url).map_err(bad)?);
        Ok(Self { name, target: Arc::new(target.clone()), page, site: Site::of(&host) })
    }

    /// Returns the target for a page that a caller wants to request once through some exits. Its name is the URL, and
    /// an exit passes with any status below 400.
    pub fn at(url: &Uri) -> Result<Self, BadSettings> {
        Self::of(&CheckTarget {
            name: url.to_string(),
            url: url.clone(),
            expect_status: (200..400).collect(),
            expect_body: None,
            expect_regex: None,
            expect_latency: None,
            site: url.host().unwrap_or_default().to_owned(),
            preset: false,
        })
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    #[error("{url} cannot be asked: {why}")]
    Page { url: String, why: BadPage },
    #[error("{site:?} is not a host name: {why}")]
    Site { site: String, why: BadTarget },
    #[error("certificates cannot be read from {}: {why}", path.display())]
    Certificates { path: PathBuf, why: pem::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Settings {
    /// Makes the settings from the configuration. Reads `check.ca_file`.
    pub fn of(check: &Check) -> Result<Self, BadSettings> {
        let page = |url: &http::Uri| Page::of(url).map_err(|why| BadSettings::Page { url: url.to_string(), why });
        let also = check.ca_file.as_deref().map_or(Ok(Vec::new()), certificates)?;
        Ok(Self {
            tested: Tested::Tor,
            echoes: check.echo.iter().map(page).collect::<Result<_, _>>()?,
            canaries: check.canary.iter().map(page).collect::<Result<_, _>>()?,
            sites: check.targets.iter().map(CheckedSite::of).collect::<Result<_, _>>()?,
            terms: verdict::Terms { probes: check.probes.get() as usize, passes: check.passes.get() as usize },
            schedule: schedule::Terms {
                every: check.every,
                stale_after: check.stale_after,
                per_second: check.per_second,
                concurrency: check.concurrency.get() as usize,
                echo: schedule::EchoTerms { per_hour: check.echo_per_hour },
            },
            timeout: check.timeout,
            stale_after: check.stale_after,
            ban_for: check.ban_for,
            tls: connector(also)?,
        })
    }

    /// Makes the settings for own addresses. Their checks go to the same pages, at the same times.
    pub fn of_own(check: &Check) -> Result<Self, BadSettings> {
        Ok(Self { tested: Tested::Own, ..Self::of(check)? })
    }

    /// Makes the settings for exits of one's own. A check that passes makes one echo request and fetches one canary,
    /// because each request costs paid bytes. A second echo request follows only if the first one failed.
    pub fn of_upstream(check: &Check) -> Result<Self, BadSettings> {
        let settings = Self::of(check)?;
        let CheckUpstream { every, stale_after, concurrency } = check.upstream;
        let concurrency = concurrency.get() as usize;
        let schedule = schedule::Terms { every, stale_after, concurrency, ..settings.schedule };
        let terms = verdict::Terms { probes: 2, passes: 1 };
        Ok(Self { tested: Tested::Upstream, terms, schedule, stale_after, ..settings })
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadSettings> {
    let bad = |why| BadSettings::Certificates { path: path.to_owned(), why };
    CertificateDer::pem_file_iter(path).map_err(bad)?.collect::<Result<_, _>>().map_err(bad)
}
