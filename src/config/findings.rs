//! Collects the faults and warnings of a configuration while its sections are validated.
//!
//! A section that finds a fault does not return an error. It records the fault and continues with a default value. The
//! whole configuration is dropped at the end. So the validating code needs no `?`, and one run reports all faults.

use super::finding::{Faults, Finding, Location};
use super::key_path::KeyPath;
use super::tree::Node;

/// The faults and warnings that were found so far, and the configuration tree that they refer to.
#[derive(Debug)]
pub(super) struct Findings {
    root: Node,
    /// True if every user of this machine can read the configuration file.
    open_file: bool,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    /// Creates the collection. `faults` are those that were found while the text was read.
    pub(super) fn of(root: Node, open_file: bool, faults: Vec<Finding>) -> Self {
        Self { root, open_file, faults, warnings: Vec::new() }
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Records a fault, which makes the configuration unusable. If the value at `at` was reported before, nothing is
    /// recorded, because a default value has already replaced the reported value.
    pub(super) fn fault(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let at = at.into();
        if self.is_sound(&at) {
            let finding = self.finding(&at, what.into(), hint.into());
            self.faults.push(finding);
        }
    }

    /// Records a value of a wrong type, and removes the value from the tree, so that the rest can be read. Returns
    /// false if there is no value at that path.
    pub(super) fn misshapen(&mut self, at: &KeyPath, what: String, hint: String) -> bool {
        self.fault(at, what, hint);
        self.root.remove(at)
    }

    /// Records a warning: the value works, but is probably a mistake.
    pub(super) fn warn(&mut self, at: impl Into<KeyPath>, what: impl Into<String>, hint: impl Into<String>) {
        let finding = self.finding(&at.into(), what.into(), hint.into());
        self.warnings.push(finding);
    }

    /// Returns true if the value at this path was written in the configuration or is an ordinary default. Returns false
    /// if it is a default that replaces a reported value.
    pub(super) fn is_sound(&self, at: &KeyPath) -> bool {
        !self.root.is_removed(at)
    }

    /// Returns true if the value is in a file that every user of this machine can read.
    pub(super) fn in_open_file(&self, at: &KeyPath) -> bool {
        self.open_file && matches!(self.root.place_of(at), Location::Line(..))
    }

    /// Returns the line or variable that sets another key, in brackets. Messages show it after the name of that key.
    pub(super) fn whereabouts(&self, at: &KeyPath) -> String {
        match self.root.place_of(at) {
            Location::Line(_, line) => format!(" (line {line})"),
            Location::Variable(name) => format!(" ({name})"),
            Location::File(_) => " (by default)".to_owned(),
        }
    }

    /// Returns all faults as an error, or the warnings if there is no fault.
    pub(super) fn close(mut self) -> Result<Vec<Finding>, Faults> {
        self.warnings.sort();
        Faults::some(self.faults).map_or(Ok(self.warnings), Err)
    }

    fn finding(&self, at: &KeyPath, what: String, hint: String) -> Finding {
        Finding { place: self.root.place_of(at), key: at.to_string(), what, hint }
    }
}
