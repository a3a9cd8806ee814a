//! Selectors: what a client requests in its username.
//!
//! A selector is a list of tokens joined by `-`. The first token is a place (`us`, `nonus`, `de+fr`, `any`). Then
//! follow, in any order, modes (`strict`, `rotate`) and keys with values (`session-cart42`, `ttl-10m`,
//! `exit-192.0.2.1`, `asn-3320`, `nonasn-3320`, `source-public`, `isolate-session`). The selector may end with
//! `session=` and any text.
//!
//! If a token is unknown, is written twice or contradicts another token, the selector is refused with a reason. No
//! token is ignored, because a typing error that silently widened a route would send traffic through a country that the
//! owner of the route excluded.
//!
//! Equal selectors have one canonical text (the `Display` of [`Selector`]). This text is the key of pins, sessions and
//! pools in their tables.
//!
//! The keywords of paid gateways are accepted as well as our own. So a scraper can move to this gateway by changing
//! only host and password.
//!
//! Next: `selector/parse.rs` (text → selector), `selector/keywords.rs` (every keyword), `selector/geo.rs` (countries),
//! `selector/session_id.rs` (both forms of a session), `selector/narrow.rs` (tokens after a route's name),
//! `selector/name.rs` (allowed names of routes), `selector/suggest.rs` ("did you mean").

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

use super::isolate_by::IsolateBy;
use crate::exit::catalog::Filter;
use crate::exit::{Exit, ExitId, Fingerprint, Source, UpstreamName};

/// What a route or a username requires of its exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The countries in which exits must be.
    pub geo: Geo,
    pub mode: Mode,
    /// The name that a client gives to connections that must keep one exit.
    pub session: Option<SessionId>,
    /// How long the session or pin lasts after its first use. `None`: the session or pin lasts as long as it is in use.
    pub ttl: Option<Duration>,
    /// The only exit that may be used. `None`: no particular exit is required.
    pub exit: Option<Pick>,
    /// The number of the autonomous system in which exits must be.
    pub asn: Option<u32>,
    /// The numbers of the autonomous systems in which exits must not be, in ascending order. Always empty if `asn` is
    /// set.
    pub not_asn: Vec<u32>,
    pub source: SourcePick,
    /// True if the username of a route excludes some of the sources that the route allows, or if a rule of the route
    /// names a source. Then `source` decides, even if the policy of the route has a list of sources. False in all other
    /// selectors.
    pub narrowed_source: bool,
    /// Which of the client's streams may share circuits. `None` if the policy of the route decides this.
    pub isolate: Option<IsolateBy>,
}

/// Whether connections share exits, keep one exit, or change the exit each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Each connection gets the exit of the pool that is best at that moment.
    #[default]
    Flexible,
    /// Each connection gets the same IP, or an error.
    Strict,
    /// Each connection gets another exit than the one before.
    Rotate,
}

/// How a selector names one particular exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    /// The relay with this fingerprint.
    Relay(Fingerprint),
    /// Any exit that sites see with this address.
    Ip(IpAddr),
}

/// The sources that a selector can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourcePick {
    /// Tor relays. This is the default.
    #[default]
    Tor,
    /// Free public proxies.
    Public,
    /// This machine's own address.
    Direct,
    /// The free sources that hide this machine's address: Tor and public proxies.
    Any,
    /// The upstream source with this name.
    Upstream(UpstreamName),
}

impl Selector {
    /// Reads a selector from a username or from the configuration. Short examples are `any` and `us`.
    pub fn parse(text: &str, words: &Words) -> Result<Self, BadSelector> {
        parse::selector(text, words)
    }

    /// Removes the list of excluded autonomous systems if the selector requires one AS. This AS is not in the list, so
    /// the list excludes nothing more.
    fn drop_idle_exclusions(&mut self) {
        if self.asn.is_some() {
            self.not_asn.clear();
        }
    }

    /// Returns true if the text of a selector contains the token `source-…`, also if the token names the default.
    pub fn has_source(text: &str, words: &Words) -> Result<bool, BadSelector> {
        parse::has_source(text, words)
    }

    /// Returns the selector without session, `ttl` and `isolate`. The text of the result is the key of pins and
    /// sessions. So an address does not depend on how streams share circuits.
    pub fn lasting(&self) -> Self {
        Self { session: None, ttl: None, isolate: None, ..self.clone() }
    }

    /// Returns the selector without mode, session, `ttl`, exit and `isolate`. Usernames that choose among the same
    /// exits share one pool, and the text of the result is the key of this pool.
    pub fn pooled(&self) -> Self {
        Self { mode: Mode::Flexible, session: None, ttl: None, exit: None, isolate: None, ..self.clone() }
    }

    /// Returns the catalog filter for this selector. The route passes `sources` and `check`, because the route may
    /// order the sources and require a check.
    pub fn filter<'a>(&'a self, sources: &'a [Source], check: Option<&'a str>) -> Filter<'a> {
        Filter { sources, countries: self.geo.countries(), asn: self.asn, not_asn: &self.not_asn, check }
    }

    /// Returns false only if the selector requires another particular exit. Countries and the other conditions are
    /// compared by [`Filter::wants`].
    pub fn picks(&self, exit: &Exit) -> bool {
        match self.exit {
            None => true,
            Some(Pick::Relay(relay)) => *exit.id() == ExitId::Tor(relay),
            Some(Pick::Ip(ip)) => exit.ip().or_else(|| exit.listing().announced.first().copied()) == Some(ip),
        }
    }
}

impl Mode {
    /// The keyword in usernames and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "flexible",
            Self::Strict => "strict",
            Self::Rotate => "rotate",
        }
    }
}

impl fmt::Display for Pick {
    /// Writes the text that usernames have: lower case, and `_` instead of `:`. In HTTP Basic authentication a `:`
    /// would end the username.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay) => relay.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Ip(ip) => f.write_str(&ip.to_string().replace(':', "_")),
        }
    }
}

impl From<Source> for SourcePick {
    fn from(source: Source) -> Self {
        match source {
            Source::Tor => Self::Tor,
            Source::Public => Self::Public,
            Source::Direct => Self::Direct,
            Source::Upstream(name) => Self::Upstream(name),
        }
    }
}

impl SourcePick {
    /// The keyword in usernames, the configuration and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tor => "tor",
            Self::Public => "public",
            Self::Direct => "direct",
            Self::Any => "any",
            Self::Upstream(name) => name.as_str(),
        }
    }

    /// Returns the sources that the keyword stands for.
    pub fn sources(self) -> &'static [Source] {
        match self {
            Self::Tor => &[Source::Tor],
            Self::Public => &[Source::Public],
            Self::Direct => &[Source::Direct],
            Self::Any => &[Source::Tor, Source::Public],
            Self::Upstream(name) => name.alone(),
        }
    }
}

impl fmt::Display for Selector {
    /// Writes the canonical text: tokens in a fixed order, and no defaults. The text parses back to an equal selector,
    /// and equal selectors have equal texts. A selector with a narrowed source always contains its source, because without
    /// this token the route would allow more sources.
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
    /// Writes the part of a canonical text that follows the place and `strict`.
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
        for (at, asn) in self.not_asn.iter().enumerate() {
            f.write_str(if at == 0 { "-nonasn-" } else { "+" })?;
            write!(f, "{asn}")?;
        }
        if self.source != SourcePick::Tor || self.narrowed_source {
            write!(f, "-source-{}", self.source.as_str())?;
        }
        if let Some(by) = self.isolate {
            write!(f, "-isolate-{}", by.as_str())?;
        }
        if self.mode == Mode::Rotate {
            f.write_str("-rotate")?;
        }
        last.map_or(Ok(()), |session| write!(f, "-{}", session.token()))
    }
}

#[cfg(test)]
mod tests;
