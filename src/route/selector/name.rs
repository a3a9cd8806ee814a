//! Which names a route may have. A name is refused if a username could mean something else by the same text.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::parse::ParsedTokens;
use super::{BadSelector, Reason, Selector, Words};

/// The name of a route: `[a-z][a-z0-9-]{0,62}`. A clone copies one pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

/// The reason why a text cannot be the name of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a route's name is 1 to 63 lower-case letters, digits and `-`, a letter first")]
    Letters,
    #[error(
        "as a username it already means something without a route (a country, a group or a keyword); \
         choose another name, such as `shop` or `us-shop`"
    )]
    Selector,
    /// The name consists of keywords, such as `rotate`. At the port of a route, a username may consist of keywords,
    /// or begin with the name of the route. So there, a username with this text would have two meanings.
    #[error("it consists of keywords that may stand behind a route's name; choose another name, such as `shop`")]
    Keywords,
}

impl RouteName {
    /// Checks the name of a new route. A name that reads as a selector is refused, even if it is the route's own
    /// selector. Otherwise, for example, `us-source-public` would mean the route `us` with a narrowing token, and no
    /// longer the plain selector.
    pub fn for_new_route(text: &str, words: &Words) -> Result<Self, BadName> {
        let name = Self::of_letters(text)?;
        let begins = |read: Result<(), BadSelector>| match read {
            // A name that is a selector without its last value, such as `us-session`, would take over all usernames
            // that add a value. `us-session` would take over all sessions.
            Ok(()) => true,
            Err(bad) => bad.why == Reason::NoValue,
        };
        if begins(Selector::parse(text, words).map(drop)) {
            Err(BadName::Selector)
        } else if begins(ParsedTokens::read(text, words).map(drop)) {
            Err(BadName::Keywords)
        } else {
            Ok(name)
        }
    }

    /// Reads the name of a route that exists already, in the store or in a checked configuration. Versions before 0.2
    /// allowed a route whose name is its own selector. Such a route still loads.
    pub fn parse(text: &str, own: &Selector, words: &Words) -> Result<Self, BadName> {
        let name = Self::of_letters(text)?;
        match Selector::parse(text, words) {
            Ok(selector) if selector == *own => Ok(name),
            Ok(_) => Err(BadName::Selector),
            Err(_) if ParsedTokens::read(text, words).is_ok() => Err(BadName::Keywords),
            Err(_) => Ok(name),
        }
    }

    /// Reads the name of a route to which a rule leads. The name may not have a route yet.
    pub fn of_rule(text: &str) -> Result<Self, BadName> {
        Self::of_letters(text)
    }

    fn of_letters(text: &str) -> Result<Self, BadName> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fit = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 63 && text.bytes().all(fits);
        fit.then(|| Self(text.into())).ok_or(BadName::Letters)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name as a shared string, for tables that keep a copy.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RouteName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
