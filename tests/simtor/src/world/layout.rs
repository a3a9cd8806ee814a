//! A network that somebody else laid out: a file of relays in the place of those that are drawn.
//!
//! The form is that of the test network's own list of relays, so that the tests that run on real relays run here with
//! the same names and addresses.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::hex;
use crate::model::{FamilyKind, Flags, Model, Relay};

/// The OR port of every relay of a test network.
const OR_PORT: u16 = 9001;

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    role: Role,
    fingerprint: String,
    ip: Ipv4Addr,
    outbound: Ipv4Addr,
    country: String,
    policy: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Authority,
    Guard,
    Exit,
}

pub(super) fn read(path: &Path) -> anyhow::Result<Model> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let listed: Vec<Listed> = serde_json::from_slice(&text).context("not a list of relays")?;
    let relays = listed.into_iter().map(relay).collect::<anyhow::Result<_>>()?;
    Ok(Model::of(0, relays))
}

fn relay(listed: Listed) -> anyhow::Result<Relay> {
    let fingerprint = hex::fingerprint(&listed.fingerprint).context("a fingerprint has forty digits")?;
    let key = |what: &str| -> [u8; 32] { Sha256::digest([what.as_bytes(), &fingerprint].concat()).into() };
    let is = |role| listed.role == role;
    let kbytes = if is(Role::Exit) { 2_000 } else { 4_000 };
    Ok(Relay {
        ed25519: key("ed25519"),
        ntor: key("ntor"),
        fingerprint,
        nickname: listed.name,
        address: listed.ip,
        or_port: OR_PORT,
        exit_address: listed.outbound,
        ipv6: None,
        flags: Flags {
            guard: is(Role::Guard),
            exit: is(Role::Exit),
            stable: true,
            fast: true,
            v2dir: true,
            hsdir: true,
            bad_exit: false,
        },
        weight: kbytes,
        capacity: u64::from(kbytes) * 1000,
        policy: leak(summary(&listed.policy)),
        policy_v6: "reject 1-65535",
        family: 0,
        family_kind: FamilyKind::Alone,
        country: leak(listed.country),
        asn: 0,
        as_name: "",
        version: "0.4.9.11",
        uptime: 86_400,
        age: 86_400,
        flaky: false,
    })
}

/// The model keeps texts of its own tables; a layout is read once in the life of a process.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// The summary that a consensus would give of `ExitPolicy` lines about ports.
fn summary(lines: &[String]) -> String {
    let allowed: Vec<bool> = (1..=65535).map(|port| allows(lines, port)).collect();
    let mostly = allowed.iter().filter(|allowed| **allowed).count() > allowed.len() / 2;
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for port in (1..=65535).filter(|port| allowed[port - 1] != mostly) {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == port => *high = port,
            _ => ranges.push((port, port)),
        }
    }
    let word = if mostly { "reject" } else { "accept" };
    let list: Vec<String> =
        ranges.iter().map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") }).collect();
    match (mostly, list.is_empty()) {
        (true, true) => "accept 1-65535".to_owned(),
        (false, true) => "reject 1-65535".to_owned(),
        _ => format!("{word} {}", list.join(",")),
    }
}

fn allows(lines: &[String], port: u16) -> bool {
    let matching = lines.iter().find_map(|line| {
        let (word, pattern) = line.split_once(' ')?;
        let ports = pattern.trim().rsplit_once(':')?.1;
        let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
        let inside = ports == "*" || (low.parse().ok()?..=high.parse().ok()?).contains(&port);
        inside.then_some(word == "accept")
    });
    matching.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_summed_up_as_the_consensus_does() {
        for (lines, want) in [
            (&["accept *:*"][..], "accept 1-65535"),
            (&["reject *:*"], "reject 1-65535"),
            (&["reject *:443", "accept *:*"], "reject 443"),
            (&["accept *:80", "accept *:443", "reject *:*"], "accept 80,443"),
            (&["accept *:8000-8003"], "accept 8000-8003"),
        ] {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            assert_eq!(summary(&lines), want);
        }
    }
}
