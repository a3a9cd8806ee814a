//! Finds code that nothing calls.
//!
//! In `src/lib.rs` every room (top-level module) is public, because tests, benches and fuzz targets use the rooms. So
//! the compiler never reports an unused `pub` item there. This file is a program that has the same rooms as private
//! modules. When clippy checks this program, it reports every item that `main` does not need. `make test` runs
//! `cargo clippy --example dead_code --features dead-code`.
//!
//! Code that only unit tests call must be under `#[cfg(test)]`. Code that only benches or integration tests call gets
//! an attribute that allows it in this build alone:
//! `#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]`.

mod admin;
mod api;
mod app;
mod check;
mod cli;
mod config;
mod console;
mod dial;
mod exit;
mod gateway;
mod lifecycle;
mod limit;
mod listen;
mod net;
mod route;
mod source;
mod state;
mod store;
mod telemetry;
mod tor;

use std::process::ExitCode;

use cli::Actions;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), Actions::REAL).into()
}
