//! Integration tests, one binary: the parts wired together on loopback. Those in `tor` start a private Tor network.

mod architecture;
mod check;
mod config;
mod public;
mod source;
mod tor;
