//! Engines, circuits and dials in a private network on loopback: each test with real tor, and with `simtor` in its place.

use exitgate_testnet::{Backend, Testbed};

mod attach;
mod circuits;
mod death;
mod dial;
mod engine;
mod fault;
mod garbage;
mod leak;
mod rig;
mod warm;

use rig::{Rig, bed, on_both, way};
