//! What several benches need. Nothing here uses code of exitgate: a measuring program must not share faults with what it measures.

pub mod gateway;
pub mod http;
pub mod process;
pub mod stats;
pub mod table;
pub mod tunnel;
