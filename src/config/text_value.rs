//! Values that are written as text and then parsed, such as "30s", "20000-20999", "10.0.0.0/8" or
//! "unix:/run/tor/control".
//!
//! A [`Text`] is parsed while the file is deserialized. So a wrong value is reported with its line, just as a value of
//! a wrong type. In that report [`TextValue::WANT`] describes what a correct value looks like.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A type whose values are written as text in the configuration.
pub(super) trait TextValue: Sized {
    /// A description of correct values. A report puts it after "write …".
    const WANT: &'static str;

    /// Parses the text. The error is the reason why the text is wrong, or it is empty if [`TextValue::WANT`] explains
    /// enough.
    fn read(text: &str) -> Result<Self, String>;

    /// Converts a number without quotes. Returns `None` if such a number has no meaning for this type.
    fn number(_: i64) -> Option<Self> {
        None
    }

    /// Returns the text that parses to this value.
    fn write(&self) -> String;
}

/// A value that the file has as text, after parsing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

/// A list in which a wrong item is kept as `None`. So the other items keep their index, which reports show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(Vec<Option<T>>);

/// A text or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneOrMany<T>(pub(super) List<Text<T>>);

impl<T> List<T> {
    /// Iterates over the correct items, each with its index in the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate().filter_map(|(at, item)| Some((at, item.as_ref()?)))
    }

    /// Returns true if the list has no items, counting wrong items too.
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
