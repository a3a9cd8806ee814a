//! The tree → [`serde`] types, with every fault of shape and not just the first.
//!
//! Serde stops at its first error, and a person who mends a file one error a run is a person who stops reading them.
//! Two things make it all of them. Keys that a table does not have are seen here and not by serde: whoever reads a
//! struct tells us its field names, so *all* keys are compared with them and the nearest one is at hand. And a value of
//! the wrong shape is reported, cut out of the tree, and the reading begins again without it, until nothing is left to
//! complain of; each round takes one value away, so it ends.
//!
//! The alternatives: `serde_ignored` finds all unknown keys and does not know the right ones; `serde_path_to_error`
//! knows the path of the first fault only; a hand-written reader of each key knows everything and hides the schema,
//! which `file.rs` shows on one page.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::finding::{Findings, KeyPath};
use super::tree::{Node, Value};

/// Reads the tree of `findings` as a `T`, with the default for whatever had to be reported.
pub(super) fn read<T: DeserializeOwned + Default>(findings: &mut Findings) -> T {
    let (value, tables) = read_tables(findings);
    let unknown: Vec<_> = tables.iter().flat_map(|table| table.unknown(findings)).collect();
    unknown.into_iter().for_each(|(at, what, hint)| findings.fault(at, what, hint));
    value
}

/// Reads a `T`, and says which tables were read as which structs on the way.
pub(super) fn read_tables<T: DeserializeOwned + Default>(findings: &mut Findings) -> (T, Vec<TableSeen>) {
    loop {
        let tables = RefCell::new(Vec::new());
        let reader = Reader { node: findings.root(), path: KeyPath::default(), tables: &tables };
        match T::deserialize(reader) {
            Ok(value) => return (value, tables.into_inner()),
            Err(wrong) => {
                if !findings.misshapen(&wrong.at.unwrap_or_default(), wrong.what, wrong.hint) {
                    return (T::default(), Vec::new());
                }
            }
        }
    }
}

/// A table that was read as a struct: where, which keys it has, and which were written.
#[derive(Debug)]
pub(super) struct TableSeen {
    pub(super) path: KeyPath,
    pub(super) fields: &'static [&'static str],
    pub(super) written: Vec<String>,
}

impl TableSeen {
    fn unknown(&self, findings: &Findings) -> Vec<(KeyPath, String, String)> {
        let strange = self.written.iter().filter(|key| !self.fields.contains(&key.as_str()));
        let told = |key: &String| {
            let hint = match nearest(key, self.fields) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", self.fields.join(", ")),
            };
            (self.path.key(key), "is not a key".to_owned(), hint)
        };
        strange.map(told).filter(|(at, ..)| findings.is_sound(at)).collect()
    }
}

/// The known word nearest to what was written, if one is near enough to have been meant.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    // Jaro-Winkler favours a common beginning, as people do; 0.8 is arbitrary: it keeps "lisen" → "listen" and
    // "timeout" → "idle_timeout" is left to the list of keys.
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&written, word), *word))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// A value of the wrong shape.
#[derive(Debug)]
pub(super) struct Wrong {
    at: Option<KeyPath>,
    what: String,
    hint: String,
}

impl Wrong {
    fn new(what: String, hint: String) -> Self {
        Self { at: None, what, hint }
    }

    /// Says where, unless a value further in has said so already.
    fn or_at(mut self, path: &KeyPath) -> Self {
        self.at.get_or_insert_with(|| path.clone());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
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
            Unexpected::Other(said) => said.to_owned(),
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

/// What serde calls its own types, in words for people.
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

/// A node, about to be read.
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
        let readable = |(key, node): &(&String, &Node)| wanted(key) && !matches!(node.value, Value::Cut);
        let pairs: Vec<_> = pairs.into_iter().filter(readable).collect();
        Entries { around: self, pairs: pairs.into_iter(), next: None }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
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
            Value::Cut => visitor.visit_unit(),
        };
        read.map_err(|wrong| wrong.or_at(&path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Value::Table(entries) = &self.node.value else { return self.deserialize_any(visitor) };
        let path = self.path.clone();
        let written = entries.keys().cloned().collect();
        self.tables.borrow_mut().push(TableSeen { path: path.clone(), fields, written });
        visitor.visit_map(self.entries(Some(fields))).map_err(|wrong| wrong.or_at(&path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if matches!(self.node.value, Value::Cut) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.said {
            Some(said) => visitor.visit_str(said).map_err(|wrong: Wrong| wrong.or_at(&self.path)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let path = self.path.clone();
        let read = match &self.node.value {
            Value::Text(text) if variants.contains(&text.as_str()) => {
                visitor.visit_enum(StrDeserializer::<Wrong>::new(text))
            }
            Value::Text(text) => Err(serde::de::Error::unknown_variant(text, variants)),
            _ => self.deserialize_any(visitor).map_err(|wrong| Wrong { hint: one_of(variants), ..wrong }),
        };
        read.map_err(|wrong| wrong.or_at(&path))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The entries of a table, those left out that were cut or that nobody asked for.
struct Entries<'a> {
    around: Reader<'a>,
    pairs: std::vec::IntoIter<(&'a String, &'a Node)>,
    next: Option<(&'a String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.next = self.pairs.next();
        self.next
            .map(|(key, _)| seed.deserialize(IntoDeserializer::<Wrong>::into_deserializer(key.as_str())))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (key, node) = self.next.ok_or_else(|| serde::de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(self.around.child(node, self.around.path.key(key)))
    }
}

/// The items of a list; a cut one reads as `None`, so that the others keep their places.
struct Items<'r, 'a> {
    around: &'r Reader<'a>,
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let path = self.around.path.index(self.index);
        self.index += 1;
        seed.deserialize(self.around.child(node, path)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::keyword::List;
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Garden {
        trees: u8,
        name: String,
        open: bool,
        beds: List<Bed>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Bed {
        plants: List<String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Roses,
        Herbs,
    }

    fn faults(text: &str) -> (Garden, Vec<String>) {
        let (root, faults) = Node::parse(&"t".into(), text);
        let mut findings = Findings::of(root, false, faults);
        let garden = read(&mut findings);
        let told = findings.close().err().map(|faults| {
            faults.iter().map(|fault| format!("{} {} {}; {}", fault.place, fault.key, fault.what, fault.hint)).collect()
        });
        (garden, told.unwrap_or_default())
    }

    #[test]
    fn every_fault_is_told_and_the_rest_is_read() {
        let text = "trees = 300\nnam = 'x'\nopen = 'yes'\nname = 'kew'\n\
            [[beds]]\nplants = ['a', 5, 'c']\nkind = 'herb'\n[[beds]]\nkind = 7\ncolour = 1\nplants = ['d']";
        let (garden, told) = faults(text);
        assert_eq!(
            told,
            [
                "t:1 trees is 300; write a whole number from 0 to 255",
                "t:2 nam is not a key; did you mean `name`?",
                "t:3 open is \"yes\"; write true or false",
                "t:6 beds[0].plants[1] is 5; write text in quotes",
                "t:7 beds[0].kind is \"herb\"; write \"roses\" or \"herbs\"",
                "t:9 beds[1].kind is 7; write \"roses\" or \"herbs\"",
                "t:10 beds[1].colour is not a key; the keys here are plants, kind",
            ]
        );
        assert_eq!(garden.name, "kew");
        let plants: Vec<_> = garden.beds.iter().flat_map(|(_, bed)| bed.plants.iter()).collect();
        assert_eq!(plants, [(0, &"a".to_owned()), (2, &"c".to_owned()), (0, &"d".to_owned())]);
    }

    #[test]
    fn a_table_where_a_value_belongs_and_the_other_way_round() {
        let (_, told) = faults("[trees]\nx = 1\n[name]\n");
        assert_eq!(
            told,
            ["t:1 trees is a table; write a whole number from 0 to 255", "t:3 name is a table; write text in quotes"]
        );
        let (_, told) = faults("beds = 5\nopen = 2024-01-01");
        assert_eq!(
            told,
            ["t:1 beds is 5; write a list: [ … ]", "t:2 open is the date 2024-01-01; write true or false"]
        );
        let (garden, told) = faults("beds = [5, {kind = 'roses'}]");
        assert_eq!(told, ["t:1 beds[0] is 5; write a table: [section] or { key = value }"]);
        assert_eq!(garden.beds.iter().map(|(at, bed)| (at, &bed.kind)).collect::<Vec<_>>(), [(1, &Some(Kind::Roses))]);
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
