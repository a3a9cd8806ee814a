//! The vocabulary: what is a key, what is a mode, which words are aliases, and what the config adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reason::Hint;
use super::{Geo, Mode, country};
use crate::exit::country::CountrySet;

/// What the config adds to the grammar: groups of countries, and what paid gateways' accounts begin with. A clone is
/// two pointers.
#[derive(Clone, Debug, Default)]
pub struct Words {
    groups: Arc<BTreeMap<Box<str>, CountrySet>>,
    prefixes: Arc<[Box<str>]>,
}

/// A group that user names could not tell from something else, or that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    /// Not a name.
    #[error("group `{0}`: a name is 1 to 63 lower-case letters, digits and `_`, a letter first")]
    Name(String),
    /// Read as something else.
    #[error("group `{0}`: codes of countries, words of the grammar and what begins with `non` are taken")]
    Taken(String),
    /// Not a country.
    #[error("group `{group}`: `{member}` is not the code of a country")]
    Member {
        /// The group.
        group: String,
        /// What is not a country.
        member: String,
    },
    /// Nothing in it.
    #[error("group `{0}`: it has no members")]
    Empty(String),
}

impl Words {
    /// Checks and takes in the config's groups (name, codes) and alias prefixes.
    pub fn new(
        groups: impl IntoIterator<Item = (String, Vec<String>)>,
        alias_prefixes: impl IntoIterator<Item = String>,
    ) -> Result<Self, BadGroup> {
        let groups = groups.into_iter().map(|(name, members)| group(name, &members)).collect::<Result<_, _>>()?;
        let clean = |prefix: String| prefix.trim_end_matches('-').to_ascii_lowercase().into_boxed_str();
        let mut prefixes: Vec<_> = alias_prefixes.into_iter().map(clean).filter(|prefix| !prefix.is_empty()).collect();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        Ok(Self { groups: Arc::new(groups), prefixes: prefixes.into() })
    }

    /// The countries of a group.
    pub fn group(&self, name: &str) -> Option<&CountrySet> {
        self.groups.get(name)
    }

    /// The text without the longest alias prefix that it begins with; `None` if it begins with none.
    pub(crate) fn without_prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.prefixes.iter().find_map(|prefix| {
            let (head, rest) = text.split_at_checked(prefix.len())?;
            let rest = if rest.is_empty() { Some(rest) } else { rest.strip_prefix('-') }?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        })
    }

    /// The word that a stranger to the grammar most likely meant.
    pub(super) fn nearest(&self, word: &str) -> Hint {
        let groups = self.groups.keys().map(|name| &**name);
        let known = VOCABULARY.iter().map(|(word, _)| *word).chain(groups);
        let near = known.map(|known| (strsim::damerau_levenshtein(word, known), known)).min();
        // Two slips make another word of a short one.
        Hint(near.filter(|(slips, known)| *slips <= known.len() / 3).map(|(_, known)| known.into()))
    }
}

fn group(name: String, members: &[String]) -> Result<(Box<str>, CountrySet), BadGroup> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 63 || !name.bytes().all(fits) {
        return Err(BadGroup::Name(name));
    }
    if country(&name).is_some() || name == Geo::ANY || name.starts_with(Geo::NOT) || Word::of(&name).is_some() {
        return Err(BadGroup::Taken(name));
    }
    if members.is_empty() {
        return Err(BadGroup::Empty(name));
    }
    match members.iter().map(|code| country(code).ok_or(code)).collect() {
        Ok(set) => Ok((name.into(), set)),
        Err(member) => Err(BadGroup::Member { member: member.clone(), group: name }),
    }
}

/// What a word that is not a place means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Mode(Mode),
    /// A key, which takes exactly the next piece.
    Key(Key),
    /// The same by the name that paid gateways have for it.
    Alias(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Geo,
    Session,
    /// A time; a bare number is of this unit, if there is one.
    Ttl(Option<u64>),
    Exit,
    Asn,
    Source,
}

/// Every word. Aliases as Bright Data, Oxylabs, Decodo, SOAX, IPRoyal and Geonode document them; a `lifetime` without
/// a unit is in minutes for those who have no unit.
const VOCABULARY: [(&str, Word); 17] = [
    ("any", Word::Key(Key::Geo)),
    ("strict", Word::Mode(Mode::Strict)),
    ("flexible", Word::Mode(Mode::Flexible)),
    ("rotate", Word::Mode(Mode::Rotate)),
    ("session", Word::Key(Key::Session)),
    ("ttl", Word::Key(Key::Ttl(None))),
    ("exit", Word::Key(Key::Exit)),
    ("asn", Word::Key(Key::Asn)),
    ("source", Word::Key(Key::Source)),
    ("country", Word::Alias(Key::Geo)),
    ("cc", Word::Alias(Key::Geo)),
    ("sessid", Word::Alias(Key::Session)),
    ("sessionid", Word::Alias(Key::Session)),
    ("sesstime", Word::Alias(Key::Ttl(Some(60)))),
    ("sessionduration", Word::Alias(Key::Ttl(Some(60)))),
    ("lifetime", Word::Alias(Key::Ttl(Some(60)))),
    ("sessionlength", Word::Alias(Key::Ttl(Some(1)))),
];

impl Word {
    /// The meaning of a lower-case word; places (`any` too) have none.
    pub(super) fn of(word: &str) -> Option<Self> {
        let known = VOCABULARY.iter().find(|(known, _)| *known == word)?;
        (known.1 != Self::Key(Key::Geo)).then_some(known.1)
    }

    /// The alias that this word is, spelled as the vocabulary has it.
    pub(super) fn alias(word: &str) -> Option<&'static str> {
        let alias = |(known, word): &&(&'static str, Self)| matches!(word, Self::Alias(_)).then_some(*known);
        VOCABULARY.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).as_ref().and_then(alias)
    }
}
