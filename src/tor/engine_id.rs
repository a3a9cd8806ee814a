//! The id of an engine (a tor process). Circuits, guards and status values carry this id.

use std::fmt;

/// The id of an engine, counted from 0. The engines that this gateway starts come first, then the attached engines,
/// then the engines of single routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineId(pub u8);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
