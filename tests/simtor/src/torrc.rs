//! Reads a configuration as tor does: the same options, the same forms of values, the same complaints.
//!
//! `torrc/options.txt` lists every option of tor 0.4.9.11 with its kind and default, as that tor answers
//! `GETINFO config/names` and `GETINFO config/defaults`. An option that is not in it is refused with tor's words, so a
//! line that real tor would not take does not pass here either.
//!
//! Next: `torrc/value.rs` (forms of values), `torrc/port.rs` (what a port's line says).

use std::collections::BTreeMap;
use std::sync::LazyLock;

mod lines;
mod port;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use lines::{quoted, unquoted};
pub(crate) use port::{Listen, Port};
use value::Kind;

const OPTIONS: &str = include_str!("torrc/options.txt");

/// One option of tor.
#[derive(Debug)]
struct Spec {
    name: &'static str,
    kind: Kind,
    default: &'static str,
}

static SPECS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let spec = |line: &'static str| {
        let mut words = line.splitn(3, ' ');
        Some(Spec { name: words.next()?, kind: Kind::read(words.next()?), default: words.next().unwrap_or("") })
    };
    OPTIONS.lines().filter_map(spec).collect()
});

/// Options that cannot change while tor runs.
const FIXED: &[&str] =
    &["DataDirectory", "CacheDirectory", "KeyDirectory", "RunAsDaemon", "User", "Sandbox", "TestingTorNetwork"];

/// Why a configuration is refused, in tor's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// No option has this name.
    #[error("Unknown option '{0}'.  Failing.")]
    Unknown(String),
    /// The value is not of the option's kind.
    #[error("Could not parse {name}: Provided value is malformed or out of bounds: {why}")]
    Malformed {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Options that do not fit together, or a line that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// An option that cannot change any more.
    #[error("While Tor is running, changing {0} is not allowed")]
    Fixed(&'static str),
}

/// A configuration: values by option, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Torrc {
    values: BTreeMap<&'static str, Vec<String>>,
}

/// What tor would say of a configuration that it takes.
pub(crate) type Warnings = Vec<String>;

impl Torrc {
    /// Reads the text of a file, then what the command line adds to it.
    pub(crate) fn parse(text: &str, arguments: &[(String, String)]) -> Result<(Self, Warnings), Fault> {
        let (mut torrc, mut warnings) = (Self::default(), Warnings::new());
        for (key, value) in lines::split(text) {
            torrc.add(&key, &value, &mut warnings)?;
        }
        let mut given: Vec<&str> = Vec::new();
        for (key, value) in arguments {
            let spec = find(key, &mut warnings)?;
            if !given.contains(&spec.name) {
                torrc.values.remove(spec.name); // the command line replaces what the file says
                given.push(spec.name);
            }
            torrc.add(key, value, &mut warnings)?;
        }
        torrc.check(&mut warnings)?;
        Ok((torrc, warnings))
    }

    fn add(&mut self, key: &str, value: &str, warnings: &mut Warnings) -> Result<(), Fault> {
        let bare = key.trim_start_matches(['+', '/']);
        let spec = find(bare, warnings)?;
        if key.starts_with('/') {
            self.values.remove(spec.name);
            return Ok(());
        }
        let value = read(spec, value)?;
        let values = self.values.entry(spec.name).or_default();
        if !spec.kind.is_list() {
            values.clear();
        }
        values.push(value);
        Ok(())
    }

    /// Sets options together, as SETCONF does; without a value an option becomes what it is by default.
    pub(crate) fn set(&mut self, pairs: &[(String, Option<String>)]) -> Result<(), Fault> {
        let (mut changed, mut warnings) = (self.clone(), Warnings::new());
        for (key, _) in pairs {
            let spec = find(key, &mut warnings)?;
            changed.values.remove(spec.name);
        }
        for (key, value) in pairs {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                changed.add(key, value, &mut warnings)?;
            }
        }
        changed.check(&mut warnings)?;
        changed.may_follow(self)?;
        *self = changed;
        Ok(())
    }

    /// Whether a running tor with `old` can go on with this.
    pub(crate) fn may_follow(&self, old: &Self) -> Result<(), Fault> {
        let changed = FIXED.iter().find(|name| self.values.get(*name) != old.values.get(*name));
        changed.map_or(Ok(()), |name| Err(Fault::Fixed(name)))
    }

    /// The values of an option as GETCONF answers them, with its name as tor spells it; none if there is no such option.
    pub(crate) fn answer(&self, key: &str) -> Option<(&'static str, Vec<String>)> {
        let spec = find(key, &mut Warnings::new()).ok()?;
        let set = self.all(spec.name).map(str::to_owned).collect::<Vec<_>>();
        Some((spec.name, if set.is_empty() { vec![self.text(spec.name)] } else { set }))
    }

    /// The value of an option, or its default.
    pub(crate) fn text(&self, name: &str) -> String {
        if let Some(value) = self.all(name).last() {
            return value.to_owned();
        }
        match name {
            "EnforceDistinctSubnets" if self.is_testing() => "0".to_owned(),
            _ => find(name, &mut Warnings::new())
                .map_or_else(|_| String::new(), |spec| spec.kind.normal_default(spec.default)),
        }
    }

    /// True if an option is set to 1, or is so by default.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// The number that an option holds; seconds or bytes where it has a unit.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// Every value that was set.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.values.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Every option that was set, for `GETINFO config-text`.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.values.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name} {value}")))
    }

    /// True in a private network.
    pub(crate) fn is_testing(&self) -> bool {
        self.all("TestingTorNetwork").last() == Some("1")
    }

    fn check(&self, warnings: &mut Warnings) -> Result<(), Fault> {
        let invalid = |why: &str| Err(Fault::Invalid(why.to_owned()));
        for name in ["SocksPort", "ControlPort", "ControlSocket"] {
            for value in self.all(name) {
                if Port::read(name, value).is_none() {
                    warnings.push(format!("Couldn't parse address \"{value}\" for {name}"));
                    return Err(Fault::Invalid(format!("Invalid {name} configuration")));
                }
            }
        }
        if self.all("Bridge").any(|line| line.split_whitespace().all(|word| !word.contains(':'))) {
            return invalid("Bridge line did not parse. See logs for details.");
        }
        if self.is_on("UseBridges") && self.all("Bridge").next().is_none() {
            return invalid("If you set UseBridges, you must specify at least one bridge.");
        }
        let authorities: Vec<_> = self.all("DirAuthority").collect();
        if authorities.iter().any(|line| line.split_whitespace().count() < 3) {
            return invalid("Directory authority/fallback line did not parse. See logs for details.");
        }
        if self.is_testing() && authorities.is_empty() {
            return invalid(
                "TestingTorNetwork may only be configured in combination with a non-default set of DirAuthority or both of \
                 AlternateDirAuthority and AlternateBridgeAuthority configured.",
            );
        }
        if self.number("BandwidthBurst") < self.number("BandwidthRate") && self.all("BandwidthBurst").next().is_some() {
            return invalid("BandwidthBurst must be at least equal to BandwidthRate.");
        }
        Ok(())
    }
}

fn read(spec: &'static Spec, value: &str) -> Result<String, Fault> {
    spec.kind.normal(value).map_err(|why| Fault::Malformed { name: spec.name, why })
}

/// The option of this name, whatever its case, or the only beginning of one.
fn find(key: &str, warnings: &mut Warnings) -> Result<&'static Spec, Fault> {
    if let Some(spec) = SPECS.iter().find(|spec| spec.name.eq_ignore_ascii_case(key)) {
        return Ok(spec);
    }
    let begins = |spec: &&Spec| spec.name.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key));
    match SPECS.iter().find(|spec| !key.is_empty() && begins(spec)) {
        Some(spec) => {
            warnings.push(format!("The abbreviation '{key}' is deprecated. Please use '{}' instead", spec.name));
            Ok(spec)
        }
        None => Err(Fault::Unknown(key.to_owned())),
    }
}

/// Every option, one a line.
pub(crate) fn names() -> String {
    SPECS.iter().map(|spec| format!("{}\n", spec.name)).collect()
}

/// Every option with its kind, one a line.
pub(crate) fn kinds() -> String {
    let line = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ") + "\n";
    OPTIONS.lines().map(line).collect()
}
