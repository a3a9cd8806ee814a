//! Integration tests, one binary: the parts wired together on loopback. Those in `tor` start a private Tor network.

mod api;
mod architecture;
mod check;
mod config;
mod public;
mod reference;
mod source;
mod tor;
