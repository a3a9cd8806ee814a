//! What several benches need. Nothing here uses code of exitgate: a measuring program must not share faults with what it measures.
#![allow(missing_docs, reason = "an item whose name says everything needs no comment")]

pub mod gateway;
pub mod http;
pub mod process;
pub mod stats;
pub mod table;
pub mod tunnel;
