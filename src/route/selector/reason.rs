//! Why a user name is refused: the word that is wrong, and what is wrong with it.

use std::fmt;
use std::time::Duration;

use super::parse::Span;

/// A text that is no selector. Fit for a header and a log line: the token is cut and cleaned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token `{token}`: {why}")]
pub struct BadSelector {
    /// The word that is wrong, as the client wrote it; empty if a word is missing.
    pub token: Box<str>,
    /// What is wrong with it.
    pub why: Reason,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing was said where a selector was needed.
    #[error("nothing is asked for; say `any`, a country as in `us`, or `nonus`")]
    Nothing,
    /// SOCKS5 carries no more.
    #[error("the user name is longer than 255 bytes")]
    TooLong,
    /// Two `-` or `+` in a row, or one at an end.
    #[error("a word is missing: there are two joints in a row, or one at an end")]
    Gap,
    /// The first word is not a place.
    #[error("the place comes first: `any`, `us`, `nonus`, `us+ca` or a group of the config")]
    NoPlace,
    /// A place behind another.
    #[error("there is a place already; several countries are joined with `+`")]
    SecondPlace,
    /// A place behind other words.
    #[error("a place comes first")]
    LatePlace,
    /// Neither a word of the grammar nor a country nor a group.
    #[error("there is no such word, country or group{0}")]
    Unknown(Hint),
    /// Looks like a paid gateway's account.
    #[error("text before `{0}` is dropped only if gateway.alias_prefixes lists it")]
    Prefix(&'static str),
    /// A key at the end.
    #[error("a value must follow it")]
    NoValue,
    /// The same key, or another of the same meaning, came before.
    #[error("it was said before")]
    Twice,
    /// Not a session's name.
    #[error("a session's name is 1 to 64 letters, digits, `_` or `.`")]
    Session,
    /// Not a time.
    #[error("a time is a number above 0 and a unit: `30s`, `10m`, `2h`")]
    Time,
    /// Longer than the gateway allows.
    #[error("the longest time allowed here is {}", Span(*.0))]
    TimeTooLong(Duration),
    /// Neither a fingerprint nor an address.
    #[error("an exit is 40 hexadecimal digits or an address (IPv6 with `_` for `:`)")]
    Exit,
    /// Not the number of an AS.
    #[error("an AS is a number above 0")]
    Asn,
    /// No such source.
    #[error("a source is `tor`, `public`, `direct` or `any`")]
    Source,
    /// `any` among countries.
    #[error("`any` stands alone: it leaves nothing for other countries to add")]
    AnyAmong,
    /// `nonany`.
    #[error("that leaves nothing")]
    NotAny,
    /// Two letters that are no country's.
    #[error("that is the code of no country")]
    NoCountry,
    /// `uk`.
    #[error("the code of the United Kingdom is `gb`")]
    Uk,
    /// One IP that changes with each connection.
    #[error("`strict` keeps one IP and `rotate` changes it")]
    StrictRotate,
    /// A session that changes with each connection.
    #[error("a session keeps its exit and `rotate` changes it")]
    SessionRotate,
    /// One exit that changes with each connection.
    #[error("`exit` names one exit and `rotate` changes it")]
    ExitRotate,
    /// A relay that is not from Tor.
    #[error("a fingerprint names a Tor relay, and the source is another")]
    ExitSource,
    /// A time without a session.
    #[error("it says how long a session lasts, and there is none")]
    TimeAlone,
    /// More than the route gives.
    #[error("it asks for more than the route `{0}` gives; words behind a route's name may only narrow it")]
    Widens(Box<str>),
    /// Another route's name at a route's own port.
    #[error("this port belongs to the route `{0}`")]
    OtherRoute(Box<str>),
}

/// The nearest known word, if one is near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint(pub Option<Box<str>>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |word| write!(f, " (did you mean `{word}`?)"))
    }
}

/// As much of a token as a message needs: longer than any word, shorter than a session's name and its key.
const SHOWN: usize = 80;

impl BadSelector {
    pub(crate) fn new(token: &str, why: Reason) -> Self {
        // A stranger wrote it, and it goes into headers and logs.
        let clean = |c: char| if c.is_ascii_graphic() && c != '`' { c } else { '?' };
        Self { token: token.chars().take(SHOWN).map(clean).collect(), why }
    }
}
