//! `[sources]`: where lists of exits are fetched from.

use std::time::Duration;

use http::Uri;

use super::choice::{ListFormat, Through};
use super::direct::Direct;
use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::text_value::{List, Text, TextValue as _};
use super::upstream::{self, Upstream};
use crate::exit::Protocol;

/// The settings of `[sources]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    pub onionoo: Onionoo,
    /// A second list of observed exit addresses, in the TorDNSEL format.
    pub exit_addresses: ExitAddresses,
    pub proxifly: Proxifly,
    pub direct: Direct,
    /// Other lists of public proxies. Each has a different name.
    pub lists: Vec<ProxyList>,
    /// Proxies that the operator owns or pays for. Each source has a different name.
    pub upstream: Vec<Upstream>,
}

/// The settings for an Onionoo server, which lists Tor relays with their exit addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Onionoo {
    pub enabled: bool,
    /// The URL of the server's `details` document, without a query.
    pub url: Uri,
    pub every: Duration,
    /// The time limit for one answer of the server.
    pub timeout: Duration,
}

/// The settings for a list of exit addresses in the TorDNSEL format.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitAddresses {
    pub enabled: bool,
    pub url: Uri,
    pub every: Duration,
}

/// The settings for the ProxiFly lists of public proxies.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxifly {
    pub enabled: bool,
    /// The URL of the folder that contains `meta/data.json` and the lists, without a `/` at the end.
    pub url: String,
    /// The URL of a copy of the folder. The copy is used if the first URL does not answer.
    pub mirror: Option<String>,
    /// The time between two downloads of `meta/data.json`.
    pub every: Duration,
    pub through: Through,
}

/// A list of public proxies.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyList {
    /// The name of the list in `/sources` and in metrics.
    pub name: String,
    pub url: Uri,
    pub every: Duration,
    pub format: ListFormat,
    /// The protocol of proxies whose line has no scheme (such as `socks5://`).
    pub protocol: Protocol,
    pub through: Through,
}

/// The shortest allowed interval for Onionoo. Its data change with the consensus, once an hour, and its operators ask
/// clients not to download more often.
const HOURLY: Duration = Duration::from_hours(1);

impl Sources {
    pub(super) fn validate(file: &schema::Sources, allow_direct: bool, findings: &mut Findings) -> Self {
        let lists = lists(&file.list, findings);
        let taken: Vec<&str> = lists.iter().map(|list| list.name.as_str()).chain(["onionoo", "proxifly"]).collect();
        let upstream = upstream::validate(&file.upstream, &taken, findings);
        Self {
            upstream,
            onionoo: onionoo(&file.onionoo, findings),
            exit_addresses: ExitAddresses {
                enabled: file.exit_addresses.enabled,
                url: file.exit_addresses.url.0.clone(),
                every: file.exit_addresses.every.0,
            },
            proxifly: Proxifly {
                enabled: file.proxifly.enabled,
                url: folder(&file.proxifly.url.0),
                mirror: file.proxifly.mirror.as_ref().map(|Text(url)| folder(url)),
                every: file.proxifly.every.0,
                through: file.proxifly.through,
            },
            direct: Direct::validate(&file.direct, allow_direct, findings),
            lists,
        }
    }

    /// Returns true if at least one list of public proxies is enabled.
    pub fn any_public(&self) -> bool {
        self.proxifly.enabled || !self.lists.is_empty()
    }
}

fn folder(url: &Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// Adds the path of the details document if the configuration has only the URL of the server.
fn document(url: &Uri) -> Uri {
    let alone = url.path() == "/" && url.query().is_none();
    alone.then(|| format!("{url}details").parse().ok()).flatten().unwrap_or_else(|| url.clone())
}

fn onionoo(file: &schema::Onionoo, findings: &mut Findings) -> Onionoo {
    let url = document(&file.url.0);
    if file.enabled && file.every.0 < HOURLY && url.host() == Some("onionoo.torproject.org") {
        let what = format!("is {}, but the data there change only once an hour", file.every.0.write());
        findings.warn("sources.onionoo.every", what, "write \"1h\" or more");
    }
    if url.query().is_some() {
        findings.fault("sources.onionoo.url", "has a query", "end it at /details: exitgate adds the query itself");
    }
    Onionoo { enabled: file.enabled, url, every: file.every.0, timeout: file.timeout.0 }
}

fn lists(written: &List<schema::SourceList>, findings: &mut Findings) -> Vec<ProxyList> {
    let mut lists: Vec<ProxyList> = Vec::new();
    for (index, list) in written.iter() {
        let at = KeyPath::from("sources.list").index(index);
        if list.name.is_none() {
            findings.fault(
                at.key("name"),
                "is missing",
                "write name = \"my-list\": it is the source's name in /sources and metrics",
            );
        }
        if list.url.is_none() {
            findings.fault(at.key("url"), "is missing", "write url = \"https://…\"");
        }
        let (Some(name), Some(Text(url))) = (&list.name, &list.url) else { continue };
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        if !plain || !(1..=64).contains(&name.len()) {
            findings.fault(
                at.key("name"),
                format!("is {name:?}"),
                "use 1 to 64 lower-case letters, digits, `-` and `_`",
            );
        } else if lists.iter().any(|other| other.name == *name) || ["onionoo", "proxifly"].contains(&name.as_str()) {
            findings.fault(
                at.key("name"),
                format!("is {name:?}, which another source has already"),
                "choose another name",
            );
        }
        lists.push(ProxyList {
            name: name.clone(),
            url: url.clone(),
            every: list.every.0,
            format: list.format,
            protocol: list.protocol.into(),
            through: list.through,
        });
    }
    lists
}
