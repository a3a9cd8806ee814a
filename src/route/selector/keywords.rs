//! The keywords of usernames: our own, those of paid gateways, and those that the configuration adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Mode, country};
use crate::exit::country::CountrySet;

/// The place that includes every country and the unknown country.
pub(super) const ANY: &str = "any";

/// The prefix of countries that are excluded, as in `nonus`.
pub(super) const NON: &str = "non";

/// The words that the configuration adds to usernames: groups of countries (`[groups]`), and the account names of paid
/// gateways (`gateway.alias_prefixes`). A clone copies two pointers.
#[derive(Clone, Debug, Default)]
pub struct Words {
    groups: Arc<BTreeMap<Box<str>, CountrySet>>,
    prefixes: Arc<[Box<str>]>,
}

/// The reason why a group of countries in the configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    #[error("group `{0}`: a name is 1 to 63 lower-case letters, digits and `_`, a letter first")]
    Name(String),
    #[error("group `{0}`: country codes, keywords and names that begin with `non` are taken")]
    Taken(String),
    #[error("group `{group}`: `{member}` is not the code of a country")]
    Member { group: String, member: String },
    #[error("group `{0}`: it has no members")]
    Empty(String),
}

impl Words {
    /// Checks the configuration's groups (name, codes) and alias prefixes, and stores them.
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

    /// Returns the countries of the group with this name.
    pub fn group(&self, name: &str) -> Option<&CountrySet> {
        self.groups.get(name)
    }

    /// The names of all groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|name| &**name)
    }

    /// Returns the text without the longest alias prefix with which the text begins. `None` if the text begins with no
    /// alias prefix.
    pub(crate) fn without_prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.prefixes.iter().find_map(|prefix| {
            let (head, rest) = text.split_at_checked(prefix.len())?;
            let rest = if rest.is_empty() { Some(rest) } else { rest.strip_prefix('-') }?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        })
    }
}

fn group(name: String, members: &[String]) -> Result<(Box<str>, CountrySet), BadGroup> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 63 || !name.bytes().all(fits) {
        return Err(BadGroup::Name(name));
    }
    if country(&name).is_some() || name == ANY || name.starts_with(NON) || Keyword::of(&name).is_some() {
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

/// The meaning of a token that is not a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Mode(Mode),
    /// A key of our own. Its value is the next token.
    Key(Key),
    /// A key under the name that paid gateways use.
    Alias(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Geo,
    Session,
    /// A key for a time. The value inside is the unit, in seconds, of a number without a unit. `None`: a number without
    /// a unit is refused.
    Ttl(Option<u64>),
    Exit,
    Asn,
    NotAsn,
    Source,
    Isolate,
}

/// Every keyword. The aliases are those that Bright Data, Oxylabs, Decodo, SOAX, IPRoyal and Geonode document. A
/// `lifetime` without a unit is in minutes, as at the providers that have no units.
pub(super) const KEYWORDS: [(&str, Keyword); 19] = [
    (ANY, Keyword::Key(Key::Geo)),
    ("strict", Keyword::Mode(Mode::Strict)),
    ("flexible", Keyword::Mode(Mode::Flexible)),
    ("rotate", Keyword::Mode(Mode::Rotate)),
    ("session", Keyword::Key(Key::Session)),
    ("ttl", Keyword::Key(Key::Ttl(None))),
    ("exit", Keyword::Key(Key::Exit)),
    ("asn", Keyword::Key(Key::Asn)),
    ("nonasn", Keyword::Key(Key::NotAsn)),
    ("source", Keyword::Key(Key::Source)),
    ("isolate", Keyword::Key(Key::Isolate)),
    ("country", Keyword::Alias(Key::Geo)),
    ("cc", Keyword::Alias(Key::Geo)),
    ("sessid", Keyword::Alias(Key::Session)),
    ("sessionid", Keyword::Alias(Key::Session)),
    ("sesstime", Keyword::Alias(Key::Ttl(Some(60)))),
    ("sessionduration", Keyword::Alias(Key::Ttl(Some(60)))),
    ("lifetime", Keyword::Alias(Key::Ttl(Some(60)))),
    ("sessionlength", Keyword::Alias(Key::Ttl(Some(1)))),
];

impl Keyword {
    /// Returns the meaning of a lower-case token. `None` for places, including `any`.
    pub(super) fn of(token: &str) -> Option<Self> {
        let known = KEYWORDS.iter().find(|(known, _)| *known == token)?;
        (known.1 != Self::Key(Key::Geo)).then_some(known.1)
    }

    /// Returns the alias that is equal to this token, in lower case. `None` if the token is not an alias.
    pub(super) fn alias(token: &str) -> Option<&'static str> {
        let alias = |(known, word): &&(&'static str, Self)| matches!(word, Self::Alias(_)).then_some(*known);
        KEYWORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(token)).as_ref().and_then(alias)
    }
}
