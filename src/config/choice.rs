//! Keys whose value is one of a few words, such as `auth = "open"`.

use crate::exit::{Protocol, Source};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// When a new log file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    Never,
    Hourly,
    Daily,
    Weekly,
}

/// Whether clients need a key at a route's own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// They need one, if any keys are configured.
    Key,
    Open,
}

/// The engines that carry a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The engines that other routes use, too.
    Shared,
    /// An engine of its own.
    Own,
}

/// The format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListFormat {
    /// Detected from the beginning of the list.
    Auto,
    /// `host:port` or a URL on each line.
    Text,
    /// An array of texts or objects.
    Json,
    /// CSV with the proxy in the first column.
    Csv,
}

/// The path to public proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// From this machine's own address.
    Direct,
    /// Through a Tor exit, so that they never learn this machine's address.
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
