//! Names of sessions, and the two forms in which a username writes a session.
//!
//! Paid gateways have the form `us-session-cart42`. Its name cannot contain a `-`, because a `-` ends the name. A
//! scraper with one session for each login uses e-mail addresses and UUIDs as names. So a username may also *end* with
//! `session=` and any text: `us-strict-session=dora-x@example.org`. Everything after the `=` is the name, so other
//! tokens must come before `session=`. If both forms can write a name, both mean the same session: `session=cart42` is
//! equal to `session-cart42`.

use std::fmt;
use std::sync::Arc;

/// The length of the longest name after `session-`, in bytes.
const PLAIN_LONGEST: usize = 64;

/// The length of the longest name after `session=`, in bytes. Any value from 64 to 240 works: a username has at most
/// 255 bytes, and most e-mail addresses have fewer than 64.
const LONGEST: usize = 128;

/// The token prefix of the form whose name may be any text.
const REST: &str = "session=";

/// The name of a session: 1 to 128 bytes of text without control characters and without `:`. Upper and lower case are
/// different.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Reads a name that at least one of the two forms can write. `:` is refused because `:` ends the username in HTTP
    /// Basic authentication. Otherwise the same username would mean another session over SOCKS than over HTTP.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=LONGEST).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ':');
        fits.then(|| Self(text.into()))
    }

    /// Reads a name that follows `session-`: 1 to 64 letters, digits, `_` and `.`.
    pub(super) fn parse_plain(text: &str) -> Option<Self> {
        is_plain(text).then(|| Self(text.into()))
    }

    /// Returns the name without the keyword.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the token for this session in a canonical username. The token must come last if [`Self::takes_the_rest`]
    /// is true.
    pub(in crate::route) fn token(&self) -> impl fmt::Display + '_ {
        Token(self)
    }

    /// Returns true if the name can only be written after `session=`.
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

/// Splits a username at the token that begins with `session=`, if there is one. Returns the tokens before it, and a
/// pair: the word `session` as the username writes it, and the name after the `=`.
pub(super) fn split_rest(text: &str) -> (&str, Option<(&str, &str)>) {
    // Most usernames have no `=`, and this search for one byte is fast.
    if !text.as_bytes().contains(&b'=') {
        return (text, None);
    }
    let begins = |at: &usize| text.get(*at..*at + REST.len()).is_some_and(|word| word.eq_ignore_ascii_case(REST));
    let mut starts = std::iter::once(0).chain(text.match_indices('-').map(|(at, _)| at + 1));
    let Some(at) = starts.find(begins) else { return (text, None) };
    let (keyword, name) = text[at..].split_once('=').unwrap_or_default();
    (text[..at].strip_suffix('-').unwrap_or_default(), Some((keyword, name)))
}
