//! What a client says in a user name: which way out.
//!
//! `nonus-session-cart42` is all the interface that a scraper needs, so it must be one that cannot be misunderstood. A
//! word that is not known, said twice or at odds with another is refused with that word and the reason; nothing is
//! ignored, because a typo that silently widens a route sends traffic through a country that its owner excluded. Equal
//! wishes have one canonical text ([`Selector`]'s `Display`), which is what pins, sessions and pools are filed under.
//!
//! The words of paid gateways are understood beside ours, so that a scraper moves here by changing host and password.
//!
//! Next: `selector/parse.rs` (text → selector), `selector/words.rs` (the vocabulary), `selector/geo.rs` (countries),
//! `selector/narrow.rs` (tokens behind a route's name), `selector/name.rs` (what routes may be called).

mod geo;
mod iso;
mod name;
mod narrow;
mod parse;
mod reason;
mod words;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use geo::Geo;
pub use iso::country;
pub use name::{BadName, RouteName};
pub(crate) use narrow::Narrowed;
pub use reason::{BadSelector, Reason};
pub use words::{BadGroup, Words};

use crate::exit::catalog::Filter;
use crate::exit::{Exit, ExitId, Fingerprint, Source};

/// What a route, or a user name, asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The countries to leave from.
    pub geo: Geo,
    /// How the exit is kept or changed.
    pub mode: Mode,
    /// The client's sticky key.
    pub session: Option<SessionId>,
    /// How long that sticks, counted from its first use; without it, as long as it is used.
    pub ttl: Option<Duration>,
    /// One certain exit.
    pub exit: Option<Pick>,
    /// One autonomous system.
    pub asn: Option<u32>,
    /// Where exits may come from.
    pub source: SourcePick,
}

/// How the exit is kept or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Any exit of the pool, the best of the moment.
    #[default]
    Flexible,
    /// One IP, or an error.
    Strict,
    /// Another exit each connection.
    Rotate,
}

/// A session's name: 1 to 64 letters, digits, `_` and `.`, its case kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// One certain exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    /// The relay of this identity.
    Relay(Fingerprint),
    /// Whichever exit is seen with this address.
    Ip(IpAddr),
}

/// Where exits may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourcePick {
    /// Tor relays: what a user name without a word about it means.
    #[default]
    Tor,
    /// Free proxies.
    Public,
    /// This machine.
    Direct,
    /// Whatever hides this machine: all but [`SourcePick::Direct`].
    Any,
}

impl Selector {
    /// Reads a selector as it stands in a user name or in the config. The shortest are `any` and `us`.
    pub fn parse(text: &str, words: &Words) -> Result<Self, BadSelector> {
        parse::selector(text, words)
    }

    /// The same for every session of it: what a pin or a session belongs to.
    pub fn lasting(&self) -> Self {
        Self { session: None, ttl: None, ..self.clone() }
    }

    /// The same for every use of the same exits: what a pool belongs to.
    pub fn pooled(&self) -> Self {
        Self { mode: Mode::Flexible, session: None, ttl: None, exit: None, ..self.clone() }
    }

    /// What it asks of any exit. `sources` and `check` are the route's: it may order the sources and demand a check.
    pub fn filter<'a>(&'a self, sources: &'a [Source], check: Option<&'a str>) -> Filter<'a> {
        Filter { sources, countries: self.geo.countries(), asn: self.asn, check }
    }

    /// True of an exit that it does not exclude by name; countries and the rest are [`Filter::wants`]'s.
    pub fn picks(&self, exit: &Exit) -> bool {
        match self.exit {
            None => true,
            Some(Pick::Relay(relay)) => *exit.id() == ExitId::Tor(relay),
            Some(Pick::Ip(ip)) => exit.ip().or_else(|| exit.listing().announced.first().copied()) == Some(ip),
        }
    }
}

impl Mode {
    /// The word for it in user names and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "flexible",
            Self::Strict => "strict",
            Self::Rotate => "rotate",
        }
    }
}

impl SessionId {
    /// Reads a session's name.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
        (matches!(text.len(), 1..=64) && text.bytes().all(fits)).then(|| Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pick {
    /// As it stands in a user name: lower case, `_` for the `:` that would end the user name in HTTP Basic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay) => relay.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Ip(ip) => f.write_str(&ip.to_string().replace(':', "_")),
        }
    }
}

impl SourcePick {
    /// The word for it in user names, the config and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tor => "tor",
            Self::Public => "public",
            Self::Direct => "direct",
            Self::Any => "any",
        }
    }

    /// The sources that it stands for.
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
    /// The canonical text: words in the order of the grammar, defaults left out. It parses back to an equal selector,
    /// and equal selectors have equal texts.
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
    /// What follows the place and `strict` in a canonical text.
    fn write_tail(&self, f: &mut impl fmt::Write) -> fmt::Result {
        if let Some(session) = &self.session {
            write!(f, "-session-{session}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "-ttl-{}", parse::Span(ttl))?;
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
        Ok(())
    }
}

#[cfg(test)]
mod tests;
