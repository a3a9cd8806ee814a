//! A relay's exit policy in the short form of the directory: the ports that it allows, or those that it refuses,
//! whichever is the shorter list.

use serde_json::{Value, json};

/// `accept` or `reject`, and ports or ranges of ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    accept: bool,
    ports: Vec<String>,
}

impl Summary {
    /// The summary of `ExitPolicy` lines. Only lines for all addresses (`*`) count.
    pub(super) fn of(policy: &[String]) -> Self {
        let rules: Vec<Rule> = policy.iter().filter_map(|line| Rule::parse(line)).collect();
        let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
        for (low, high) in ranges(&rules) {
            let accepts =
                rules.iter().find(|rule| rule.low <= low && high <= rule.high).is_some_and(|rule| rule.accept);
            join(if accepts { &mut accepted } else { &mut rejected }, low, high);
        }
        let accept = rejected.is_empty() || (!accepted.is_empty() && accepted.len() <= rejected.len());
        let ports = if accept { accepted } else { rejected };
        let written = |(low, high): (u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
        Self { accept, ports: ports.into_iter().map(written).collect() }
    }

    pub(super) fn json(&self) -> Value {
        if self.accept { json!({ "accept": self.ports }) } else { json!({ "reject": self.ports }) }
    }
}

struct Rule {
    accept: bool,
    low: u16,
    high: u16,
}

impl Rule {
    fn parse(line: &str) -> Option<Self> {
        let (verb, pattern) = line.split_once(' ')?;
        let ports = pattern.trim().strip_prefix("*:")?;
        let (low, high) = match ports.split_once('-') {
            _ if ports == "*" => (1, u16::MAX),
            Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
            None => (ports.parse().ok()?, ports.parse().ok()?),
        };
        Some(Self { accept: verb == "accept", low, high })
    }
}

/// All ports, split wherever a rule begins or ends: within a range every port is treated alike.
fn ranges(rules: &[Rule]) -> Vec<(u16, u16)> {
    let ends = rules.iter().filter_map(|rule| rule.high.checked_add(1));
    let mut starts: Vec<u16> = rules.iter().map(|rule| rule.low.max(1)).chain(ends).chain([1]).collect();
    starts.sort_unstable();
    starts.dedup();
    let highs = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    starts.iter().copied().zip(highs).collect()
}

/// Adds a range to a list. Extends the last range if that ends where the new one begins.
fn join(list: &mut Vec<(u16, u16)>, low: u16, high: u16) {
    match list.last_mut() {
        Some(last) if last.1 + 1 == low => last.1 = high,
        _ => list.push((low, high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_list_is_used() {
        for (policy, want) in [
            (&["accept *:*"][..], r#"{"accept":["1-65535"]}"#),
            (&["reject *:*"], r#"{"reject":["1-65535"]}"#),
            (&[], r#"{"reject":["1-65535"]}"#),
            (&["reject *:443", "accept *:*"], r#"{"reject":["443"]}"#),
            (&["accept *:80", "accept *:443", "reject *:*"], r#"{"accept":["80","443"]}"#),
            (&["accept *:79-81", "accept *:65535", "reject *:*"], r#"{"accept":["79-81","65535"]}"#),
            (&["reject 10.0.0.0/8:*", "accept *:*"], r#"{"accept":["1-65535"]}"#),
        ] {
            let policy: Vec<String> = policy.iter().map(|&line| line.to_owned()).collect();
            assert_eq!(Summary::of(&policy).json().to_string(), want, "{policy:?}");
        }
    }
}
