//! A configuration as a tree of values. Each value has the line or the environment variable that it comes from.
//!
//! Reports show the line of a value, or the variable that set it. `toml::Value` has no lines, and the spans of the
//! `toml` crate cannot refer to variables. So the text is read into this tree, and variables are merged into it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Location};
use super::key_path::{KeyPath, Step};
use super::syntax::{self, Lines, REMOVED};

/// A value, with the line or variable that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Location,
    /// The original text of an environment variable whose value TOML does not read as text. A key that needs text uses
    /// this original: a token of digits only is a valid token, not a number.
    pub(super) raw: Option<String>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A date or a time. No configuration key accepts such a value.
    Time(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// The value was wrong and was reported.
    Removed,
}

impl Node {
    /// Creates an empty configuration for the file `name`.
    pub(super) fn empty(name: &Arc<str>) -> Self {
        Self { place: Location::File(name.clone()), raw: None, value: Value::Table(BTreeMap::new()) }
    }

    /// Reads a file. Lines that are not TOML are reported and are not in the tree.
    pub(super) fn parse(name: &Arc<str>, text: &str) -> (Self, Vec<Finding>) {
        let place = Location::File(name.clone());
        let (text, mut faults) = syntax::recover(name, text);
        let table = text.as_deref().and_then(|text| Some((text, DeTable::parse(text).ok()?)));
        let root = match &table {
            Some((text, table)) => Lines::of(name, text).table(table.get_ref(), place, &mut faults),
            None => Self { place, raw: None, value: Value::Removed },
        };
        (root, faults)
    }

    /// Reads the value of an environment variable as TOML.
    pub(super) fn parse_value(place: &Location, text: &str) -> Result<Self, String> {
        let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
        let mut faults = Vec::new();
        let node = InVariable(place).value(value.get_ref(), place.clone(), &mut faults);
        faults.pop().map_or(Ok(node), |finding| Err(finding.what))
    }

    /// Returns the place of the value at `path`. If the text has no such value, returns the place of the innermost
    /// table around it.
    pub(super) fn place_of(&self, path: &KeyPath) -> Location {
        let mut here = self;
        for step in &path.0 {
            match here.child(step) {
                Some(child) => here = child,
                None => break,
            }
        }
        here.place.clone()
    }

    /// Removes the value at `path`. Returns false if there is none.
    pub(super) fn remove(&mut self, path: &KeyPath) -> bool {
        let mut here = self;
        for step in &path.0 {
            let child = match (&mut here.value, step) {
                (Value::Table(entries), Step::Key(key)) => entries.get_mut(key),
                (Value::List(items), Step::Index(index)) => items.get_mut(*index),
                _ => None,
            };
            match child {
                Some(child) => here = child,
                None => return false,
            }
        }
        !matches!(std::mem::replace(&mut here.value, Value::Removed), Value::Removed)
    }

    /// Returns true if the value at `path`, or a table around it, was removed.
    pub(super) fn is_removed(&self, path: &KeyPath) -> bool {
        let mut here = Some(self);
        let mut steps = path.0.iter();
        while let Some(node) = here {
            if matches!(node.value, Value::Removed) {
                return true;
            }
            here = steps.next().and_then(|step| node.child(step));
        }
        false
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get(key),
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }
}

/// Converts TOML values into nodes, each with its place.
trait TreeBuilder {
    /// Returns the place of a piece of the text.
    fn place(&self, span: Range<usize>) -> Location;

    fn table(&self, table: &DeTable<'_>, place: Location, faults: &mut Vec<Finding>) -> Node {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>), faults: &mut Vec<Finding>| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.to_string(), self.value(value.get_ref(), self.place(key.span()), faults))
        };
        let entries = table.iter().map(|pair| entry(pair, faults)).collect();
        Node { place, raw: None, value: Value::Table(entries) }
    }

    fn value(&self, value: &DeValue<'_>, place: Location, faults: &mut Vec<Finding>) -> Node {
        let value = match value {
            DeValue::String(text) if *text == REMOVED => Value::Removed,
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    let what = "this number is too large for 64 bits".to_owned();
                    let hint = "write a smaller one, or put it in quotes if it is text".to_owned();
                    faults.push(Finding { place: place.clone(), key: String::new(), what, hint });
                    Value::Removed
                }
            },
            DeValue::Array(items) => {
                let item = |item: &Spanned<DeValue<'_>>| self.value(item.get_ref(), self.place(item.span()), faults);
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => return self.table(table, place, faults),
        };
        Node { place, raw: None, value }
    }
}

impl TreeBuilder for Lines<'_> {
    fn place(&self, span: Range<usize>) -> Location {
        Lines::place(self, span)
    }
}

/// Builds the nodes for the value of a variable. Each node has this variable as its place.
struct InVariable<'a>(&'a Location);

impl TreeBuilder for InVariable<'_> {
    fn place(&self, _: Range<usize>) -> Location {
        self.0.clone()
    }
}
