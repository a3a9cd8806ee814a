//! `[sources]`: where lists of exits are fetched.

use std::time::Duration;

use http::Uri;

use super::finding::{Findings, KeyPath};
use super::keyword::{List, Spoken as _, Word};
use super::schema;
use crate::exit::{Protocol, Source};

/// Where exits come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    /// Tor relays with their exit addresses.
    pub onionoo: Onionoo,
    /// A second witness of exit addresses, in the TorDNSEL format.
    pub exit_addresses: ExitAddresses,
    /// The ProxiFly lists of public proxies.
    pub proxifly: Proxifly,
    /// Further lists of public proxies; no two have one name.
    pub lists: Vec<ProxyList>,
}

/// An Onionoo server.
#[derive(Clone, Debug, PartialEq)]
pub struct Onionoo {
    /// Whether it is asked at all.
    pub enabled: bool,
    /// The `details` document, without a query; the file may name its server alone.
    pub url: Uri,
    /// How often.
    pub every: Duration,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// A TorDNSEL exit list.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitAddresses {
    /// Whether it is fetched at all.
    pub enabled: bool,
    /// The list.
    pub url: Uri,
    /// How often.
    pub every: Duration,
}

/// The ProxiFly lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxifly {
    /// Whether they are fetched at all.
    pub enabled: bool,
    /// The folder that holds `meta/data.json` and the lists; no `/` at the end.
    pub url: String,
    /// The same folder elsewhere, for when the first does not answer.
    pub mirror: Option<String>,
    /// How often `meta/data.json` is looked at.
    pub every: Duration,
    /// How its proxies are reached.
    pub through: Through,
}

/// A list of public proxies.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyList {
    /// What `/sources` and metrics call it.
    pub name: String,
    /// Where it is.
    pub url: Uri,
    /// How often it is fetched.
    pub every: Duration,
    /// How it is written.
    pub format: ListFormat,
    /// What lines without a scheme are.
    pub protocol: Protocol,
    /// How its proxies are reached.
    pub through: Through,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// Find out from its beginning.
    Auto,
    /// `host:port` or a URL a line.
    Text,
    /// An array of texts or objects.
    Json,
    /// The proxy in the first column.
    Csv,
}

/// How public proxies are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// From this machine's own address.
    Direct,
    /// Through a Tor exit, so that they never learn it.
    Tor,
}

impl From<Through> for crate::exit::Through {
    fn from(written: Through) -> Self {
        match written {
            Through::Direct => Self::Direct,
            Through::Tor => Self::Tor,
        }
    }
}

/// [`Protocol`] as the file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListProtocol {
    Http,
    Socks4,
    Socks5,
}

impl From<ListProtocol> for Protocol {
    fn from(written: ListProtocol) -> Self {
        match written {
            ListProtocol::Http => Self::Http,
            ListProtocol::Socks4 => Self::Socks4,
            ListProtocol::Socks5 => Self::Socks5,
        }
    }
}

/// [`Source`] as the file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RouteSource {
    Tor,
    Public,
    Direct,
}

impl From<RouteSource> for Source {
    fn from(written: RouteSource) -> Self {
        match written {
            RouteSource::Tor => Self::Tor,
            RouteSource::Public => Self::Public,
            RouteSource::Direct => Self::Direct,
        }
    }
}

/// Onionoo's data changes with the consensus, once an hour, and its operators ask not to be asked more often.
const HOURLY: Duration = Duration::from_hours(1);

impl Sources {
    pub(super) fn settle(file: &schema::Sources, findings: &mut Findings) -> Self {
        Self {
            onionoo: onionoo(&file.onionoo, findings),
            exit_addresses: ExitAddresses {
                enabled: file.exit_addresses.enabled,
                url: file.exit_addresses.url.0.clone(),
                every: file.exit_addresses.every.0,
            },
            proxifly: Proxifly {
                enabled: file.proxifly.enabled,
                url: folder(&file.proxifly.url.0),
                mirror: file.proxifly.mirror.as_ref().map(|Word(url)| folder(url)),
                every: file.proxifly.every.0,
                through: file.proxifly.through,
            },
            lists: lists(&file.list, findings),
        }
    }

    /// True when some list of public proxies is in use.
    pub fn any_public(&self) -> bool {
        self.proxifly.enabled || !self.lists.is_empty()
    }
}

fn folder(url: &Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// The details document of a server that is named alone.
fn document(url: &Uri) -> Uri {
    let alone = url.path() == "/" && url.query().is_none();
    alone.then(|| format!("{url}details").parse().ok()).flatten().unwrap_or_else(|| url.clone())
}

fn onionoo(file: &schema::Onionoo, findings: &mut Findings) -> Onionoo {
    let url = document(&file.url.0);
    if file.enabled && file.every.0 < HOURLY && url.host() == Some("onionoo.torproject.org") {
        let what = format!("is {}, and the data there change once an hour", file.every.0.write());
        findings.warn("sources.onionoo.every", what, "write \"1h\" or more");
    }
    if url.query().is_some() {
        findings.fault("sources.onionoo.url", "has a query", "end it at /details: the query is ours to choose");
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
                "write name = \"my-list\": it labels the source in /sources and metrics",
            );
        }
        if list.url.is_none() {
            findings.fault(at.key("url"), "is missing", "write url = \"https://…\"");
        }
        let (Some(name), Some(Word(url))) = (&list.name, &list.url) else { continue };
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        if !plain || !(1..=64).contains(&name.len()) {
            findings.fault(
                at.key("name"),
                format!("is {name:?}"),
                "use 1 to 64 lower-case letters, digits, `-` and `_`",
            );
        } else if lists.iter().any(|other| other.name == *name) || ["onionoo", "proxifly"].contains(&name.as_str()) {
            findings.fault(at.key("name"), format!("is {name:?}, as is another source's"), "choose another name");
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
