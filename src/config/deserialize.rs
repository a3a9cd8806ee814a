//! Converts the tree into [`serde`] types, and reports every unknown key and every value of a wrong type.
//!
//! Serde stops at its first error, but people want to see all errors of a file in one run. So this module finds unknown
//! keys itself: serde calls `deserialize_struct` with the names of all fields, so each key can be compared with these
//! names, and the most similar name can be suggested. A value of a wrong type is reported and removed from the tree,
//! and then the tree is read again. Each round removes one value, so the rounds end.
//!
//! There were three alternatives. `serde_ignored` finds all unknown keys but cannot suggest the right ones.
//! `serde_path_to_error` reports only the first error. A hand-written reader would hide the schema, which
//! `config/schema.rs` shows in one place.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::findings::Findings;
use super::key_path::KeyPath;
use super::tree::{Node, Value};

/// Reads the tree in `findings` as a `T`. A value with an error is reported and replaced by its default.
pub(super) fn read<T: DeserializeOwned + Default>(findings: &mut Findings) -> T {
    let (value, tables) = read_tables(findings);
    let unknown: Vec<_> = tables.iter().flat_map(|table| table.unknown(findings)).collect();
    unknown.into_iter().for_each(|(at, what, hint)| findings.fault(at, what, hint));
    value
}

/// Reads the tree like [`read`], and also returns the tables that were read as structs. Unknown keys are not reported.
pub(super) fn read_tables<T: DeserializeOwned + Default>(findings: &mut Findings) -> (T, Vec<TableSeen>) {
    loop {
        let tables = RefCell::new(Vec::new());
        let reader = Reader { node: findings.root(), path: KeyPath::default(), tables: &tables };
        match T::deserialize(reader) {
            Ok(value) => return (value, tables.into_inner()),
            Err(error) => {
                if !findings.misshapen(&error.at.unwrap_or_default(), error.what, error.hint) {
                    return (T::default(), Vec::new());
                }
            }
        }
    }
}

/// A table that was read as a struct: its path, the fields of the struct, and the keys in the file.
#[derive(Debug)]
pub(super) struct TableSeen {
    pub(super) path: KeyPath,
    pub(super) fields: &'static [&'static str],
    pub(super) written: Vec<String>,
}

impl TableSeen {
    fn unknown(&self, findings: &Findings) -> Vec<(KeyPath, String, String)> {
        let unknown = self.written.iter().filter(|key| !self.fields.contains(&key.as_str()));
        let fault = |key: &String| {
            let hint = match nearest(key, self.fields) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", self.fields.join(", ")),
            };
            (self.path.key(key), "is not a key".to_owned(), hint)
        };
        unknown.map(fault).filter(|(at, ..)| findings.is_sound(at)).collect()
    }
}

/// Returns the known word that is most similar to the written one, or `None` if no word is similar enough.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    // Jaro-Winkler measures how similar two words are, and gives a high value to words with the same beginning. With
    // the limit 0.8, the word "listen" is suggested for "lisen", and nothing is suggested for "timeout". The limit is
    // not tuned.
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&written, word), *word))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// The error for a value of a wrong type or outside its range.
#[derive(Debug)]
pub(super) struct ShapeError {
    at: Option<KeyPath>,
    what: String,
    hint: String,
}

impl ShapeError {
    fn new(what: String, hint: String) -> Self {
        Self { at: None, what, hint }
    }

    /// Sets the path of the error, unless a more deeply nested value has set it already.
    fn or_at(mut self, path: &KeyPath) -> Self {
        self.at.get_or_insert_with(|| path.clone());
        self
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

impl std::error::Error for ShapeError {}

impl serde::de::Error for ShapeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), String::new())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_value(found, wanted)
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let number_in_quotes = matches!(found, Unexpected::Str(text) if text.parse::<f64>().is_ok());
        let found = match found {
            Unexpected::Bool(yes) => yes.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            Unexpected::Str(text) => format!("{text:?}"),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Other(text) => text.to_owned(),
            other => other.to_string(),
        };
        let wanted = wanted.to_string();
        let quoted = if number_in_quotes && wanted.contains("number") { ", without quotes" } else { "" };
        Self::new(format!("is {found}"), format!("write {}{quoted}", plain(&wanted)))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("is {found:?}"), one_of(known))
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("write {}", quoted.join(" or "))
}

/// Translates serde's names of types into plain words.
fn plain(wanted: &str) -> &str {
    match wanted {
        "a string" | "path string" => "text in quotes",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not below 0",
        "f64" => "a number such as 0.5",
        "a sequence" => "a list: [ … ]",
        wanted if wanted.starts_with("struct") || wanted == "a map" => "a table: [section] or { key = value }",
        wanted => wanted,
    }
}

/// The serde deserializer for one node of the tree.
struct Reader<'a> {
    node: &'a Node,
    path: KeyPath,
    tables: &'a RefCell<Vec<TableSeen>>,
}

impl<'a> Reader<'a> {
    fn child(&self, node: &'a Node, path: KeyPath) -> Self {
        Self { node, path, tables: self.tables }
    }

    fn entries(self, fields: Option<&'static [&'static str]>) -> Entries<'a> {
        let pairs = match &self.node.value {
            Value::Table(entries) => entries.iter().collect(),
            _ => Vec::new(),
        };
        let wanted = |key: &str| fields.is_none_or(|fields| fields.contains(&key));
        let readable = |(key, node): &(&String, &Node)| wanted(key) && !matches!(node.value, Value::Removed);
        let pairs: Vec<_> = pairs.into_iter().filter(readable).collect();
        Entries { around: self, pairs: pairs.into_iter(), next: None }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let path = self.path.clone();
        let read = match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(yes) => visitor.visit_bool(*yes),
            Value::Time(time) => {
                let found = format!("the date {time}");
                Err(serde::de::Error::invalid_type(Unexpected::Other(&found), &visitor))
            }
            Value::List(items) => visitor.visit_seq(Items { around: &self, items: items.iter(), index: 0 }),
            Value::Table(_) => visitor.visit_map(self.entries(None)),
            Value::Removed => visitor.visit_unit(),
        };
        read.map_err(|error| error.or_at(&path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let Value::Table(entries) = &self.node.value else { return self.deserialize_any(visitor) };
        let path = self.path.clone();
        let written = entries.keys().cloned().collect();
        self.tables.borrow_mut().push(TableSeen { path: path.clone(), fields, written });
        visitor.visit_map(self.entries(Some(fields))).map_err(|error| error.or_at(&path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        if matches!(self.node.value, Value::Removed) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match &self.node.raw {
            Some(raw) => visitor.visit_str(raw).map_err(|error: ShapeError| error.or_at(&self.path)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let path = self.path.clone();
        let read = match &self.node.value {
            Value::Text(text) if variants.contains(&text.as_str()) => {
                visitor.visit_enum(StrDeserializer::<ShapeError>::new(text))
            }
            Value::Text(text) => Err(serde::de::Error::unknown_variant(text, variants)),
            _ => self.deserialize_any(visitor).map_err(|error| ShapeError { hint: one_of(variants), ..error }),
        };
        read.map_err(|error| error.or_at(&path))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The entries of a table for serde, without removed entries and without keys that the struct does not have.
struct Entries<'a> {
    around: Reader<'a>,
    pairs: std::vec::IntoIter<(&'a String, &'a Node)>,
    next: Option<(&'a String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ShapeError> {
        self.next = self.pairs.next();
        self.next
            .map(|(key, _)| seed.deserialize(IntoDeserializer::<ShapeError>::into_deserializer(key.as_str())))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ShapeError> {
        let (key, node) = self.next.ok_or_else(|| serde::de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(self.around.child(node, self.around.path.key(key)))
    }
}

/// The items of a list for serde. A removed item is read as `None`, so the other items keep their index.
struct Items<'r, 'a> {
    around: &'r Reader<'a>,
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ShapeError> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let path = self.around.path.index(self.index);
        self.index += 1;
        seed.deserialize(self.around.child(node, path)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::text_value::List;
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        count: u8,
        name: String,
        open: bool,
        items: List<Item>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Item {
        words: List<String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        First,
        Second,
    }

    fn faults(text: &str) -> (Sample, Vec<String>) {
        let (root, faults) = Node::parse(&"t".into(), text);
        let mut findings = Findings::of(root, false, faults);
        let sample = read(&mut findings);
        let reported = findings.close().err().map(|faults| {
            faults.iter().map(|fault| format!("{} {} {}; {}", fault.place, fault.key, fault.what, fault.hint)).collect()
        });
        (sample, reported.unwrap_or_default())
    }

    #[test]
    fn every_fault_is_reported_and_the_rest_is_read() {
        let text = "count = 300\nnam = 'x'\nopen = 'yes'\nname = 'kew'\n\
            [[items]]\nwords = ['a', 5, 'c']\nkind = 'third'\n[[items]]\nkind = 7\ncolour = 1\nwords = ['d']";
        let (sample, reported) = faults(text);
        assert_eq!(
            reported,
            [
                "t:1 count is 300; write a whole number from 0 to 255",
                "t:2 nam is not a key; did you mean `name`?",
                "t:3 open is \"yes\"; write true or false",
                "t:6 items[0].words[1] is 5; write text in quotes",
                "t:7 items[0].kind is \"third\"; write \"first\" or \"second\"",
                "t:9 items[1].kind is 7; write \"first\" or \"second\"",
                "t:10 items[1].colour is not a key; the keys here are words, kind",
            ]
        );
        assert_eq!(sample.name, "kew");
        let words: Vec<_> = sample.items.iter().flat_map(|(_, item)| item.words.iter()).collect();
        assert_eq!(words, [(0, &"a".to_owned()), (2, &"c".to_owned()), (0, &"d".to_owned())]);
    }

    #[test]
    fn a_table_where_a_value_belongs_and_the_other_way_round() {
        let (_, reported) = faults("[count]\nx = 1\n[name]\n");
        assert_eq!(
            reported,
            ["t:1 count is a table; write a whole number from 0 to 255", "t:3 name is a table; write text in quotes"]
        );
        let (_, reported) = faults("items = 5\nopen = 2024-01-01");
        assert_eq!(
            reported,
            ["t:1 items is 5; write a list: [ … ]", "t:2 open is the date 2024-01-01; write true or false"]
        );
        let (sample, reported) = faults("items = [5, {kind = 'first'}]");
        assert_eq!(reported, ["t:1 items[0] is 5; write a table: [section] or { key = value }"]);
        assert_eq!(
            sample.items.iter().map(|(at, item)| (at, &item.kind)).collect::<Vec<_>>(),
            [(1, &Some(Kind::First))]
        );
    }

    #[test]
    fn only_a_near_word_is_offered() {
        let known = ["listen", "route_bind", "hedge"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("Listen", &known), Some("listen"));
        assert_eq!(nearest("routebind", &known), Some("route_bind"));
        assert_eq!(nearest("colour", &known), None);
    }
}
