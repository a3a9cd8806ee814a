//! Versions of tor, and advice for installing tor when it is missing or too old.

use std::fmt;
use std::str::FromStr;

/// A version of tor. Versions are ordered by their four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub [u16; 4]);

impl Version {
    /// The oldest version that the gateway accepts: the first of the oldest series that the authorities still support.
    /// The authorities stopped the support of 0.4.8 on 2026-09-02.
    pub const OLDEST: Self = Self([0, 4, 9, 0]);

    /// The first version of tor that reports a stream as failed if the exit ended the stream without a reason (END with
    /// reason 0). Older versions report such a stream as open, and close it immediately.
    pub const KNOWS_MISSING_REASON: Self = Self([0, 4, 9, 13]);

    /// Returns the series of this version: 0.4.9 for 0.4.9.11.
    pub fn series(self) -> [u16; 3] {
        let [a, b, c, _] = self.0;
        [a, b, c]
    }
}

/// Error: the text is not a version of tor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version of tor")]
pub struct BadVersion;

impl FromStr for Version {
    type Err = BadVersion;

    /// Parses a version such as `0.4.9.11`. Also accepts `Tor version 0.4.9.11 (git-…).` and `0.4.9.1-alpha`.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let words = text.split([' ', '\n']);
        let word = words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).ok_or(BadVersion)?;
        let mut numbers = [0; 4];
        let mut pieces = word.trim_end_matches('.').splitn(4, '.');
        for number in &mut numbers {
            let piece = pieces.next().ok_or(BadVersion)?;
            let digits = piece.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            *number = digits.parse().map_err(|_| BadVersion)?;
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

/// Advice to update a tor that is too old. Every message about such a tor ends with this text.
pub const UPDATE: &str =
    "install a current tor (docs/current-tor.md says how for each distribution), and restart exitgate";

/// Advice for installing tor. This text is the end of every error message about a missing tor.
pub const INSTALL: &str = "\
docs/current-tor.md says how to install a current one; in short:  apt install tor tor-geoipdb  (Debian, Ubuntu),  apk add tor  (Alpine),  dnf install tor  (Fedora)  \
or  brew install tor  (macOS), or set tor.binary to where it is";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tor_prints() {
        for (text, want) in [
            ("Tor version 0.4.9.11.\nThis build of Tor is covered by …", Some([0, 4, 9, 11])),
            ("Tor version 0.4.7.13 (git-7c1601fb6edd780f).", Some([0, 4, 7, 13])),
            ("0.4.9.1-alpha-dev", Some([0, 4, 9, 1])),
            ("0.4.9", None),
            ("Tor", None),
            ("0.4.9.x", None),
        ] {
            assert_eq!(text.parse::<Version>().ok().map(|version| version.0), want, "{text}");
        }
        assert!(Version([0, 4, 8, 99]) < Version::OLDEST && Version([0, 4, 9, 1]) > Version::OLDEST);
    }
}
