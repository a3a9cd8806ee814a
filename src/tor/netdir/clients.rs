//! What the consensus states about versions of tor: the versions that the authorities recommend, and the subprotocols
//! that a client must or should know.
//!
//! tor does not tell a controller which subprotocols it knows. But each relay's `pr` line tells what its version of tor
//! knows, and client and relay are the same program. So the subprotocols of a version are those of a relay of this
//! version. If the consensus lists no relay of this version, its subprotocols are not known.
//!
//! Pure: no I/O. [`crate::tor::recommended`] warns of versions that are not recommended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::tor::version::Version;

/// The largest number of versions of tor that are read from one consensus. The consensus of the public network
/// recommends about 10, and its relays use about 40. The limit keeps a broken text from filling the memory.
const MAX_VERSIONS: usize = 256;

/// The largest number of subprotocols that are read from one line. tor 0.4.9 has 14.
const MAX_PROTOCOLS: usize = 64;

/// A set of subprotocols with the versions of each, such as `Link=4-5 Relay=2-4`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocols(BTreeMap<Box<str>, u64>);

/// Error: the text is not a list of subprotocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of subprotocols")]
pub struct BadProtocols;

impl FromStr for Protocols {
    type Err = BadProtocols;

    /// Accepts subprotocol versions from 0 to 63, as tor does.
    fn from_str(text: &str) -> Result<Self, BadProtocols> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < u64::BITS).ok_or(BadProtocols);
        let mut all = BTreeMap::new();
        for piece in text.split_ascii_whitespace().take(MAX_PROTOCOLS) {
            let (name, versions) = piece.split_once('=').ok_or(BadProtocols)?;
            let mut set = 0_u64;
            for range in versions.split(',').filter(|range| !range.is_empty()) {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                let (from, to) = (number(from)?, number(to)?);
                set |= (from..=to).fold(0, |set, number| set | 1 << number);
            }
            all.insert(name.into(), set);
        }
        Ok(Self(all))
    }
}

impl Protocols {
    /// Returns the subprotocols of `wanted` that are not in this set, as text. Empty if none is missing.
    fn lacks(&self, wanted: &Self) -> String {
        let mut text = String::new();
        for (name, versions) in &wanted.0 {
            let missing = versions & !self.0.get(name).copied().unwrap_or(0);
            for version in (0..u64::BITS).filter(|version| missing >> version & 1 == 1) {
                let gap = if text.is_empty() { "" } else { " " };
                let _ = write!(text, "{gap}{name}={version}"); // writing to a String cannot fail
            }
        }
        text
    }
}

/// What the directory authorities recommend about one version of tor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recommendation {
    /// The authorities recommend this version.
    Recommended,
    /// The version is newer than all recommended versions of its series, or of all series.
    New,
    /// The authorities no longer recommend this version, usually because it has faults. `newest` is the newest version
    /// that they recommend.
    Outdated { newest: Version },
    /// The version does not know subprotocols that clients should know.
    LacksRecommended(Box<str>),
    /// The version does not know subprotocols that clients must know. A tor of such a version ends by itself.
    LacksRequired(Box<str>),
    /// The consensus recommends no version, as in private networks, or there is no consensus.
    Unknown,
}

impl Recommendation {
    /// Returns the code of this value, for the API and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::New => "new",
            Self::Outdated { .. } => "outdated",
            Self::LacksRecommended(_) => "lacks_recommended",
            Self::LacksRequired(_) => "lacks_required",
            Self::Unknown => "unknown",
        }
    }

    /// Returns true if the operator should install another version of tor.
    pub fn needs_update(&self) -> bool {
        matches!(self, Self::Outdated { .. } | Self::LacksRecommended(_) | Self::LacksRequired(_))
    }
}

/// What one consensus states about versions of tor.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// The versions that the authorities recommend to clients.
    versions: Vec<Version>,
    pub(super) recommended: Protocols,
    pub(super) required: Protocols,
    /// The versions of the relays' tor, each with the subprotocols of the first relay that has this version.
    relays: Vec<(Version, Protocols)>,
}

impl Clients {
    /// Reads the list of recommended versions, which are separated by commas. Versions that cannot be parsed are left
    /// out.
    pub(super) fn read_versions(&mut self, list: &str) {
        self.versions = list.split(',').filter_map(|text| text.parse().ok()).take(MAX_VERSIONS).collect();
    }

    /// Records which subprotocols a relay of this version knows.
    pub(super) fn relay(&mut self, version: Version, protocols: &str) {
        let is_new = self.relays.len() < MAX_VERSIONS && !self.relays.iter().any(|(known, _)| *known == version);
        if is_new && let Ok(protocols) = protocols.parse() {
            self.relays.push((version, protocols));
        }
    }

    /// Returns what the authorities recommend about this version.
    pub fn recommendation(&self, version: Version) -> Recommendation {
        if let Some((_, known)) = self.relays.iter().find(|(other, _)| *other == version) {
            let (must, should) = (known.lacks(&self.required), known.lacks(&self.recommended));
            if !must.is_empty() {
                return Recommendation::LacksRequired(must.into());
            }
            if !should.is_empty() {
                return Recommendation::LacksRecommended(should.into());
            }
        }
        let Some(newest) = self.versions.iter().max().copied() else { return Recommendation::Unknown };
        let newest_of_series = self.versions.iter().filter(|other| other.series() == version.series()).max();
        if self.versions.contains(&version) {
            Recommendation::Recommended
        } else if version > newest || newest_of_series.is_some_and(|newest| version > *newest) {
            Recommendation::New
        } else {
            Recommendation::Outdated { newest }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    /// Returns the lists of the public network of July 2026, and the subprotocols of its relays with three versions of
    /// tor.
    fn clients(list: &str) -> Clients {
        let mut clients = Clients::default();
        clients.read_versions(list);
        let recommended =
            "Cons=2 Desc=2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4 HSRend=2 Link=4-5 Microdesc=2 Relay=2-4";
        clients.recommended = recommended.parse().unwrap();
        clients.required = "Cons=2 Desc=2 FlowCtrl=1 Link=4 Microdesc=2 Relay=2".parse().unwrap();
        let of_048 = "Conflux=1 Cons=1-2 Desc=1-2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=1-2 Link=1-5 \
                      LinkAuth=1,3 Microdesc=1-2 Padding=2 Relay=1-4";
        clients.relay(version("0.4.8.14"), of_048);
        clients.relay(version("0.4.6.1"), &of_048.replace("FlowCtrl=1-2", "FlowCtrl=1"));
        clients.relay(version("0.3.0.1"), "Cons=1-2 Desc=1-2 Link=1-3 Relay=1");
        clients
    }

    #[test]
    fn versions_are_compared_with_the_recommended_ones() {
        let clients = clients("0.4.8.14,0.4.9.13,0.4.9.14,0.5.0.2-alpha,x");
        let newest = version("0.5.0.2");
        for (text, want) in [
            ("0.4.8.14", Recommendation::Recommended),
            ("0.4.9.14", Recommendation::Recommended),
            ("0.5.0.2", Recommendation::Recommended),
            ("0.4.9.11", Recommendation::Outdated { newest }),
            ("0.4.9.15", Recommendation::New),
            ("0.4.8.15", Recommendation::New),
            ("0.4.7.99", Recommendation::Outdated { newest }),
            ("0.5.1.0", Recommendation::New),
            ("0.4.6.1", Recommendation::LacksRecommended("FlowCtrl=2".into())),
            ("0.3.0.1", Recommendation::LacksRequired("FlowCtrl=1 Link=4 Microdesc=2 Relay=2".into())),
        ] {
            let found = clients.recommendation(version(text));
            assert_eq!(found, want, "{text}");
            let fine = matches!(found, Recommendation::Recommended | Recommendation::New);
            assert_eq!(found.needs_update(), !fine, "{text}");
        }
    }

    #[test]
    fn without_a_list_nothing_is_said() {
        assert_eq!(clients("").recommendation(version("0.4.7.1")), Recommendation::Unknown);
        assert_eq!(Clients::default().recommendation(version("0.4.9.11")), Recommendation::Unknown);
        assert!(!Recommendation::Unknown.needs_update());
    }

    #[test]
    fn the_first_relay_of_a_version_counts() {
        let mut clients = clients("0.4.8.14");
        clients.relay(version("0.4.8.14"), "Cons=1");
        assert_eq!(clients.recommendation(version("0.4.8.14")), Recommendation::Recommended);
        clients.relay(version("0.4.8.13"), "nonsense");
        assert!(matches!(clients.recommendation(version("0.4.8.13")), Recommendation::Outdated { .. }));
        for number in 0..=MAX_VERSIONS {
            clients.relay(Version([9, 9, 9, number as u16]), "Cons=1");
        }
        assert_eq!(clients.relays.len(), MAX_VERSIONS);
    }

    #[test]
    fn reads_lists_of_subprotocols() {
        let protocols: Protocols = "A=1-3,5 B= C=0,63".parse().unwrap();
        assert_eq!(protocols.lacks(&"A=1-6 C=0,62-63 D=1".parse().unwrap()), "A=4 A=6 C=62 D=1");
        assert_eq!(protocols.lacks(&"A=3-1".parse().unwrap()), "", "an empty range wants nothing");
        for bad in ["A", "A=x", "A=64", "A=1-64", "A=1-x", "A=-1"] {
            assert_eq!(bad.parse::<Protocols>(), Err(BadProtocols), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([A-Z]=[0-9,x-]{0,8} ?){0,6}|.{0,40}") {
            let _ = text.parse::<Protocols>();
        }
    }
}
