//! `exitgate man`: the manual, made from the command line's own words.

use std::io::Write as _;
use std::path::PathBuf;

use super::Exit;

/// The page of the program to stdout, or one page for each command into a folder.
pub(super) fn run(command: clap::Command, folder: Option<PathBuf>) -> Exit {
    let written = match &folder {
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout()),
        Some(folder) => clap_mangen::generate_to(command, folder),
    };
    match written {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let place = folder.map_or_else(|| "stdout".to_owned(), |folder| folder.display().to_string());
            _ = writeln!(std::io::stderr(), "exitgate: the manual cannot be written to {place}: {error}");
            Exit::Unavailable
        }
    }
}
