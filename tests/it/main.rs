//! Integration tests, one binary: the parts wired together on loopback. Those in `tor` start a private Tor network.

mod api;
mod architecture;
mod check;
mod config;
mod fuzz;
mod inherited;
mod keys;
mod pointers;
mod public;
mod reference;
mod security;
mod source;
mod tor;
