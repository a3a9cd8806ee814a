//! What the tester needs of the configuration, made ready: URLs taken apart, certificates read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::TlsConnector;

use super::probe::{BadPage, Page, connector};
use super::{schedule, verdict};
use crate::config::{Check, CheckTarget};
use crate::net::{BadTarget, Host};
use crate::route::Site;

/// How exits are tested.
#[derive(Clone)]
pub struct Settings {
    /// Pages that answer with the address that they see.
    pub echoes: Vec<Page>,
    /// Pages that are the same for everybody.
    pub canaries: Vec<Page>,
    /// Pages that routes may ask for.
    pub sites: Vec<CheckedSite>,
    /// Probes, and how many must pass.
    pub terms: verdict::Terms,
    /// How often, and how many at once.
    pub schedule: schedule::Terms,
    /// How long one probe may take.
    pub timeout: Duration,
    /// When a verdict is too old to count.
    pub stale_after: Duration,
    /// How long a site's refusal counts.
    pub ban_for: Duration,
    /// Believes the public roots, and `check.ca_file`.
    pub tls: TlsConnector,
}

/// A target and what follows from missing it.
#[derive(Clone, Debug)]
pub struct CheckedSite {
    /// What a route's `check` calls it.
    pub name: Arc<str>,
    /// What is expected of it.
    pub target: Arc<CheckTarget>,
    /// Its page.
    pub page: Page,
    /// What a ban is for.
    pub site: Site,
}

impl CheckedSite {
    /// Makes a target ready.
    fn of(target: &CheckTarget) -> Result<Self, BadSettings> {
        let bad = |why| BadSettings::Page { url: target.url.to_string(), why };
        let host = Host::parse(&target.site).map_err(|why| BadSettings::Site { site: target.site.clone(), why })?;
        let (name, page) = (target.name.as_str().into(), Page::of(&target.url).map_err(bad)?);
        Ok(Self { name, target: Arc::new(target.clone()), page, site: Site::of(&host) })
    }

    /// A page that somebody wants to have asked once, through each of some exits: any answer that is no error will do. It
    /// is called by its URL.
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

/// Why the tester cannot work so.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// A URL that cannot be asked.
    #[error("{url} cannot be asked: {why}")]
    Page {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: BadPage,
    },
    /// A site that is no host.
    #[error("{site:?} is no site: {why}")]
    Site {
        /// As written.
        site: String,
        /// What is wrong with it.
        why: BadTarget,
    },
    /// The certificates cannot be read.
    #[error("{}: {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: pem::Error,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Settings {
    /// Makes a configuration ready. Reads `check.ca_file`.
    pub fn of(check: &Check) -> Result<Self, BadSettings> {
        let page = |url: &http::Uri| Page::of(url).map_err(|why| BadSettings::Page { url: url.to_string(), why });
        let also = check.ca_file.as_deref().map_or(Ok(Vec::new()), certificates)?;
        Ok(Self {
            echoes: check.echo.iter().map(page).collect::<Result<_, _>>()?,
            canaries: check.canary.iter().map(page).collect::<Result<_, _>>()?,
            sites: check.targets.iter().map(CheckedSite::of).collect::<Result<_, _>>()?,
            terms: verdict::Terms { probes: check.probes.get() as usize, passes: check.passes.get() as usize },
            schedule: schedule::Terms {
                every: check.every,
                per_second: check.per_second,
                concurrency: check.concurrency.get() as usize,
            },
            timeout: check.timeout,
            stale_after: check.stale_after,
            ban_for: check.ban_for,
            tls: connector(also)?,
        })
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadSettings> {
    let bad = |why| BadSettings::Certificates { path: path.to_owned(), why };
    CertificateDer::pem_file_iter(path).map_err(bad)?.collect::<Result<_, _>>().map_err(bad)
}
