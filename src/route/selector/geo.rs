//! The countries of a selector: `any`, `us`, `us+ca`, `eu`, `nonus`, `nonde+fr`.
//!
//! Kept as the client said them (sorted, once each) beside the set that they come to: the words make the canonical
//! text, so that `eu` stays `eu` in lists and in pins, the set makes the choice. An exit of unknown country is in `any`
//! alone; `nonus` means "known not to be in the US", or the word would be worth nothing.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::words::Word;
use super::{Reason, Words, country};
use crate::exit::country::CountrySet;

/// Where to leave from. Equal if said with the same words.
#[derive(Clone, Debug)]
pub struct Geo {
    negated: bool,
    /// Codes and groups, lower case, sorted, once each; none means `any`.
    words: Arc<[Box<str>]>,
    set: CountrySet,
}

impl Geo {
    pub(super) const ANY: &'static str = "any";
    pub(super) const NOT: &'static str = "non";

    /// Anywhere, unknown countries included.
    pub fn any() -> Self {
        Self { negated: false, words: Arc::default(), set: CountrySet::ALL }
    }

    /// The countries that it comes to.
    pub fn countries(&self) -> &CountrySet {
        &self.set
    }

    /// True if everything that `other` allows is allowed here.
    pub fn covers(&self, other: &Self) -> bool {
        self.words.is_empty() || (!other.words.is_empty() && other.set.iter().all(|country| self.set.contains(country)))
    }

    /// True of a place whose one word means something else as a word of a user name: `cc` is a country and a key.
    pub(super) fn is_ambiguous(&self) -> bool {
        !self.negated && matches!(&*self.words, [word] if Word::of(word).is_some())
    }

    /// Reads lower-case text. `Err(Reason::Unknown)` carries no hint: the caller knows what else it could have been.
    pub(super) fn parse(text: &str, words: &Words) -> Result<Self, Reason> {
        if text == Self::ANY {
            return Ok(Self::any());
        }
        let list = match text.strip_prefix(Self::NOT) {
            Some("") | None => None,
            Some(list) => Some(list),
        };
        let negated = list.is_some();
        // Form decoders turn `+` into a space.
        let pieces = list.unwrap_or(text).split(['+', '.', ' ']);
        let mut said = Vec::new();
        let mut set = CountrySet::EMPTY;
        for piece in pieces {
            set = set.union(&countries(piece, negated && text.len() == Self::NOT.len() + piece.len(), words)?);
            said.push(Box::from(piece));
        }
        said.sort_unstable();
        said.dedup();
        Ok(Self { negated, words: said.into(), set: if negated { set.not() } else { set } })
    }
}

fn countries(piece: &str, alone: bool, words: &Words) -> Result<CountrySet, Reason> {
    if let Some(group) = words.group(piece) {
        return Ok(*group);
    }
    match piece {
        "" => Err(Reason::Gap),
        Geo::ANY if alone => Err(Reason::NotAny),
        Geo::ANY => Err(Reason::AnyAmong),
        "uk" => Err(Reason::Uk),
        _ => match country(piece) {
            Some(country) => Ok([country].into_iter().collect()),
            None if piece.len() == 2 => Err(Reason::NoCountry),
            None => Err(Reason::Unknown(super::reason::Hint(None))),
        },
    }
}

impl fmt::Display for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.words.is_empty() {
            return f.write_str(Self::ANY);
        }
        if self.negated {
            f.write_str(Self::NOT)?;
        }
        self.words.iter().enumerate().try_for_each(|(at, word)| {
            let joint = if at == 0 { "" } else { "+" };
            write!(f, "{joint}{word}")
        })
    }
}

impl PartialEq for Geo {
    fn eq(&self, other: &Self) -> bool {
        self.negated == other.negated && self.words == other.words
    }
}

impl Eq for Geo {}

impl Hash for Geo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.negated, &self.words).hash(state);
    }
}
