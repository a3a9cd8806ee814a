//! The program: passes its arguments to [`exitgate::cli`], and exits with the exit code that it returns.

use std::process::ExitCode;

use exitgate::cli::{self, Actions};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), Actions::REAL).into()
}
