//! `exitgate init`: writes a configuration with comments, a key for clients and a token for the API, and prints the
//! next commands.
//!
//! The command asks no questions and overwrites no file. A key or a token that exists already is used again, because
//! clients know it. Both are never printed: the printed commands read them from their files.
//!
//! Next: `cli/init/text.rs`, the text of the configuration and of the next commands.

mod text;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use self::text::Plan;
use super::{ExitStatus, SELECTORS};
use crate::app::secrets::{self, KEY_FILE, TOKEN_FILE};
use crate::config;

/// The name of the configuration file. `exitgate serve` finds a file of this name without `--config`.
const FILE: &str = "exitgate.toml";

/// The folder of the gateway's data, in the folder of the configuration. It has the same name as the default of
/// `data_dir`.
const DATA: &str = "exitgate-data";

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The folder to write into; it is created if it does not exist
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// The address of the shared port, which clients use
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1080")]
    listen: SocketAddr,
    /// The address of the API and the console
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    api_listen: SocketAddr,
    /// Replace an existing configuration; it is kept as exitgate.toml.1
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    let cannot = |doing: &'static str, path: &Path| format!("cannot {doing} {}", path.display());
    fs::create_dir_all(&args.dir).with_context(|| cannot("create", &args.dir))?;
    // Paths in the configuration are absolute, because relative ones would start at the folder in which the gateway is
    // started.
    let folder = fs::canonicalize(&args.dir).with_context(|| cannot("open", &args.dir))?;
    let file = folder.join(FILE);
    if !args.force && fs::symlink_metadata(&file).is_ok() {
        return refuse(&format!(
            "{} exists already; --force keeps it under another name and writes a new one",
            file.display()
        ));
    }
    let Some(plan) = Plan::new(&folder, args.listen, args.api_listen) else {
        return refuse(&format!(
            "the path {} is not text in UTF-8; choose another folder with --dir",
            folder.display()
        ));
    };

    let data = folder.join(DATA);
    secrets::make_data_dir(&data)?;
    let mut report = Vec::new();
    for (name, what) in [(KEY_FILE, "the password of clients"), (TOKEN_FILE, "the token of the API and the console")] {
        let (_, new) = secrets::load_or_make(&data, name)?;
        let verb = if new { "written" } else { "used again" };
        report.push(format!("{verb}: {} ({what})", data.join(name).display()));
    }

    let text = plan.configuration();
    let warnings = match config::parse(&file.display().to_string(), &text, [], SELECTORS) {
        Ok((_, warnings)) => warnings,
        Err(faults) => return refuse(&format!("nothing was written to {}:\n{faults}", file.display())),
    };
    if let Some(old) = set_aside(&file).with_context(|| cannot("rename", &file))? {
        report.insert(0, format!("kept: {} (the configuration until now)", old.display()));
    }
    write_new(&file, &text).with_context(|| cannot("write", &file))?;
    report.insert(0, format!("written: {}", file.display()));

    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    for warning in warnings {
        writeln!(stderr, "warning: {warning}")?;
    }
    let tor = has_program("tor", std::env::var_os("PATH").as_deref());
    writeln!(stdout, "{}\n\n{}", report.join("\n"), plan.next_commands(tor).trim_end())?;
    Ok(ExitStatus::Ok)
}

fn refuse(why: &str) -> anyhow::Result<ExitStatus> {
    writeln!(io::stderr(), "exitgate: {why}")?;
    Ok(ExitStatus::Usage)
}

/// Renames an existing file to the first free name with a number, and returns the new name. Returns `None` if there is
/// no file.
fn set_aside(file: &Path) -> io::Result<Option<PathBuf>> {
    if fs::symlink_metadata(file).is_err() {
        return Ok(None);
    }
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    let free = (1..).map(numbered).find(|path| fs::symlink_metadata(path).is_err());
    let Some(free) = free else { return Err(io::Error::other("every number is taken")) };
    fs::rename(file, &free)?;
    Ok(Some(free))
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Returns true if one of the folders in `path`, the value of the environment variable `PATH`, has this program.
fn has_program(name: &str, path: Option<&std::ffi::OsStr>) -> bool {
    path.is_some_and(|path| std::env::split_paths(path).any(|folder| folder.join(name).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_set_aside_under_the_first_free_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        assert_eq!(set_aside(&file).unwrap(), None);
        for (number, text) in ["first", "second"].into_iter().enumerate() {
            write_new(&file, text).unwrap();
            assert_eq!(write_new(&file, "x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let kept = set_aside(&file).unwrap().unwrap();
            assert_eq!(kept, folder.path().join(format!("{FILE}.{}", number + 1)));
            assert_eq!(fs::read_to_string(kept).unwrap(), text);
        }
        assert!(!file.exists());
    }

    #[test]
    fn a_program_is_found_in_the_folders_of_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        assert!(!has_program("tor", Some(&path)) && !has_program("tor", None));
        fs::create_dir(folder.path().join("tor")).unwrap();
        assert!(!has_program("tor", Some(&path)), "a folder is no program");
        fs::remove_dir(folder.path().join("tor")).unwrap();
        fs::write(folder.path().join("tor"), "").unwrap();
        assert!(has_program("tor", Some(&path)));
    }
}
