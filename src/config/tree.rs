//! A configuration as a tree of values that remember where they stand.
//!
//! `toml::Value` forgets lines, and `toml`'s spans know nothing of environment variables. A message that says "line 14"
//! or "EXITGATE__API__TOKEN" needs both, so the text is read into nodes of our own and the variables are laid onto them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, KeyPath, Location, Step};
use super::syntax::{self, Lines, TAKEN_OUT};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Location,
    /// The text as given, of a value that came from a variable and reads as something other than text: a token made of
    /// digits is still a token.
    pub(super) said: Option<String>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A date or a time, which no key of ours is.
    Time(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// What was here had the wrong shape and was reported.
    Cut,
}

impl Node {
    /// An empty configuration of this name.
    pub(super) fn empty(name: &Arc<str>) -> Self {
        Self { place: Location::File(name.clone()), said: None, value: Value::Table(BTreeMap::new()) }
    }

    /// Reads a whole file as far as it is TOML, and reports where it is not. What was reported is cut out of the tree.
    pub(super) fn parse(name: &Arc<str>, text: &str) -> (Self, Vec<Finding>) {
        let place = Location::File(name.clone());
        let (text, mut faults) = syntax::mend(name, text);
        let table = text.as_deref().and_then(|text| Some((text, DeTable::parse(text).ok()?)));
        let root = match &table {
            Some((text, table)) => Lines::of(name, text).table(table.get_ref(), place, &mut faults),
            None => Self { place, said: None, value: Value::Cut },
        };
        (root, faults)
    }

    /// Reads one value in TOML's syntax, as it stands in a variable.
    pub(super) fn parse_value(place: &Location, text: &str) -> Result<Self, String> {
        let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
        let mut faults = Vec::new();
        let node = Placed(place).value(value.get_ref(), place.clone(), &mut faults);
        faults.pop().map_or(Ok(node), |finding| Err(finding.what))
    }

    /// The place of a value, or of the innermost table around it that was written at all.
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

    /// Takes a value out. False when there is none.
    pub(super) fn cut(&mut self, path: &KeyPath) -> bool {
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
        !matches!(std::mem::replace(&mut here.value, Value::Cut), Value::Cut)
    }

    /// True of a value that was cut, or that stands inside one.
    pub(super) fn is_cut(&self, path: &KeyPath) -> bool {
        let mut here = Some(self);
        let mut steps = path.0.iter();
        while let Some(node) = here {
            if matches!(node.value, Value::Cut) {
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

/// Says where a piece of TOML stands, and copies it into nodes.
trait Standing {
    fn place(&self, span: Range<usize>) -> Location;

    fn table(&self, table: &DeTable<'_>, place: Location, faults: &mut Vec<Finding>) -> Node {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>), faults: &mut Vec<Finding>| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.to_string(), self.value(value.get_ref(), self.place(key.span()), faults))
        };
        let entries = table.iter().map(|pair| entry(pair, faults)).collect();
        Node { place, said: None, value: Value::Table(entries) }
    }

    fn value(&self, value: &DeValue<'_>, place: Location, faults: &mut Vec<Finding>) -> Node {
        let value = match value {
            DeValue::String(text) if *text == TAKEN_OUT => Value::Cut,
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    let what = "this number does not fit into 64 bits".to_owned();
                    let hint = "write a smaller one, or put it in quotes if it is text".to_owned();
                    faults.push(Finding { place: place.clone(), key: String::new(), what, hint });
                    Value::Cut
                }
            },
            DeValue::Array(items) => {
                let item = |item: &Spanned<DeValue<'_>>| self.value(item.get_ref(), self.place(item.span()), faults);
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => return self.table(table, place, faults),
        };
        Node { place, said: None, value }
    }
}

impl Standing for Lines<'_> {
    fn place(&self, span: Range<usize>) -> Location {
        Lines::place(self, span)
    }
}

/// Everything inside a variable stands in that variable.
struct Placed<'a>(&'a Location);

impl Standing for Placed<'_> {
    fn place(&self, _: Range<usize>) -> Location {
        self.0.clone()
    }
}
