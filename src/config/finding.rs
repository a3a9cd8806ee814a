//! What is wrong with a configuration, said so that a person can mend all of it in one go.
//!
//! A [`Finding`] has four parts because a reader asks four things: where do I look, which key is it, what is wrong with
//! it, what do I write instead. A sentence that leaves one of them out sends its reader to the manual, so the parts
//! are fields and not one text: no finding can be made without all of them.
//!
//! Faults are collected, never returned: a section that finds one goes on with a stand-in value, and the whole
//! configuration is thrown away at the end. That is why validation here reads top to bottom without a `?`.

use std::fmt;
use std::sync::Arc;

use super::tree::Node;
use crate::net::Printable;

/// One step from a table to what is inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the root of a configuration to one value: `routes[2].port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    /// The path of a key inside this table.
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The path of an element of this list.
    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl From<&str> for KeyPath {
    /// Splits a path that is written in this source, where no key holds a dot.
    fn from(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }
}

impl From<&KeyPath> for KeyPath {
    fn from(path: &KeyPath) -> Self {
        path.clone()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                    let dot = if at == 0 { "" } else { "." };
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// Where a value stands, so that an editor can jump to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A line of the file, counted from 1.
    Line(Arc<str>, usize),
    /// The file as a whole: about a key that is not in it.
    File(Arc<str>),
    /// An environment variable.
    Variable(Arc<str>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::File(name) | Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, or at least worth a second look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where to look.
    pub place: Location,
    /// Which key, as a path; empty when the text is not even TOML.
    pub key: String,
    /// What is wrong with it: the sentence whose subject is the key.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.key.is_empty() { "" } else { " " };
        let (key, what, hint) = (Printable(&self.key), Printable(&self.what), Printable(&self.hint));
        write!(f, "{}: {key}{gap}{what}\n    {hint}", self.place)
    }
}

/// Every fault of a configuration: there is at least one, in the order of the file, then of the variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Finding>);

impl Faults {
    pub(super) fn one(fault: Finding) -> Self {
        Self(vec![fault])
    }

    pub(super) fn some(mut faults: Vec<Finding>) -> Option<Self> {
        faults.sort();
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    /// Every fault on lines of its own, and how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fault| writeln!(f, "{fault}"))?;
        match self.0.len() {
            1 => f.write_str("1 fault in the configuration"),
            many => write!(f, "{many} faults in the configuration"),
        }
    }
}

impl std::error::Error for Faults {}

/// What has been found so far, and the text that it was found in.
#[derive(Debug)]
pub(super) struct Findings {
    root: Node,
    /// Whether every user of this machine can read the file.
    open_file: bool,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    /// What reading the text has found already.
    pub(super) fn of(root: Node, open_file: bool, faults: Vec<Finding>) -> Self {
        Self { root, open_file, faults, warnings: Vec::new() }
    }

    /// The tree that the findings are about.
    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Notes what makes the configuration unusable. A value that was already reported is not reported again for what
    /// its stand-in lacks.
    pub(super) fn fault(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let at = at.into();
        if self.is_sound(&at) {
            let finding = self.finding(&at, what.into(), hint.into());
            self.faults.push(finding);
        }
    }

    /// Notes a value of the wrong shape and takes it out of the tree, so that the rest can be read. False when there
    /// was nothing at that path to take out.
    pub(super) fn misshapen(&mut self, at: &KeyPath, what: String, hint: String) -> bool {
        self.fault(at, what, hint);
        self.root.cut(at)
    }

    /// Notes what works and is probably not what was meant.
    pub(super) fn warn(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let finding = self.finding(&at.into(), what.into(), hint.into());
        self.warnings.push(finding);
    }

    /// True when the value at this path is the one that was written, or a default on purpose; false when it stands in
    /// for one that was reported.
    pub(super) fn is_sound(&self, at: &KeyPath) -> bool {
        !self.root.is_cut(at)
    }

    /// True of a value that stands in a file which every user of this machine can read.
    pub(super) fn in_open_file(&self, at: &KeyPath) -> bool {
        self.open_file && matches!(self.root.place_of(at), Location::Line(..))
    }

    /// Where another key stands, to be put behind its name.
    pub(super) fn whereabouts(&self, at: &KeyPath) -> String {
        match self.root.place_of(at) {
            Location::Line(_, line) => format!(" (line {line})"),
            Location::Variable(name) => format!(" ({name})"),
            Location::File(_) => " (by default)".to_owned(),
        }
    }

    /// The verdict: the warnings of a usable configuration, or every fault.
    pub(super) fn close(mut self) -> Result<Vec<Finding>, Faults> {
        self.warnings.sort();
        Faults::some(self.faults).map_or(Ok(self.warnings), Err)
    }

    fn finding(&self, at: &KeyPath, what: String, hint: String) -> Finding {
        Finding { place: self.root.place_of(at), key: at.to_string(), what, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_two_lines_whatever_it_quotes() {
        let finding = Finding {
            place: Location::File("a.toml".into()),
            key: "log.file".into(),
            what: "names \x1b[2J\r\nx, which does not exist".into(),
            hint: "mkdir -p \t".into(),
        };
        let want = "a.toml: log.file names \\u{1b}[2J\\r\\nx, which does not exist\n    mkdir -p \\t";
        assert_eq!(finding.to_string(), want);
    }
}
