//! A fault or warning of a configuration, with everything that the author needs to correct it.
//!
//! A [`Finding`] answers four questions: where the value is, which key it is, what is wrong, and what to write instead.
//! There is a field for each answer, so no finding can be made without all four.
//!
//! Next: `config/findings.rs`, which collects the findings.

use std::fmt;
use std::sync::Arc;

use crate::net::Printable;

/// The place of a value. A line is printed as `file:line`, which editors can open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A line of a file. The first line has the number 1.
    Line(Arc<str>, usize),
    /// The whole file, for a key that the file does not contain.
    File(Arc<str>),
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

/// One fault or warning of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub place: Location,
    /// The path of the key. Empty if the text is not TOML.
    pub key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub what: String,
    /// What the user should write instead.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.key.is_empty() { "" } else { " " };
        let (key, what, hint) = (Printable(&self.key), Printable(&self.what), Printable(&self.hint));
        write!(f, "{}: {key}{gap}{what}\n    {hint}", self.place)
    }
}

/// All faults of a configuration, at least one. They are sorted by line, then by variable.
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

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests and fuzz targets list the faults"))]
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    /// Prints each fault on lines of its own, and at the end the number of faults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fault| writeln!(f, "{fault}"))?;
        match self.0.len() {
            1 => f.write_str("1 fault in the configuration"),
            many => write!(f, "{many} faults in the configuration"),
        }
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_two_lines_whatever_it_quotes() {
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
