//! Ids that tie together all lines of one connection, circuit build, check or API request.
//!
//! The id stands in the spans of debug lines, in the access line and in error answers, so that `grep ID` shows the whole
//! story of one connection. Making one costs an atomic addition; it is written as text only where somebody prints it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What an id stands for; its first letter.
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

/// Differs from run to run, so that the logs of two runs do not mix.
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
