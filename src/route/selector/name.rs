//! What a route may be called: what no user name could mistake for something else.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::parse::Said;
use super::{Selector, Words};

/// A route's name: `[a-z][a-z0-9-]{0,62}`, and no selector but its own. A clone is a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

/// A text that no route may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a name.
    #[error("a route's name is 1 to 63 lower-case letters, digits and `-`, a letter first")]
    Letters,
    /// A user name would be read two ways.
    #[error("the name is a selector, and not the route's own")]
    Selector,
    /// At a route's own port a user name would be read two ways.
    #[error("the name consists of words that stand behind a route's name")]
    Words,
}

impl RouteName {
    /// Checks the name of a route with this selector.
    pub fn parse(text: &str, own: &Selector, words: &Words) -> Result<Self, BadName> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.len() > 63 || !text.bytes().all(fits) {
            return Err(BadName::Letters);
        }
        match Selector::parse(text, words) {
            Ok(selector) if selector == *own => Ok(Self(text.into())),
            Ok(_) => Err(BadName::Selector),
            Err(_) if Said::read(text, words).is_ok() => Err(BadName::Words),
            Err(_) => Ok(Self(text.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, to be kept.
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
