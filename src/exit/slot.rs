//! Slots: small numbers that stand for exits in the sets of the catalog.

/// The index of an exit in a catalog. The slot belongs to the exit as long as the exit is in the catalog. Later the
/// slot may belong to another exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);
