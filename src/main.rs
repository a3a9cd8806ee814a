//! The program: hands its arguments to [`exitgate::cli`] and ends with the exit code that comes back.

use std::process::ExitCode;

use exitgate::cli::{self, Actions};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), Actions::REAL).into()
}
