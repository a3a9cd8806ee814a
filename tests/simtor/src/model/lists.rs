//! What others say of the same relays: Onionoo, the exit list, and a GeoIP file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::consensus::flag_words;
use super::text::{seconds, stamp};
use super::{Model, Relay};

/// The lines `low,high,CC`, lowest first. What lies between two addresses of one country is taken for that country's.
pub(super) fn geoip(model: &Model) -> String {
    let mut countries: BTreeMap<u32, &str> = BTreeMap::new();
    for relay in model.relays() {
        countries.insert(relay.address.to_bits(), relay.country);
        countries.insert(relay.exit_address.to_bits(), relay.country);
    }
    let mut text = String::from("# Addresses of the simulated network.\n");
    let mut range: Option<(u32, u32, &str)> = None;
    for (address, country) in countries {
        range = match range {
            Some((low, _, same)) if same == country => Some((low, address, country)),
            before => {
                before.iter().for_each(|range| line(&mut text, *range));
                Some((address, address, country))
            }
        };
    }
    range.iter().for_each(|range| line(&mut text, *range));
    text
}

fn line(text: &mut String, (low, high, country): (u32, u32, &str)) {
    let _ = writeln!(text, "{low},{high},{country}"); // a String takes everything
}

/// One relay of Onionoo's `details` document, fields in its order.
pub(super) fn details(model: &Model, place: usize, now: SystemTime) -> Value {
    let relay = &model.relays()[place];
    let now = seconds(now);
    let ago = |age: u64| stamp(now.saturating_sub(age));
    let mut addresses = vec![format!("{}:{}", relay.address, relay.or_port)];
    addresses.extend(relay.ipv6.map(|ip| format!("[{ip}]:{}", relay.or_port)));
    let mut fields = json!({
        "nickname": relay.nickname,
        "fingerprint": relay.hex(),
        "or_addresses": addresses,
        "last_seen": stamp(now),
        "last_changed_address_or_port": ago(relay.age),
        "first_seen": ago(relay.age),
        "running": true,
        "flags": flag_words(relay),
        "country": relay.country.to_ascii_lowercase(),
        "as": format!("AS{}", relay.asn),
        "as_name": relay.as_name,
        "consensus_weight": relay.weight,
        "last_restarted": ago(relay.uptime),
        "observed_bandwidth": relay.capacity,
        "advertised_bandwidth": relay.capacity,
        "exit_policy_summary": summary(relay.policy),
        "platform": format!("Tor {} on Linux", relay.version),
        "version": relay.version,
        "version_status": "recommended",
        "consensus_weight_fraction": f64::from(relay.weight) / model.total_weight,
        "recommended_version": true,
        "measured": true,
    });
    if relay.is_exit() {
        fields["exit_addresses"] = json!([relay.exit_address]);
    }
    if relay.ipv6.is_some() {
        fields["exit_policy_v6_summary"] = summary(relay.policy_v6);
    }
    fields
}

/// `accept 80,443` as Onionoo writes it: `{"accept":["80","443"]}`.
fn summary(policy: &str) -> Value {
    let (word, list) = policy.split_once(' ').unwrap_or(("reject", "1-65535"));
    json!({ word: list.split(',').collect::<Vec<_>>() })
}

/// An entry for each exit that is listed.
pub(super) fn exit_list(model: &Model, hour: u64, now: SystemTime) -> String {
    let now = seconds(now);
    let at = |minutes: u64| stamp(now.saturating_sub(minutes * 60));
    let mut text = String::new();
    let listed = |(place, relay): &(usize, &Relay)| relay.is_exit() && model.is_listed(*place, hour);
    for (_, relay) in model.relays().iter().enumerate().filter(listed) {
        let seen: Ipv4Addr = relay.exit_address;
        let _ = writeln!(text, "ExitNode {}\nPublished {}\nLastStatus {}", relay.hex(), at(600), at(60));
        let _ = writeln!(text, "ExitAddress {seen} {}", at(40));
    }
    text
}
