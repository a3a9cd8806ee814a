//! The parts of one snapshot that choosing reads.

use super::ban::Bans;
use super::table::RouteTable;
use crate::exit::Catalog;

/// The parts of one snapshot that choosing reads.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub catalog: &'a Catalog,
    pub routes: &'a RouteTable,
    pub bans: &'a Bans,
}
