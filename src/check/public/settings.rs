//! The settings of the tester of public proxies, which are made from the configuration.

use std::time::Duration;

use http::Uri;
use tokio_rustls::TlsConnector;

use super::super::probe::{Page, connector};
use super::super::settings::{BadSettings, certificates};
use super::schedule;
use crate::config::Check;
use crate::dial::public::Times;

/// How public proxies are tested.
#[derive(Clone)]
pub struct Settings {
    /// The echo servers without TLS.
    pub(super) plain: Vec<Page>,
    /// The echo servers with TLS.
    pub(super) secure: Vec<Page>,
    /// A page that repeats the headers of the request.
    pub(super) headers: Option<Page>,
    /// Pages without TLS that are the same for all clients.
    pub(super) canaries: Vec<Page>,
    /// A TLS connector that accepts certificates of the public authorities, and of those in `check.ca_file`. Shared,
    /// because a TLS configuration contains 200 KB of root certificates.
    pub(super) tls: TlsConnector,
    /// How long each stage of the connection to a proxy may take.
    pub(super) times: Times,
    /// How long a probe may take after its stream is open.
    pub(super) timeout: Duration,
    /// How many requests the long test makes, and how many of them must be answered.
    pub(super) long: (u16, u16),
    /// True if proxies may leave from private addresses.
    pub(super) private: bool,
    /// How often proxies are checked, and how many at the same time.
    pub(super) terms: schedule::Terms,
}

impl Settings {
    /// Makes the settings from the configuration. Reads `check.ca_file`. `concurrency` is how many checks may run at
    /// the same time under the limit of open files. `private` is true if proxies may be in private networks.
    pub fn of(check: &Check, concurrency: usize, private: bool) -> Result<Self, BadSettings> {
        let public = &check.public;
        let page = |url: &Uri| Page::of(url).map_err(|why| BadSettings::Page { url: url.to_string(), why });
        let of_scheme = |urls: &[Uri], scheme: &str| -> Result<Vec<Page>, BadSettings> {
            urls.iter().filter(|url| url.scheme_str() == Some(scheme)).map(page).collect()
        };
        let also = check.ca_file.as_deref().map_or(Ok(Vec::new()), certificates)?;
        let wanted = public.concurrency.get() as usize;
        if wanted > concurrency {
            tracing::warn!(
                wanted,
                concurrency,
                "check.public.concurrency is more than the limit of open files allows: raise it (ulimit -n)"
            );
        }
        let count = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Ok(Self {
            plain: of_scheme(&public.echo, "http")?,
            secure: of_scheme(&check.echo, "https")?,
            headers: public.headers.as_ref().map(page).transpose()?,
            canaries: of_scheme(&check.canary, "http")?,
            tls: connector(also)?,
            times: Times { connect: public.connect_timeout, reply: public.reply_timeout },
            timeout: public.timeout,
            long: (count(public.extended_probes), count(public.extended_passes)),
            private,
            terms: schedule::Terms {
                concurrency: wanted.min(concurrency).max(1),
                failed_every: public.failed_every,
                failed_at_most: public.failed_at_most,
                working_every: public.working_every,
                remove_after: public.remove_after.get(),
                long: public.extended_probes > 0,
            },
        })
    }
}
