//! Names of sessions, and the two ways in which a username writes one.
//!
//! `us-session-cart42` is what paid gateways have, and its name cannot hold a `-`, which ends it. A scraper with one
//! session per login has e-mail addresses and UUIDs for names, so a username may also *end* with `session=` and any
//! text: `us-strict-session=dora-x@example.org`. Everything behind the `=` is the name, so other tokens stand before
//! it. The two forms make the same session where both can write its name: `session=cart42` is `session-cart42`.

use std::fmt;
use std::sync::Arc;

/// The longest name after `session-`, in bytes.
const PLAIN_LONGEST: usize = 64;

/// The longest name after `session=`, in bytes. Any value from 64 to 240 does: a username has 255 bytes, and most
/// e-mail addresses have fewer than 64.
const LONGEST: usize = 128;

/// What begins the form that takes any text.
const REST: &str = "session=";

/// A session's name: 1 to 128 bytes of text without control characters and `:`. Upper and lower case differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Reads a name that either form may carry. `:` is refused because it ends the username in HTTP Basic: the same
    /// username would be another session over SOCKS.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=LONGEST).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ':');
        fits.then(|| Self(text.into()))
    }

    /// Reads a name as it stands behind `session-`: 1 to 64 letters, digits, `_` and `.`.
    pub(super) fn parse_plain(text: &str) -> Option<Self> {
        is_plain(text).then(|| Self(text.into()))
    }

    /// The name alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token that names this session in a canonical username; it must come last if [`Self::takes_the_rest`].
    pub(in crate::route) fn token(&self) -> impl fmt::Display + '_ {
        Token(self)
    }

    /// The name can only be written behind `session=`.
    pub(super) fn takes_the_rest(&self) -> bool {
        !is_plain(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Token<'a>(&'a SessionId);

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.takes_the_rest() { write!(f, "{REST}{}", self.0) } else { write!(f, "session-{}", self.0) }
    }
}

fn is_plain(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    (1..=PLAIN_LONGEST).contains(&text.len()) && text.bytes().all(fits)
}

/// Splits a username at `session=`, if a token begins with that: the tokens before it, and the word `session` as it is
/// written there with the name behind the `=`.
pub(super) fn split_rest(text: &str) -> (&str, Option<(&str, &str)>) {
    let begins = |at: &usize| text.get(*at..*at + REST.len()).is_some_and(|word| word.eq_ignore_ascii_case(REST));
    let mut starts = std::iter::once(0).chain(text.match_indices('-').map(|(at, _)| at + 1));
    let Some(at) = starts.find(begins) else { return (text, None) };
    let (keyword, name) = text[at..].split_once('=').unwrap_or_default();
    (text[..at].strip_suffix('-').unwrap_or_default(), Some((keyword, name)))
}
