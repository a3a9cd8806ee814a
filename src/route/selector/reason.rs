//! Why a username is refused: the token that is wrong, and what is wrong with the token.

use std::fmt;
use std::time::Duration;

use super::span::Span;
use crate::route::isolate_by::IsolateBy;

/// The error for a text that is not a selector. The error's text is safe in a header and a log line: the token is
/// shortened, and bytes that are not visible ASCII are replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token `{token}`: {why}")]
pub struct BadSelector {
    /// The token that is wrong, as the client wrote it. Empty if a token is missing.
    pub token: Box<str>,
    pub why: Reason,
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("the username is empty; write `any`, a country such as `us`, or `nonus`")]
    Nothing,
    #[error("the username is longer than 255 bytes")]
    TooLong,
    /// A token is empty: there are two `-` or two `+` in a row, or one of them is at an end of the text.
    #[error("a token is missing: there are two `-` or `+` in a row, or one at an end")]
    Gap,
    #[error("the first token must be a place: `any`, `us`, `nonus`, `us+ca` or a group of the configuration")]
    NoPlace,
    #[error("the username has a place already; join several countries with `+`, as in `us+ca`")]
    SecondPlace,
    #[error("a place must be the first token")]
    LatePlace,
    #[error("there is no such keyword, country or group{0}")]
    Unknown(Hint),
    /// An unknown token after the name of a session. Most often the token is the rest of a session name that contains a
    /// `-`.
    #[error(
        "there is no such keyword, country or group{0}. If it belongs to the session's name: a name after `session-` \
         ends at the next `-`; for a name with other characters, end the username with `session=` and the name"
    )]
    AfterSession(Hint),
    /// The token looks like the account name of a paid gateway.
    #[error("text before `{0}` is ignored only if gateway.alias_prefixes lists it")]
    Prefix(&'static str),
    #[error("a value must follow it")]
    NoValue,
    /// The same key, or another key with the same meaning, was written before.
    #[error("it is given twice; remove one")]
    Twice,
    #[error(
        "a session's name after `session-` is 1 to 64 letters, digits, `_` or `.`; for a name with other characters, \
         end the username with `session=` and the name"
    )]
    Session,
    #[error("a session's name after `session=` is 1 to 128 bytes, without `:` and control characters")]
    SessionText,
    #[error("a time is a number above 0 and a unit: `30s`, `10m`, `2h`")]
    Time,
    /// The time is longer than `gateway.max_session_ttl`.
    #[error("the longest time allowed here is {}", Span(*.0))]
    TimeTooLong(Duration),
    #[error("an exit is a fingerprint of 40 hexadecimal digits, or an IP address (IPv6 with `_` instead of `:`)")]
    Exit,
    #[error("an AS is a number above 0")]
    Asn,
    #[error("the username asks for this AS and excludes it; remove one")]
    AsnBoth,
    #[error("a source is `tor`, `public`, `direct`, `any`, or the name of an entry of `[[sources.upstream]]`")]
    Source,
    #[error("streams are kept apart by `key`, `session` or `target`")]
    Isolate,
    /// The token would let more streams share circuits than the route or the gateway does.
    #[error("streams are kept apart by `{}` here, and a username can only keep them further apart", .0.as_str())]
    IsolateLess(IsolateBy),
    #[error("`any` includes every country; remove it, or remove the others")]
    AnyAmong,
    #[error("no country is left when all are excluded")]
    NotAny,
    #[error("no country has this code")]
    NoCountry,
    #[error("the code of the United Kingdom is `gb`")]
    Uk,
    #[error("`strict` keeps one IP and `rotate` changes it; remove one")]
    StrictRotate,
    #[error("a session keeps its exit and `rotate` changes it; remove one")]
    SessionRotate,
    #[error("`exit` names one exit and `rotate` changes it; remove one")]
    ExitRotate,
    #[error("a fingerprint names a Tor relay, but the source is not Tor")]
    ExitSource,
    #[error("it sets how long a session lasts, but the username has no session")]
    TimeAlone,
    /// The token would allow more than the route does. The value is the route's name, which the error contains.
    #[error("it asks for more than the route `{0}` allows; tokens behind a route's name can only narrow it")]
    Widens(Box<str>),
    /// The token is the name of another route, but the client used a route's own port. The value is the name of the
    /// route to which the port belongs.
    #[error("this port belongs to the route `{0}`")]
    OtherRoute(Box<str>),
}

/// What the client may have meant. `None` if no known word is similar enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint(pub Option<Box<str>>);

impl Hint {
    pub(super) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.0.is_some() { self } else { other() }
    }
}

impl From<Option<Box<str>>> for Hint {
    fn from(word: Option<Box<str>>) -> Self {
        Self(word)
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |word| write!(f, " (did you mean `{word}`?)"))
    }
}

/// The number of characters of a token that an error shows. The value is more than the longest keyword and than the
/// longest name after `session-`.
const SHOWN: usize = 80;

impl BadSelector {
    pub(crate) fn new(token: &str, why: Reason) -> Self {
        // A client wrote this text, and the text goes into headers and logs. So unusual characters are replaced.
        let clean = |c: char| if c.is_ascii_graphic() && c != '`' { c } else { '?' };
        Self { token: token.chars().take(SHOWN).map(clean).collect(), why }
    }
}
