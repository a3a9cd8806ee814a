//! Countries: two-letter codes, sets of countries, and the country of an address.
//!
//! The country of an exit is the country of the address that sites see, by the table of `country/geoip.rs`. The exit's
//! own claim about its country is never used.
//!
//! An address that the table does not know is in [`Country::UNKNOWN`], which is not a real country. The complement of a
//! set of countries never contains the unknown country, because "not in the US" must not mean "anywhere, perhaps in the
//! US".
//!
//! Next: `country/geoip.rs` finds the country of an address. [`crate::route`] uses the sets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod geoip;

pub use geoip::{CountrySource, GeoIp};

/// A two-letter country code, or [`Country::UNKNOWN`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

/// The error for a text that is not a two-letter code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a country is two letters")]
pub struct BadCountry;

impl Country {
    /// The country of an address that the geoip table does not know. Its text is `??`.
    pub const UNKNOWN: Self = Self(*b"??");

    /// Reads two letters, in upper or lower case. `??`, and `zz` from lists of proxies, mean [`Self::UNKNOWN`].
    pub fn parse(text: &str) -> Option<Self> {
        let &[a, b] = text.as_bytes() else { return None };
        match [a.to_ascii_uppercase(), b.to_ascii_uppercase()] {
            [b'?', b'?'] | [b'Z', b'Z'] => Some(Self::UNKNOWN),
            [a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => Some(Self([a, b])),
            _ => None,
        }
    }

    /// Returns two upper-case letters, or `??`.
    pub fn as_str(&self) -> &str {
        // `parse` accepts only ASCII, so the bytes are valid UTF-8.
        std::str::from_utf8(&self.0).unwrap_or("??")
    }

    pub fn letters(self) -> [u8; 2] {
        self.0
    }

    /// Returns false for [`Self::UNKNOWN`] and true for every other country.
    pub fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }

    /// The index of the country's bit in a [`CountrySet`]. AA has bit 0, ZZ would have bit 675, and the unknown country
    /// has the last bit.
    fn bit(self) -> usize {
        match self {
            Self::UNKNOWN => UNKNOWN_BIT,
            Self([a, b]) => usize::from(a - b'A') * 26 + usize::from(b - b'A'),
        }
    }

    fn from_bit(bit: usize) -> Self {
        match bit {
            UNKNOWN_BIT => Self::UNKNOWN,
            _ => Self([b'A' + (bit / 26) as u8, b'A' + (bit % 26) as u8]),
        }
    }
}

impl FromStr for Country {
    type Err = BadCountry;

    fn from_str(text: &str) -> Result<Self, BadCountry> {
        Self::parse(text).ok_or(BadCountry)
    }
}

impl TryFrom<String> for Country {
    type Error = BadCountry;

    fn try_from(text: String) -> Result<Self, BadCountry> {
        text.parse()
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.as_str().to_owned()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const UNKNOWN_BIT: usize = 26 * 26;
const WORDS: usize = UNKNOWN_BIT / 64 + 1;

/// A set of countries with one bit for each country. The set may contain [`Country::UNKNOWN`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CountrySet([u64; WORDS]);

impl CountrySet {
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Every country, and the unknown country.
    pub const ALL: Self = {
        let mut words = [u64::MAX; WORDS];
        words[WORDS - 1] = u64::MAX >> (WORDS * 64 - UNKNOWN_BIT - 1);
        Self(words)
    };

    pub fn contains(&self, country: Country) -> bool {
        let bit = country.bit();
        self.0[bit / 64] >> (bit % 64) & 1 == 1
    }

    pub fn insert(&mut self, country: Country) {
        let bit = country.bit();
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    pub fn remove(&mut self, country: Country) {
        let bit = country.bit();
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Returns every known country that is not in this set. The result never contains [`Country::UNKNOWN`].
    pub fn not(&self) -> Self {
        let mut rest = Self(std::array::from_fn(|i| Self::ALL.0[i] & !self.0[i]));
        rest.remove(Country::UNKNOWN);
        rest
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Iterates over the countries in sorted order. The unknown country is the last.
    pub fn iter(&self) -> impl Iterator<Item = Country> {
        let set = *self;
        (0..=UNKNOWN_BIT).map(Country::from_bit).filter(move |country| {
            // ZZ has a bit but is not a country, because `parse` reads ZZ as the unknown country.
            country.0 != *b"ZZ" && set.contains(*country)
        })
    }
}

impl FromIterator<Country> for CountrySet {
    fn from_iter<I: IntoIterator<Item = Country>>(countries: I) -> Self {
        let mut set = Self::EMPTY;
        countries.into_iter().for_each(|country| set.insert(country));
        set
    }
}

impl fmt::Debug for CountrySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn country(text: &str) -> Country {
        text.parse().unwrap()
    }

    #[test]
    fn a_country_is_two_letters_of_either_case() {
        for (text, want) in [("us", "US"), ("Us", "US"), ("AA", "AA"), ("zy", "ZY"), ("??", "??"), ("ZZ", "??")] {
            assert_eq!(country(text).to_string(), want);
        }
        for text in ["", "u", "usa", "u1", "u?", "é", "üs", "a1"] {
            assert_eq!(text.parse::<Country>(), Err(BadCountry), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Country>(r#""de""#).unwrap(), country("DE"));
        assert_eq!(serde_json::to_string(&country("de")).unwrap(), r#""DE""#);
        assert_eq!(size_of::<Country>(), 2);
    }

    #[test]
    fn the_opposite_of_a_set_never_has_the_unknown_country() {
        let us = CountrySet::from_iter([country("us")]);
        assert!(us.contains(country("us")) && !us.contains(country("de")) && !us.contains(Country::UNKNOWN));
        assert!(!us.not().contains(country("us")) && us.not().contains(country("de")));
        assert!(!us.not().contains(Country::UNKNOWN) && !CountrySet::EMPTY.not().contains(Country::UNKNOWN));
        assert!(CountrySet::ALL.contains(Country::UNKNOWN) && CountrySet::ALL.contains(country("zy")));
        assert!(CountrySet::ALL.not().is_empty());
        assert_eq!(size_of::<CountrySet>(), 88);
    }

    proptest! {
        #[test]
        fn operations_agree_with_a_tree_set(letters in prop::collection::vec("[a-z]{2}|\\?\\?", 0..40), probe in "[a-z]{2}") {
            let slow: BTreeSet<Country> = letters.iter().map(|text| country(text)).collect();
            let mut set: CountrySet = slow.iter().copied().collect();
            prop_assert_eq!(set.len(), slow.len());
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), slow.clone());
            let probe = country(&probe);
            prop_assert_eq!(set.contains(probe), slow.contains(&probe));
            prop_assert_eq!(set.not().contains(probe), probe.is_known() && !slow.contains(&probe));
            set.remove(probe);
            prop_assert!(!set.contains(probe));
            prop_assert_eq!(set.union(&[probe].into_iter().collect()).contains(probe), true);
        }
    }
}
