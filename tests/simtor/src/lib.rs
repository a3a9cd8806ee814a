//! A stand-in for tor: control port, SOCKS ports and directory files over a simulated public network on loopback.
//!
//! `README.md` says what is modelled, from which source, and what is not. Two programs in one: `simtor world` is the
//! network ([`world`]), and `simtor` with tor's own arguments is an engine in it, which does what tor does as a client.
//!
//! - [`model`]: relays and directories as numbers and texts
//! - [`world`]: the network that runs; [`fault`]: what can go wrong in it; [`link`]: how engines speak to it
//! - [`tor`]: an engine; [`command`]: what else the program does; [`client`]: orders and figures, for tests

pub mod client;
pub mod command;
pub mod fault;
pub mod link;
pub mod model;
pub mod tor;
pub mod world;

mod files;
mod hex;
mod torrc;
