//! exitgate: one gateway, many exits.
//!
//! The tour, in the order in which a connection meets the rooms. Each room's own page says why it is as it is; the two
//! ways through them (a connection, a change) are drawn in `docs/ARCHITECTURE.md`.
//!
//! Rooms know only rooms below them; `tests/it/architecture.rs` fails on an arrow that points up or sideways.

pub mod api; // CONTROL PATH: admin REST
pub mod app; // builds every part and wires them
pub mod check; // the exit tester
pub mod cli;
pub mod config; // text → validated settings
pub mod console; // the embedded web console
pub mod dial; // opens streams to exits and targets
pub mod exit; // the exits: what we know of each (pure)
pub mod gateway; // DATA PATH: start reading at gateway/connection.rs
pub mod lifecycle; // running → draining → killing; the only room that spawns
pub mod limit; // who may do how much
pub mod listen; // owns a port: permit, accept, pause on error, spawn
pub mod net; // words about addresses
pub mod route; // which way out: selectors, pools, choices (pure)
pub mod source; // where exits come from
pub mod state; // the one writer; the snapshot that everybody reads
pub mod store; // SQLite on its own thread
pub mod telemetry; // logging and metrics
pub mod tor; // engines and circuits: Tor, driven // the words of the command line
