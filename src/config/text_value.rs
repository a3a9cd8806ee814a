//! Values that are written as text and parsed: "30s", "20000-20999", "10.0.0.0/8", "64KiB", "unix:/run/tor/control".
//!
//! A [`Text`] is parsed while the file is deserialized, so that a wrong value is reported with its line like a wrong type.
//! [`TextValue::WANT`] describes a right value in that report.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A type that the configuration writes as text.
pub(super) trait TextValue: Sized {
    /// What a right value looks like; it follows "write …" in a report.
    const WANT: &'static str;

    /// Parses the text. The error is the reason, or empty if [`TextValue::WANT`] says enough.
    fn read(text: &str) -> Result<Self, String>;

    /// The value of a number without quotes, if that has a meaning.
    fn number(_: i64) -> Option<Self> {
        None
    }

    /// The text that parses to the same value.
    fn write(&self) -> String;
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

/// A list in which a faulty item leaves a hole, so that reports have the right index for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(Vec<Option<T>>);

/// One text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneOrMany<T>(pub(super) List<Text<T>>);

impl<T> List<T> {
    /// The items that could be read, each with its index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate().filter_map(|(at, item)| Some((at, item.as_ref()?)))
    }

    /// True if the list has no item, not even a faulty one.
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

impl<T> OneOrMany<T> {
    pub(super) fn one(word: T) -> Self {
        Self(std::iter::once(Text(word)).collect())
    }
}

impl<T: TextValue> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.write())
    }
}

impl<T: TextValue> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: TextValue> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: TextValue> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
        T::read(text).map(Text).map_err(|reason| {
            let found = if reason.is_empty() { format!("{text:?}") } else { format!("{text:?}: {reason}") };
            E::invalid_value(Unexpected::Other(&found), &self)
        })
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Text<T>, E> {
        T::number(number).map(Text).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

impl<'de, T: TextValue> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: TextValue> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list of them", T::WANT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
        TextVisitor::<T>(PhantomData).visit_str(text).map(|Text(one)| OneOrMany::one(one))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<OneOrMany<T>, E> {
        TextVisitor::<T>(PhantomData).visit_i64(number).map(|Text(one)| OneOrMany::one(one))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany<T>, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = items.next_element::<Option<Text<T>>>()? {
            words.push(word);
        }
        Ok(OneOrMany(List(words)))
    }
}
