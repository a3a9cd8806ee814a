//! argv → config → runtime → app → exit code.

use std::process::ExitCode;

use exitgate::cli::{self, Work};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), Work::REAL).into()
}
