//! Engines, circuits and dials with real tor, in a private network on loopback.

use exitgate_testnet::Testbed;

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

use rig::{Rig, way};
