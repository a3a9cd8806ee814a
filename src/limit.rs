//! Who may do how much.

mod bucket;
pub mod target;

pub use bucket::Bucket;
