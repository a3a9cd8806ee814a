//! Finds, reads and validates a configuration.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::{Faults, Finding, Location};
use super::findings::Findings;
use super::tree::Node;
use super::{Config, SelectorCheck, deserialize, env, schema, secret};

/// The files that are tried, in this order, if `--config` is not given.
const PLACES: [&str; 2] = ["./exitgate.toml", "/etc/exitgate/exitgate.toml"];

/// The file that the configuration was read from, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Defaults,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Defaults => f.write_str("defaults"),
        }
    }
}

/// A valid configuration, with its file and its warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that the configuration was read from. A reload reads this file again.
    pub origin: Origin,
    /// Values that work but are probably a mistake.
    pub warnings: Vec<Finding>,
}

/// Returns the file to read: `asked` if it is given, otherwise the first of the usual files that exists, otherwise
/// none.
pub fn find(asked: Option<&Path>) -> Origin {
    let usual = || PLACES.iter().map(Path::new).find(|path| path.exists());
    asked.or_else(usual).map_or(Origin::Defaults, |path| Origin::File(path.to_owned()))
}

/// Reads the configuration file and the environment variables of this process.
pub fn load(origin: Origin, selectors: Option<SelectorCheck<'_>>) -> Result<Loaded, Faults> {
    let name: Arc<str> = origin.to_string().into();
    let text = match &origin {
        Origin::Defaults => String::new(),
        Origin::File(path) => std::fs::read_to_string(path).map_err(|why| Faults::one(no_file(&name, &why)))?,
    };
    let open_file = matches!(&origin, Origin::File(path) if secret::is_open(path));
    let text_of = |os: OsString| os.to_string_lossy().into_owned();
    let vars = std::env::vars_os().map(|(name, value)| (text_of(name), text_of(value)));
    let (config, warnings) = build(&name, &text, vars, selectors, open_file)?;
    Ok(Loaded { config, origin, warnings })
}

/// Reads a configuration from `text` and the given variables. Reports show `name` as the name of the file.
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests and fuzz targets parse texts"))]
pub fn parse(
    name: &str,
    text: &str,
    vars: impl IntoIterator<Item = (String, String)>,
    selectors: Option<SelectorCheck<'_>>,
) -> Result<(Config, Vec<Finding>), Faults> {
    build(&name.into(), text, vars, selectors, false)
}

fn build(
    name: &Arc<str>,
    text: &str,
    vars: impl IntoIterator<Item = (String, String)>,
    selectors: Option<SelectorCheck<'_>>,
    open_file: bool,
) -> Result<(Config, Vec<Finding>), Faults> {
    let (mut root, mut faults) = Node::parse(name, text);
    faults.extend(env::lay_on(&mut root, vars));
    let mut findings = Findings::of(root, open_file, faults);
    let file: schema::File = deserialize::read(&mut findings);
    let config = Config::validate(&file, selectors, &mut findings);
    Ok((config, findings.close()?))
}

fn no_file(name: &Arc<str>, why: &io::Error) -> Finding {
    let (what, hint) = match why.kind() {
        io::ErrorKind::NotFound => ("this file does not exist".to_owned(), "correct --config, or leave it out"),
        io::ErrorKind::PermissionDenied => {
            ("this user cannot read the file".to_owned(), "make it readable, or use another user")
        }
        io::ErrorKind::InvalidData => ("the file is not text".to_owned(), "write it in UTF-8"),
        io::ErrorKind::IsADirectory => ("this is a folder".to_owned(), "name the file in it"),
        _ => (format!("the file cannot be read: {why}"), "correct --config, or leave it out"),
    };
    Finding { place: Location::File(name.clone()), key: String::new(), what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the documentation file with its examples turned into values, so the text sets every key.
    fn page() -> String {
        let page = include_str!("../../config/exitgate.toml");
        let uncommented =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
        page.lines().map(uncommented).collect::<Vec<_>>().join("\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_typo_is_reported_and_never_a_panic(at in 0..page().len(), typo in "[\\[\\]{}=\"'#\n0-9a-z-]{0,3}") {
            let page = page();
            let at = (at..).find(|at| page.is_char_boundary(*at)).unwrap_or_default();
            let rest = page[at..].char_indices().nth(1).map_or("", |(next, _)| &page[at + next..]);
            if let Err(faults) = parse("t", &format!("{}{typo}{rest}", &page[..at]), [], None) {
                prop_assert!(faults.iter().count() > 0);
                prop_assert!(faults.iter().all(|fault| !fault.what.is_empty() && !fault.hint.is_empty()));
            }
        }
    }
}
