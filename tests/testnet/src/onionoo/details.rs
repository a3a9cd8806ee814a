//! One relay in Onionoo's format: fields in Onionoo's order, which a test may change or remove.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::policy::Summary;
use crate::dates;
use crate::layout::{OR_PORT, Relay, Role};

/// A relay's fields, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Details(Vec<(String, Value)>);

impl Details {
    /// The true data of a relay of the network.
    pub(super) fn of(relay: &Relay, exits: usize, published: u64) -> Self {
        let facts = Facts {
            nickname: relay.name.clone(),
            fingerprint: relay.fingerprint.clone(),
            address: relay.ip,
            port: OR_PORT,
            exit_address: (relay.role == Role::Exit).then_some(relay.outbound),
            country: relay.country.to_ascii_lowercase(),
            flags: flags(relay.role),
            bandwidth: relay.role.observed_bandwidth(),
            policy: relay.policy.clone(),
            exit_probability: if relay.role == Role::Exit { 1.0 / exits.max(1) as f64 } else { 0.0 },
        };
        Self::new(&facts, published)
    }

    /// Data of a relay that does not exist. Every second one is an exit; the countries alternate.
    pub(super) fn synthetic(index: u32, published: u64) -> Self {
        const COUNTRIES: [&str; 12] = ["us", "de", "nl", "fr", "gb", "ca", "ch", "se", "pl", "ro", "fi", "jp"];
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + index); // a range reserved for benchmarks
        let is_exit = index.is_multiple_of(2);
        let facts = Facts {
            nickname: format!("synthetic{index}"),
            fingerprint: format!("{:040X}", u128::from(index).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            address,
            port: 9001,
            exit_address: is_exit.then_some(address),
            country: COUNTRIES[index as usize / 2 % COUNTRIES.len()].into(),
            flags: flags(if is_exit { Role::Exit } else { Role::Guard }),
            bandwidth: 1_000_000 + u64::from(index % 97) * 100_000,
            policy: vec![if is_exit { "accept *:*" } else { "reject *:*" }.into()],
            exit_probability: if is_exit { 1e-4 } else { 0.0 },
        };
        Self::new(&facts, published)
    }

    fn new(facts: &Facts, published: u64) -> Self {
        const DAY: u64 = 86_400;
        let ago = |days: u64| dates::stamp(published - days * DAY);
        let summary = Summary::of(&facts.policy).json();
        let weight = facts.bandwidth / 1000;
        let fields = [
            ("nickname", json!(facts.nickname)),
            ("fingerprint", json!(facts.fingerprint)),
            ("or_addresses", json!([format!("{}:{}", facts.address, facts.port)])),
            ("exit_addresses", facts.exit_address.map_or(Value::Null, |ip| json!([ip]))),
            ("last_seen", json!(dates::stamp(published))),
            ("last_changed_address_or_port", json!(ago(60))),
            ("first_seen", json!(ago(90))),
            ("running", json!(true)),
            ("flags", json!(facts.flags)),
            ("country", json!(facts.country)),
            ("country_name", json!(facts.country.to_ascii_uppercase())),
            ("as", json!("AS64496")), // a number reserved for documentation
            ("as_name", json!("Loopback Hosting")),
            ("consensus_weight", json!(weight)),
            ("last_restarted", json!(ago(7))),
            ("bandwidth_rate", json!(1_073_741_824)),
            ("bandwidth_burst", json!(1_073_741_824)),
            ("observed_bandwidth", json!(facts.bandwidth)),
            ("advertised_bandwidth", json!(facts.bandwidth)),
            ("exit_policy", json!(facts.policy)),
            ("exit_policy_summary", summary),
            ("contact", json!("testnet@example.invalid")),
            ("platform", json!("Tor 0.4.9.11 on Linux")),
            ("version", json!("0.4.9.11")),
            ("version_status", json!("recommended")),
            ("effective_family", json!([facts.fingerprint])),
            ("consensus_weight_fraction", json!(1e-4)),
            ("guard_probability", json!(if facts.flags.contains(&"Guard") { 1e-4 } else { 0.0 })),
            ("middle_probability", json!(1e-4)),
            ("exit_probability", json!(facts.exit_probability)),
            ("recommended_version", json!(true)),
            ("measured", json!(true)),
        ];
        let known = fields.into_iter().filter(|(_, value)| !value.is_null());
        Self(known.map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A relay from its fields.
    pub fn from_fields(fields: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self(fields.into_iter().collect())
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find_map(|(field, value)| (field == name).then_some(value))
    }

    /// A field's value as text; empty if it is missing or not text.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets a field. A new field goes to the end.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }

    /// The relay as one line of JSON; with these fields only, if there are any.
    pub(super) fn line(&self, fields: Option<&[&str]>) -> String {
        let mut line = String::from("{");
        let wanted = |name: &str| fields.is_none_or(|fields| fields.contains(&name));
        for (name, value) in self.0.iter().filter(|(name, _)| wanted(name)) {
            let comma = if line.len() > 1 { "," } else { "" };
            let _ = write!(line, "{comma}{}:{value}", json!(name)); // writing to a String does not fail
        }
        line + "}"
    }
}

/// The data from which the fields are made.
struct Facts {
    nickname: String,
    fingerprint: String,
    address: Ipv4Addr,
    port: u16,
    exit_address: Option<Ipv4Addr>,
    country: String,
    flags: Vec<&'static str>,
    bandwidth: u64,
    policy: Vec<String>,
    exit_probability: f64,
}

fn flags(role: Role) -> Vec<&'static str> {
    let mut flags = vec!["Fast", "Running", "Stable", "V2Dir", "Valid"];
    match role {
        Role::Authority => flags.insert(0, "Authority"),
        Role::Guard => flags.insert(1, "Guard"),
        Role::Exit => flags.insert(0, "Exit"),
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_with_the_fields_that_were_asked_for() {
        let details = Details::synthetic(0, 1_788_490_800);
        let whole: Value = serde_json::from_str(&details.line(None)).unwrap();
        assert_eq!((&whole["country"], &whole["exit_addresses"][0]), (&json!("us"), &json!("198.18.0.1")));
        assert_eq!(details.line(Some(&["country", "running", "nothing"])), r#"{"running":true,"country":"us"}"#);
        assert!(!details.line(None).contains('\n'));
    }

    #[test]
    fn fields_can_be_changed_and_removed() {
        let mut details = Details::synthetic(1, 1_788_490_800);
        assert_eq!(details.get("exit_addresses"), None, "a guard has none");
        details.set("flags", json!(["BadExit"]));
        details.set("hibernating", json!(true));
        details.remove("as_name");
        assert_eq!(
            details.line(Some(&["flags", "as_name", "hibernating"])),
            r#"{"flags":["BadExit"],"hibernating":true}"#
        );
    }

    #[test]
    fn no_two_relays_are_alike() {
        let prints: std::collections::BTreeSet<_> =
            (0..10_000).map(|index| Details::synthetic(index, 1_788_490_800).text("fingerprint").to_owned()).collect();
        assert_eq!(prints.len(), 10_000);
        assert!(prints.iter().all(|print| print.len() == 40));
    }
}
