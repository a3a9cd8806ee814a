//! Collects what is wrong with a configuration while its sections are validated.
//!
//! Faults are collected and not returned: a section that finds one goes on with a default value, and the whole
//! configuration is dropped at the end. So validation reads from top to bottom without `?`, and reports every fault at once.

use super::finding::{Faults, Finding, Location};
use super::key_path::KeyPath;
use super::tree::Node;

/// The faults and warnings found so far, and the tree that they are about.
#[derive(Debug)]
pub(super) struct Findings {
    root: Node,
    /// True if every user of this machine can read the file.
    open_file: bool,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    /// Starts with the faults that reading the text has found.
    pub(super) fn of(root: Node, open_file: bool, faults: Vec<Finding>) -> Self {
        Self { root, open_file, faults, warnings: Vec::new() }
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Notes a fault, which makes the configuration unusable. A value that was reported before is not reported again for
    /// its default.
    pub(super) fn fault(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let at = at.into();
        if self.is_sound(&at) {
            let finding = self.finding(&at, what.into(), hint.into());
            self.faults.push(finding);
        }
    }

    /// Notes a value of a wrong type and removes it from the tree, so that the rest can be read. False if there is no value
    /// at that path.
    pub(super) fn misshapen(&mut self, at: &KeyPath, what: String, hint: String) -> bool {
        self.fault(at, what, hint);
        self.root.remove(at)
    }

    /// Notes a warning: it works, but is probably a mistake.
    pub(super) fn warn(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let finding = self.finding(&at.into(), what.into(), hint.into());
        self.warnings.push(finding);
    }

    /// True if the value at this path was written, or is an intended default; false if it replaces a reported one.
    pub(super) fn is_sound(&self, at: &KeyPath) -> bool {
        !self.root.is_removed(at)
    }

    /// True if the value is in a file that every user of this machine can read.
    pub(super) fn in_open_file(&self, at: &KeyPath) -> bool {
        self.open_file && matches!(self.root.place_of(at), Location::Line(..))
    }

    /// The place of another key, to be written behind its name.
    pub(super) fn whereabouts(&self, at: &KeyPath) -> String {
        match self.root.place_of(at) {
            Location::Line(_, line) => format!(" (line {line})"),
            Location::Variable(name) => format!(" ({name})"),
            Location::File(_) => " (by default)".to_owned(),
        }
    }

    /// The warnings, or every fault if there is any.
    pub(super) fn close(mut self) -> Result<Vec<Finding>, Faults> {
        self.warnings.sort();
        Faults::some(self.faults).map_or(Ok(self.warnings), Err)
    }

    fn finding(&self, at: &KeyPath, what: String, hint: String) -> Finding {
        Finding { place: self.root.place_of(at), key: at.to_string(), what, hint }
    }
}
