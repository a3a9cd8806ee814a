//! The number of an engine, which its circuits, guards and status carry.

use std::fmt;

/// Number of an engine. Engines that we start come first, then attached ones, then those of single routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineId(pub u8);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
