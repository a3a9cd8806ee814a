//! The parts of one snapshot that the choice of an exit reads.

use super::ban::Bans;
use super::table::RouteTable;
use crate::exit::Catalog;

/// References to the parts of one snapshot that the choice of an exit reads.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub catalog: &'a Catalog,
    pub routes: &'a RouteTable,
    pub bans: &'a Bans,
}
