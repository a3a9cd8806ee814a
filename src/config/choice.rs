//! Types for keys whose value is one of a few words, such as `auth = "open"`.

use super::text_value::TextValue;
use crate::exit::{Protocol, Source};

/// The format of log lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text if the output is a terminal, otherwise JSON.
    Auto,
    /// Text that people can read easily.
    Human,
    /// One JSON object per line.
    Json,
}

/// How often a new log file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    Never,
    Hourly,
    Daily,
    Weekly,
}

/// Determines whether clients need a key at a route's own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Clients need a key if the configuration has keys.
    Key,
    Open,
}

/// Which engines (tor processes) carry a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The engines that are shared with other routes.
    Shared,
    /// An engine that only this route uses.
    Own,
}

/// Which streams of one client may share circuits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// All streams of a key to one exit may share circuits.
    Key,
    /// Streams share circuits only if they belong to the same session.
    Session,
    /// Streams share circuits only if they belong to the same session and go to the same target host.
    Target,
}

/// The format of a list of public proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// The format is detected from the first bytes of the list.
    Auto,
    /// Each line is `host:port` or a URL.
    Text,
    /// A JSON array of texts or objects.
    Json,
    /// CSV with the proxy in the first column.
    Csv,
}

/// How exitgate connects to public proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// Directly, from this machine's own address.
    Direct,
    /// Through a Tor exit, so the proxies do not learn this machine's address.
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

/// The words for a [`Protocol`] in the configuration file.
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

/// The kinds of upstream sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum UpstreamKind {
    /// A list of proxies.
    List,
    /// The gateway of a provider, where the username names a session.
    Gateway,
}

/// The providers whose gateways are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Provider {
    Brightdata,
    Oxylabs,
    Decodo,
    Iproyal,
    Soax,
    Webshare,
}

/// The words for the protocol of proxies of an upstream source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum UpstreamProtocol {
    Http,
    /// An HTTP proxy to which the connection is encrypted with TLS.
    Https,
    Socks4,
    Socks5,
}

impl UpstreamProtocol {
    /// The URL scheme of the protocol.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
        }
    }
}

/// A source in the list `source` of a route, as it is written: a built-in source, or the name of an upstream source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteSource(Box<str>);

impl RouteSource {
    /// Returns the source. Returns `None` if there is no source of this name. Must be called after the upstream sources
    /// were validated.
    pub(super) fn source(&self) -> Option<Source> {
        Source::find(&self.0)
    }
}

impl TextValue for RouteSource {
    const WANT: &'static str = "\"tor\", \"public\", \"direct\", or the name of an entry of [[sources.upstream]]";

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.into()))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}
