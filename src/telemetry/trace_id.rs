//! Ids that mark all log lines of one connection, circuit build, check or API request.
//!
//! The id is in the spans of debug lines, in the access line and in error answers: `grep ID` finds all lines of one
//! connection. Making an id costs one atomic addition. The id becomes text only when a line with the id is printed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kind of thing that an id belongs to. The kind is the first letter of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A connection of a client. Its ids begin with `c`.
    Connection,
    /// A build of a circuit. Its ids begin with `b`.
    Build,
    /// A check of an exit. Its ids begin with `k`.
    Check,
    /// A request to the API. Its ids begin with `r`.
    Request,
}

/// An id such as `c-3f9a-000001b2`: a letter for the kind, four hex digits that are random for each run of the process,
/// and a counter of ids in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId {
    kind: Kind,
    number: u32,
}

/// A random number that is different in each run of the process, because a log file may contain lines of several runs.
static RUN: LazyLock<u16> = LazyLock::new(|| RandomState::new().hash_one(()) as u16);

static LAST: AtomicU32 = AtomicU32::new(0);

impl TraceId {
    /// Returns the next id of this process. The counter starts again after about four billion ids.
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
