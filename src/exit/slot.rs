//! Slots: small numbers that stand for exits in the catalog's sets.

/// An exit's index in a catalog. It belongs to the exit as long as the exit is in the catalog; later another exit may get
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);
