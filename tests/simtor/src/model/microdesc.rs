//! Microdescriptors, one by one and as tor keeps them in `cached-microdescs`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::build::REJECT_ALL;
use super::consensus::block;
use super::draw::Draw;
use super::text::{base64, seconds, stamp};
use super::{FamilyKind, Model, Relay};

/// One microdescriptor and the SHA-256 of it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) digest: [u8; 32],
}

/// The microdescriptors of all relays.
pub(super) fn all(seed: u64, relays: &[Relay]) -> Vec<Text> {
    let mut families: HashMap<u32, Vec<String>> = HashMap::new();
    for relay in relays.iter().filter(|relay| relay.family_kind == FamilyKind::List) {
        families.entry(relay.family).or_default().push(format!("${}", relay.hex()));
    }
    let families: HashMap<u32, String> = families.into_iter().map(|(family, list)| (family, list.join(" "))).collect();
    let of = |(place, relay): (usize, &Relay)| {
        let text = of(seed, place, relay, families.get(&relay.family).map_or("", String::as_str));
        let digest = Sha256::digest(&text).into();
        Text { text, digest }
    };
    relays.iter().enumerate().map(of).collect()
}

/// `cached-microdescs` of an hour.
pub(super) fn write(model: &Model, hour: u64, listed: SystemTime) -> String {
    let annotation = format!("@last-listed {}\n", stamp(seconds(listed)));
    let mut text = String::with_capacity(model.relays().len() * 900);
    for place in (0..model.relays().len()).filter(|place| model.is_listed(*place, hour)) {
        text.push_str(&annotation);
        text.push_str(model.microdesc(place));
    }
    text
}

fn of(seed: u64, place: usize, relay: &Relay, family: &str) -> String {
    let mut text = format!("onion-key\n{}\nntor-onion-key {}\n", onion_key(seed, place), base64(&relay.ntor));
    match relay.family_kind {
        FamilyKind::Alone => {}
        FamilyKind::List => {
            let _ = writeln!(text, "family {family}");
        }
        FamilyKind::Id => {
            let id: [u8; 32] = Draw::new(seed ^ u64::from(relay.family), "family").bytes();
            let _ = writeln!(text, "family-ids ed25519:{}", base64(&id));
        }
    }
    // A policy that lets nothing out is left away.
    for (keyword, policy) in [("p", relay.policy), ("p6", relay.policy_v6)] {
        if policy != REJECT_ALL {
            let _ = writeln!(text, "{keyword} {policy}");
        }
    }
    let _ = writeln!(text, "id ed25519 {}", base64(&relay.ed25519));
    text
}

/// A key of the old handshake: 1,024 bits of RSA in ASN.1, which nobody uses any more and every microdescriptor has.
fn onion_key(seed: u64, place: usize) -> String {
    const BEFORE: [u8; 7] = [0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
    const AFTER: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
    let modulus: [u8; 128] = Draw::new(seed.wrapping_add(place as u64), "onion key").bytes();
    block("RSA PUBLIC KEY", &[&BEFORE[..], &modulus, &AFTER].concat())
}
