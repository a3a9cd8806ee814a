//! argv → config → runtime → app → exit code.

use std::process::ExitCode;

use exitgate::cli::{self, Work};

fn main() -> ExitCode {
    let work = Work {
        serve: |_| anyhow::bail!("this build carries no gateway"),
        reload: |_| anyhow::bail!("this build carries no gateway"),
    };
    cli::run(std::env::args_os(), work).into()
}
