//! The countries of a selector: `any`, `us`, `us+ca`, `eu`, `nonus`, `nonde+fr`.
//!
//! A [`Geo`] keeps the words that the client wrote (sorted, each word once) and the set of countries that the words
//! mean. The canonical text is made from the words, so a group `eu` is listed and pinned as `eu`. The choice of an exit
//! uses the set. Only `any` includes exits whose country is unknown. `nonus` means "known to be outside the US",
//! because otherwise nobody could rely on `nonus`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::keywords::{ANY, Keyword, NON, Words};
use super::{Reason, country};
use crate::exit::country::CountrySet;

/// The countries in which exits may be. Two values are equal if they have the same words.
#[derive(Clone, Debug)]
pub struct Geo {
    negated: bool,
    /// Country codes and group names in lower case, sorted, each once. An empty list means `any`.
    words: Arc<[Box<str>]>,
    set: CountrySet,
}

impl Geo {
    /// Returns the value for any country. Unknown countries are included.
    pub fn any() -> Self {
        Self { negated: false, words: Arc::default(), set: CountrySet::ALL }
    }

    /// The set of countries that the words mean.
    pub fn countries(&self) -> &CountrySet {
        &self.set
    }

    /// Returns true if `self` allows every country that `other` allows.
    pub fn covers(&self, other: &Self) -> bool {
        self.words.is_empty() || (!other.words.is_empty() && other.set.iter().all(|country| self.set.contains(country)))
    }

    /// Returns true if the place is one word that is also a keyword. For example, `cc` is the Cocos Islands and also an
    /// alias of `country`.
    pub(super) fn is_ambiguous(&self) -> bool {
        !self.negated && matches!(&*self.words, [word] if Keyword::of(word).is_some())
    }

    /// Reads lower-case text. The hint of [`Reason::Unknown`] is left empty, because only the caller sees the
    /// neighbouring tokens.
    pub(super) fn parse(text: &str, words: &Words) -> Result<Self, Reason> {
        if text == ANY {
            return Ok(Self::any());
        }
        let list = match text.strip_prefix(NON) {
            Some("") | None => None,
            Some(list) => Some(list),
        };
        let negated = list.is_some();
        // Decoders of HTML forms replace `+` by a space.
        let pieces = list.unwrap_or(text).split(['+', '.', ' ']);
        let mut written = Vec::new();
        let mut set = CountrySet::EMPTY;
        for piece in pieces {
            set = set.union(&countries(piece, negated && text.len() == NON.len() + piece.len(), words)?);
            written.push(Box::from(piece));
        }
        written.sort_unstable();
        written.dedup();
        Ok(Self { negated, words: written.into(), set: if negated { set.not() } else { set } })
    }
}

fn countries(piece: &str, alone: bool, words: &Words) -> Result<CountrySet, Reason> {
    if let Some(group) = words.group(piece) {
        return Ok(*group);
    }
    match piece {
        "" => Err(Reason::Gap),
        ANY if alone => Err(Reason::NotAny),
        ANY => Err(Reason::AnyAmong),
        "uk" => Err(Reason::Uk),
        _ => match country(piece) {
            Some(country) => Ok([country].into_iter().collect()),
            None if piece.len() == 2 => Err(Reason::NoCountry),
            None => Err(Reason::Unknown(None.into())),
        },
    }
}

impl fmt::Display for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.words.is_empty() {
            return f.write_str(ANY);
        }
        if self.negated {
            f.write_str(NON)?;
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
