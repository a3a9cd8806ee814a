//! Finds code that nothing calls.
//!
//! In `src/lib.rs` every room is public, for tests, benches and fuzz targets, so the compiler takes every `pub` item for
//! used. Here the same files are the private rooms of a program with one entry, and the compiler warns of the rest:
//! `cargo clippy --example dead_code --features dead-code`, which `make test` runs.
//!
//! What only tests call stays under `#[cfg(test)]`; what benches or integration tests need and the gateway does not is
//! marked where it stands, with `#[allow(dead_code, reason = "…")]` for this build alone:
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
