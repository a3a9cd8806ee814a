//! `exitgate man`: prints the manual pages, which are generated from the help texts.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;

use super::ExitStatus;

/// Prints the manual page of the program. If `folder` is set, writes one page for each command into this folder
/// instead.
pub(super) fn run(command: clap::Command, folder: Option<PathBuf>) -> anyhow::Result<ExitStatus> {
    match folder {
        None => clap_mangen::Man::new(command).render(&mut io::stdout()).context("cannot print the manual")?,
        Some(folder) => clap_mangen::generate_to(command, &folder)
            .with_context(|| format!("cannot write the manual to {}", folder.display()))?,
    }
    Ok(ExitStatus::Ok)
}
