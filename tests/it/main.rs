//! Integration tests, one binary: the parts wired together on loopback, without tor.

mod architecture;
mod config;
mod source;
