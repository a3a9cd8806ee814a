//! What a route may be called: nothing that a username could mean without the route.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::parse::ParsedTokens;
use super::{BadSelector, Reason, Selector, Words};

/// A route's name: `[a-z][a-z0-9-]{0,62}`. A clone is a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

/// Why a text cannot be a route's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a route's name is 1 to 63 lower-case letters, digits and `-`, a letter first")]
    Letters,
    #[error(
        "as a username it already means something without a route (a country, a group or a keyword); \
         choose another name, such as `shop` or `us-shop`"
    )]
    Selector,
    /// At a route's own port a username would be read in two ways.
    #[error("it consists of keywords that may stand behind a route's name; choose another name, such as `shop`")]
    Keywords,
}

impl RouteName {
    /// Checks the name of a new route. A name that reads as a selector is refused also where it is the route's own
    /// selector: from then on `us-source-public` would be that route, narrowed, and no longer what the grammar says.
    pub fn for_new_route(text: &str, words: &Words) -> Result<Self, BadName> {
        let name = Self::of_letters(text)?;
        let begins = |read: Result<(), BadSelector>| match read {
            // What lacks only a value would take over the usernames that give one: `us-session` those of all sessions.
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

    /// Reads the name of a route that exists, in the store or in a configuration that was checked. Versions before 0.2
    /// let a route have its own selector for a name; such a route still loads.
    pub fn parse(text: &str, own: &Selector, words: &Words) -> Result<Self, BadName> {
        let name = Self::of_letters(text)?;
        match Selector::parse(text, words) {
            Ok(selector) if selector == *own => Ok(name),
            Ok(_) => Err(BadName::Selector),
            Err(_) if ParsedTokens::read(text, words).is_ok() => Err(BadName::Keywords),
            Err(_) => Ok(name),
        }
    }

    fn of_letters(text: &str) -> Result<Self, BadName> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fit = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 63 && text.bytes().all(fits);
        fit.then(|| Self(text.into())).ok_or(BadName::Letters)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a shared string, for tables that keep it.
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
