//! Ids that mark all log lines of one connection, circuit build, check or API request.
//!
//! The id is in the spans of debug lines, in the access line and in error answers: `grep ID` finds everything about one
//! connection. Making an id costs one atomic addition; it becomes text only when a line with it is printed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What an id belongs to; it is the first letter of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's connection: `c`.
    Connection,
    /// A circuit build: `b`.
    Build,
    /// A check of an exit: `k`.
    Check,
    /// A request to the API: `r`.
    Request,
}

/// An id such as `c-3f9a-000001b2`: the kind, four digits that differ from run to run, and a number that goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId {
    kind: Kind,
    number: u32,
}

/// Differs from run to run: a log file may hold the lines of several runs.
static RUN: LazyLock<u16> = LazyLock::new(|| RandomState::new().hash_one(()) as u16);

static LAST: AtomicU32 = AtomicU32::new(0);

impl TraceId {
    /// The next id of this process. Numbers start again after four thousand million.
    pub fn next(kind: Kind) -> Self {
        Self { kind, number: LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1) }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            Kind::Connection => 'c',
            Kind::Build => 'b',
            Kind::Check => 'k',
            Kind::Request => 'r',
        };
        write!(f, "{letter}-{:04x}-{:08x}", *RUN, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_one_length() {
        let (first, second) = (TraceId::next(Kind::Connection), TraceId::next(Kind::Build));
        let (first, second) = (first.to_string(), second.to_string());
        assert_ne!(first[2..], second[2..]);
        assert_eq!((first.len(), second.len()), (15, 15));
        assert!(first.starts_with("c-") && second.starts_with("b-"), "{first} {second}");
        assert_eq!(first[..6][2..], second[..6][2..], "one run");
    }
}
