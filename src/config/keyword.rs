//! The values that a person writes as one word: "30s", "20000-20999", "10.0.0.0/8", "64KiB", "unix:/run/tor/control".
//!
//! A [`Word`] is read where it stands, so that a wrong one is reported with its line like any other wrong shape, and
//! says by [`Spoken::WANT`] what a right one looks like.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A type that is written as one word.
pub(super) trait Spoken: Sized {
    /// What a right one looks like: goes on from "write …".
    const WANT: &'static str;

    /// Reads it; the text of the error is the reason, or empty when [`Spoken::WANT`] says it all.
    fn read(text: &str) -> Result<Self, String>;

    /// Reads a bare number, where that means something.
    fn number(_: i64) -> Option<Self> {
        None
    }

    /// Writes it so that reading it gives the same.
    fn write(&self) -> String;
}

/// A value written as one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word<T>(pub(super) T);

/// A list of which a faulty item leaves a hole, so that the others keep their places in the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(Vec<Option<T>>);

/// One word, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Many<T>(pub(super) List<Word<T>>);

impl<T> List<T> {
    /// The items that could be read, each with its place in the list.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate().filter_map(|(at, item)| Some((at, item.as_ref()?)))
    }

    /// True when nothing was written, not even something faulty.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().map(Some).collect())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flatten())
    }
}

impl<T> Many<T> {
    /// A single word.
    pub(super) fn one(word: T) -> Self {
        Self(std::iter::once(Word(word)).collect())
    }
}

impl<T: Spoken> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.write())
    }
}

impl<T: Spoken> Serialize for Many<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Spoken> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneWord(PhantomData))
    }
}

struct OneWord<T>(PhantomData<T>);

impl<T: Spoken> Visitor<'_> for OneWord<T> {
    type Value = Word<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word<T>, E> {
        T::read(text).map(Word).map_err(|reason| {
            let found = if reason.is_empty() { format!("{text:?}") } else { format!("{text:?}: {reason}") };
            E::invalid_value(Unexpected::Other(&found), &self)
        })
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Word<T>, E> {
        T::number(number).map(Word).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

impl<'de, T: Spoken> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyWords(PhantomData))
    }
}

struct ManyWords<T>(PhantomData<T>);

impl<'de, T: Spoken> Visitor<'de> for ManyWords<T> {
    type Value = Many<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list of them", T::WANT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Many<T>, E> {
        OneWord::<T>(PhantomData).visit_str(text).map(|Word(one)| Many::one(one))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Many<T>, E> {
        OneWord::<T>(PhantomData).visit_i64(number).map(|Word(one)| Many::one(one))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Many<T>, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = items.next_element::<Option<Word<T>>>()? {
            words.push(word);
        }
        Ok(Many(List(words)))
    }
}
