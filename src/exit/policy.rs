//! The ports that an exit allows.
//!
//! Directories publish a summary of each exit's policy: the word `accept` or `reject`, and a list of ports. This file
//! turns both forms into sorted ranges of allowed ports. So equal policies compare equal, however they are written, and
//! a look-up is a short search.
//!
//! The summary of a policy is true for *most* addresses. An exit may still refuse a single target, and the stream to
//! that target then fails.
//!
//! Next: [`crate::tor::netdir`] reads policies from microdescriptors, and `source/onionoo.rs` reads policies from JSON.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest number of entries in a port policy. A longer policy is refused. Tor itself limits a summary to 1,000
/// characters.
const MAX_ENTRIES: usize = 1000;

/// The ports that an exit allows. The default allows no port.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenPolicy", into = "String")]
pub struct PortPolicy {
    /// Ranges of allowed ports, in sorted order. Ranges neither overlap nor touch.
    accepted: Box<[(u16, u16)]>,
}

/// The reason why a text or a JSON object is not a port policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    #[error("a port policy must be `accept` or `reject` (not both), and a list of ports")]
    Word,
    #[error("an entry of a port policy is neither a port from 1 to 65535 nor an ascending range of ports")]
    Port,
    #[error("a port policy names no port")]
    Empty,
    #[error("a port policy has more than {MAX_ENTRIES} entries")]
    TooLong,
}

impl PortPolicy {
    pub fn reject_all() -> Self {
        Self::default()
    }

    pub fn accept_all() -> Self {
        Self { accepted: Box::new([(1, u16::MAX)]) }
    }

    /// Returns true if the exit allows connections to this port at most addresses.
    pub fn allows(&self, port: u16) -> bool {
        let after = self.accepted.partition_point(|(low, _)| *low <= port);
        after > 0 && port <= self.accepted[after - 1].1
    }

    /// Returns true if no port is allowed.
    pub fn is_reject_all(&self) -> bool {
        self.accepted.is_empty()
    }

    /// The ranges of allowed ports, lowest first. Both ends belong to a range.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        self.accepted.iter().copied()
    }

    /// The heap memory that the policy uses, in bytes.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.accepted)
    }

    fn from_entries<'a>(accept: bool, entries: impl Iterator<Item = &'a str>) -> Result<Self, BadPolicy> {
        let mut ranges = Vec::new();
        for (count, entry) in entries.enumerate() {
            if count == MAX_ENTRIES {
                return Err(BadPolicy::TooLong);
            }
            // An entry that does not begin with a digit has a future format. It is skipped here, as in tor.
            if entry.starts_with(|c: char| c.is_ascii_digit()) {
                ranges.push(range(entry)?);
            }
        }
        let merged = merge(ranges);
        Ok(Self { accepted: if accept { merged } else { invert(&merged) }.into() })
    }
}

fn range(entry: &str) -> Result<(u16, u16), BadPolicy> {
    let (low, high) = entry.split_once('-').unwrap_or((entry, entry));
    let port = |digits: &str| match digits.parse() {
        Ok(port) if port != 0 && !digits.starts_with('+') => Ok(port),
        _ => Err(BadPolicy::Port),
    };
    let (low, high) = (port(low)?, port(high)?);
    if low <= high { Ok((low, high)) } else { Err(BadPolicy::Port) }
}

/// Sorts the ranges and joins ranges that overlap or touch.
fn merge(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

/// Returns the ports from 1 to 65535 that are in none of the given ranges. The ranges must be sorted and separate.
fn invert(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut left_out = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(1);
    for &(low, high) in ranges {
        if let Some(from) = next.filter(|from| *from < low) {
            left_out.push((from, low - 1));
        }
        next = high.checked_add(1);
    }
    left_out.extend(next.map(|from| (from, u16::MAX)));
    left_out
}

impl FromStr for PortPolicy {
    type Err = BadPolicy;

    /// Reads a summary in the form that directories write: `accept 80,443,8000-9000` or `reject 25`.
    fn from_str(text: &str) -> Result<Self, BadPolicy> {
        let (word, list) = text.split_once(' ').ok_or(BadPolicy::Word)?;
        let accept = match word {
            "accept" => true,
            "reject" => false,
            _ => return Err(BadPolicy::Word),
        };
        if !list.split(',').any(|entry| entry.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(BadPolicy::Empty);
        }
        Self::from_entries(accept, list.split(','))
    }
}

impl fmt::Display for PortPolicy {
    /// Writes the summary with `accept` or with `reject`, whichever text is shorter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rejected = invert(&self.accepted);
        let accept = !self.accepted.is_empty() && (rejected.is_empty() || self.accepted.len() <= rejected.len());
        let (word, ranges) = if accept { ("accept", &*self.accepted) } else { ("reject", &*rejected) };
        f.write_str(word)?;
        for (at, (low, high)) in ranges.iter().enumerate() {
            write!(f, "{}{low}", if at == 0 { ' ' } else { ',' })?;
            if low != high {
                write!(f, "-{high}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PortPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A policy in JSON: either the text that this program writes, or Onionoo's object, which has a list `accept` or a list
/// `reject`.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPolicy {
    Text(String),
    Lists { accept: Option<Vec<String>>, reject: Option<Vec<String>> },
}

impl TryFrom<WrittenPolicy> for PortPolicy {
    type Error = BadPolicy;

    fn try_from(written: WrittenPolicy) -> Result<Self, BadPolicy> {
        match written {
            WrittenPolicy::Text(text) => text.parse(),
            WrittenPolicy::Lists { accept: Some(list), reject: None } => {
                Self::from_entries(true, list.iter().map(String::as_str))
            }
            WrittenPolicy::Lists { accept: None, reject: Some(list) } => {
                Self::from_entries(false, list.iter().map(String::as_str))
            }
            WrittenPolicy::Lists { .. } => Err(BadPolicy::Word),
        }
    }
}

impl From<PortPolicy> for String {
    fn from(policy: PortPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_ranges_are_included() {
        for (text, allowed, refused) in [
            ("accept 80,443,8000-9000", &[80, 443, 8000, 8500, 9000][..], &[1, 79, 81, 442, 7999, 9001, 65535][..]),
            ("reject 25,119", &[1, 24, 26, 118, 120, 65535], &[25, 119]),
            ("reject 1-65535", &[], &[1, 80, 65535]),
            ("accept 1-65535", &[1, 80, 65535], &[]),
            ("accept 443,80,79-81,82", &[79, 80, 81, 82, 443], &[78, 83]),
            ("accept 80,new-form", &[80], &[81]),
            ("reject 1-1023,65535", &[1024, 65534], &[1, 1023, 65535]),
        ] {
            let policy: PortPolicy = text.parse().unwrap();
            assert!(allowed.iter().all(|port| policy.allows(*port)), "{text} refuses a port that it allows");
            assert!(refused.iter().all(|port| !policy.allows(*port)), "{text} allows a port that it refuses");
            assert!(!policy.allows(0), "{text}");
        }
    }

    #[test]
    fn malformed_policies_are_refused() {
        use BadPolicy::*;
        for (text, why) in [
            ("", Word),
            ("accept", Word),
            ("allow 80", Word),
            ("accept ", Empty),
            ("accept x,y", Empty),
            ("accept 0", Port),
            ("accept 65536", Port),
            ("accept 80-79", Port),
            ("accept 80-", Port),
            ("accept 80 443", Port),
            ("accept 80-+90", Port),
            ("reject 1-2-3", Port),
        ] {
            assert_eq!(text.parse::<PortPolicy>(), Err(why), "{text:?}");
        }
        let long = format!("accept {}", vec!["80"; MAX_ENTRIES + 1].join(","));
        assert_eq!(long.parse::<PortPolicy>(), Err(TooLong));
    }

    #[test]
    fn reads_onionoo_and_its_own_text_from_json() {
        for (json, same_as) in [
            (r#"{"accept":["43","53","79-81","443"]}"#, "accept 43,53,79-81,443"),
            (r#"{"reject":["1-65535"]}"#, "reject 1-65535"),
            (r#"{"reject":["25"],"new":1}"#, "reject 25"),
            (r#"{"reject":[]}"#, "accept 1-65535"),
            (r#"{"accept":[]}"#, "reject 1-65535"),
            (r#""accept 80""#, "accept 80"),
        ] {
            let policy: PortPolicy = serde_json::from_str(json).unwrap();
            assert_eq!(policy, same_as.parse().unwrap(), "{json}");
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("{same_as:?}"));
        }
        for json in [r"{}", r#"{"accept":["80"],"reject":["25"]}"#, r#"{"accept":["eighty","8x"]}"#, "7", "null"] {
            assert!(serde_json::from_str::<PortPolicy>(json).is_err(), "{json}");
        }
    }

    fn any_policy() -> impl Strategy<Value = (bool, Vec<(u16, u16)>)> {
        (any::<bool>(), prop::collection::vec((1u16.., 0u16..300), 1..20))
    }

    proptest! {
        #[test]
        fn a_policy_agrees_with_its_entries((accept, entries) in any_policy(), port in 1u16..) {
            let entries: Vec<_> = entries.iter().map(|(low, more)| (*low, low.saturating_add(*more))).collect();
            let list: Vec<_> = entries.iter().map(|(low, high)| format!("{low}-{high}")).collect();
            let text = format!("{} {}", if accept { "accept" } else { "reject" }, list.join(","));
            let policy: PortPolicy = text.parse().unwrap();
            let edges = entries.iter().flat_map(|(low, high)| [low.saturating_sub(1), *low, *high, high.saturating_add(1)]);
            for port in edges.chain([port]).filter(|port| *port != 0) {
                let named = entries.iter().any(|(low, high)| (*low..=*high).contains(&port));
                prop_assert_eq!(policy.allows(port), named == accept, "{} of {}", port, text);
            }
            prop_assert_eq!(policy.to_string().parse::<PortPolicy>().unwrap(), policy);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}", list in "(accept|reject) [0-9,+ -]{0,40}") {
            let _ = text.parse::<PortPolicy>();
            let _ = list.parse::<PortPolicy>();
        }
    }
}
