//! A stand-in for tor: control port, SOCKS ports and directory files over a simulated public network on loopback.
//!
//! See `README.md` for what is modelled and what is not.

pub mod model;
