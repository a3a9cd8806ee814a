//! Selectors: what a client asks for in its username.
//!
//! A selector is a list of tokens joined by `-`: a place first (`us`, `nonus`, `de+fr`, `any`), then modes (`strict`,
//! `rotate`) and keys with values (`session-cart42`, `ttl-10m`, `exit-192.0.2.1`, `asn-3320`, `source-public`), in any
//! order. `session=` and any text may end it. A token that is unknown, given twice or in conflict with another is
//! refused with its reason, and none is ignored: a typo that silently widened a route would send traffic through a
//! country that its owner excluded. Equal selectors have one canonical text ([`Selector`]'s `Display`), under which
//! pins, sessions and pools are stored.
//!
//! The keywords of paid gateways are accepted beside ours, so that a scraper moves here by changing host and password.
//!
//! Next: `selector/parse.rs` (text → selector), `selector/keywords.rs` (every keyword), `selector/geo.rs` (countries),
//! `selector/session_id.rs` (both forms of a session), `selector/narrow.rs` (tokens behind a route's name),
//! `selector/name.rs` (what routes may be called), `selector/suggest.rs` ("did you mean").

mod country_names;
mod geo;
mod iso;
mod keywords;
mod name;
mod narrow;
mod parse;
mod reason;
mod session_id;
mod span;
mod suggest;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use geo::Geo;
pub use iso::country;
pub use keywords::{BadGroup, Words};
pub use name::{BadName, RouteName};
pub(crate) use narrow::Narrowed;
pub use reason::{BadSelector, Reason};
pub use session_id::SessionId;

use crate::exit::catalog::Filter;
use crate::exit::{Exit, ExitId, Fingerprint, Source};

/// What a route, or a username, asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The countries that exits are in.
    pub geo: Geo,
    pub mode: Mode,
    /// The client's name for connections that keep one exit.
    pub session: Option<SessionId>,
    /// How long the session or pin lasts, counted from its first use; `None`: as long as it is in use.
    pub ttl: Option<Duration>,
    /// One particular exit.
    pub exit: Option<Pick>,
    /// The number of an autonomous system that exits are in.
    pub asn: Option<u32>,
    pub source: SourcePick,
}

/// Whether connections share exits, keep one, or change each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The best exit of the pool at the moment of the connection.
    #[default]
    Flexible,
    /// One IP, or an error.
    Strict,
    /// Another exit for each connection.
    Rotate,
}

/// One particular exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    /// The relay with this fingerprint.
    Relay(Fingerprint),
    /// Whichever exit sites see with this address.
    Ip(IpAddr),
}

/// The sources that a selector names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourcePick {
    /// Tor relays: the default.
    #[default]
    Tor,
    /// Free public proxies.
    Public,
    /// This machine.
    Direct,
    /// Every source that hides this machine: all but [`SourcePick::Direct`].
    Any,
}

impl Selector {
    /// Reads a selector as it stands in a username or in the configuration. The shortest are `any` and `us`.
    pub fn parse(text: &str, words: &Words) -> Result<Self, BadSelector> {
        parse::selector(text, words)
    }

    /// The selector without session and time: pins and sessions are stored under its text.
    pub fn lasting(&self) -> Self {
        Self { session: None, ttl: None, ..self.clone() }
    }

    /// The selector without mode, session, time and exit: usernames that choose among the same exits share the pool of
    /// this text.
    pub fn pooled(&self) -> Self {
        Self { mode: Mode::Flexible, session: None, ttl: None, exit: None, ..self.clone() }
    }

    /// The catalog filter for this selector. `sources` and `check` come from the route, which may order the sources and
    /// require a check.
    pub fn filter<'a>(&'a self, sources: &'a [Source], check: Option<&'a str>) -> Filter<'a> {
        Filter { sources, countries: self.geo.countries(), asn: self.asn, check }
    }

    /// True unless the selector names another exit. Countries and the rest are compared by [`Filter::wants`].
    pub fn picks(&self, exit: &Exit) -> bool {
        match self.exit {
            None => true,
            Some(Pick::Relay(relay)) => *exit.id() == ExitId::Tor(relay),
            Some(Pick::Ip(ip)) => exit.ip().or_else(|| exit.listing().announced.first().copied()) == Some(ip),
        }
    }
}

impl Mode {
    /// The word in usernames and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "flexible",
            Self::Strict => "strict",
            Self::Rotate => "rotate",
        }
    }
}

impl fmt::Display for Pick {
    /// As usernames write it: lower case, with `_` instead of `:`, which would end the username in HTTP Basic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay) => relay.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Ip(ip) => f.write_str(&ip.to_string().replace(':', "_")),
        }
    }
}

impl SourcePick {
    /// The word in usernames, the configuration and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tor => "tor",
            Self::Public => "public",
            Self::Direct => "direct",
            Self::Any => "any",
        }
    }

    /// The sources that the word stands for.
    pub fn sources(self) -> &'static [Source] {
        match self {
            Self::Tor => &[Source::Tor],
            Self::Public => &[Source::Public],
            Self::Direct => &[Source::Direct],
            Self::Any => &[Source::Tor, Source::Public],
        }
    }
}

impl fmt::Display for Selector {
    /// The canonical text: tokens in a fixed order, defaults left out. It parses back to an equal selector, and equal
    /// selectors have equal texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.geo.is_ambiguous() {
            f.write_str("country-")?;
        }
        write!(f, "{}", self.geo)?;
        if self.mode == Mode::Strict {
            f.write_str("-strict")?;
        }
        self.write_tail(f)
    }
}

impl Selector {
    /// Writes what follows the place and `strict` in a canonical text.
    fn write_tail(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let last = self.session.as_ref().filter(|session| session.takes_the_rest());
        if let Some(session) = self.session.as_ref().filter(|_| last.is_none()) {
            write!(f, "-{}", session.token())?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "-ttl-{}", span::Span(ttl))?;
        }
        if let Some(exit) = &self.exit {
            write!(f, "-exit-{exit}")?;
        }
        if let Some(asn) = self.asn {
            write!(f, "-asn-{asn}")?;
        }
        if self.source != SourcePick::Tor {
            write!(f, "-source-{}", self.source.as_str())?;
        }
        if self.mode == Mode::Rotate {
            f.write_str("-rotate")?;
        }
        last.map_or(Ok(()), |session| write!(f, "-{}", session.token()))
    }
}

#[cfg(test)]
mod tests;
