//! Generates directories as text, for tests and for the benchmark. The benchmark includes this file.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// One relay of a generated directory.
#[derive(Clone, Debug)]
pub struct Fake {
    pub id: [u8; 20],
    pub nickname: String,
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
    pub flags: String,
    pub bandwidth: u32,
    pub policy: String,
    pub policy_v6: String,
    pub family: String,
    pub family_ids: String,
    /// False if the relay's microdescriptor is left out.
    pub known: bool,
}

impl Fake {
    /// Returns a relay that may be used in any position. Its values are computed from `seed`. Each seed gets a /16
    /// network of its own.
    pub fn new(seed: u16) -> Self {
        let [high, low] = seed.to_be_bytes();
        let mut id = [0; 20];
        id[..2].copy_from_slice(&seed.wrapping_mul(40_503).to_be_bytes());
        id[18..].copy_from_slice(&[high, low]);
        Self {
            id,
            nickname: format!("relay{seed}"),
            v4: Ipv4Addr::new(10u8.wrapping_add(high), low, 1, 1),
            v6: None,
            flags: "Exit Fast Guard Running Stable V2Dir Valid".into(),
            bandwidth: 1000,
            policy: "accept 80,443".into(),
            policy_v6: String::new(),
            family: String::new(),
            family_ids: String::new(),
            known: true,
        }
    }

    pub fn hex(&self) -> String {
        self.id.iter().fold("$".into(), |hex, byte| format!("{hex}{byte:02X}"))
    }
}

fn microdesc(relay: &Fake) -> String {
    let mut text = format!("onion-key\nntor-onion-key {}\n", base64(&[7; 32]));
    let lines =
        [("family", &relay.family), ("family-ids", &relay.family_ids), ("p", &relay.policy), ("p6", &relay.policy_v6)];
    for (keyword, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{keyword} {value}");
    }
    let ed25519: [u8; 32] = Sha256::digest(relay.id).into();
    let _ = writeln!(text, "id ed25519 {}", base64(&ed25519));
    text
}

/// Returns the texts of the consensus and of the microdescriptors for these relays.
pub fn texts(relays: &[Fake], params: &str, weights: &str) -> (String, String) {
    let mut consensus = format!(
        "network-status-version 3 microdesc\nvalid-after 2026-11-21 12:00:00\nfresh-until 2026-11-21 13:00:00\n\
         valid-until 2026-11-21 15:00:00\nparams {params}\n"
    );
    let mut microdescs = String::new();
    for relay in relays {
        let text = microdesc(relay);
        let id = base64(&relay.id);
        let _ = writeln!(consensus, "r {} {id} 2038-01-01 00:00:00 {} 9001 0", relay.nickname, relay.v4);
        if let Some(v6) = relay.v6 {
            let _ = writeln!(consensus, "a [{v6}]:9001");
        }
        let digest: [u8; 32] = Sha256::digest(&text).into();
        let _ = writeln!(consensus, "m {}\ns {}\nv Tor 0.4.9.11", base64(&digest), relay.flags);
        let _ = writeln!(consensus, "w Bandwidth={}", relay.bandwidth);
        if relay.known {
            microdescs.push_str(&text);
        }
    }
    let _ = writeln!(consensus, "directory-footer\nbandwidth-weights {weights}");
    (consensus, microdescs)
}

/// Encodes bytes as base64 without padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|at| DIGITS[(group >> (18 - 6 * at)) as usize & 63] as char);
        text.extend(digits);
    }
    text
}

/// The weights of the public network. Exits are scarce there, so they have weight 0 in other positions.
pub const WEIGHTS: &str = "Wbd=0 Wbe=0 Wbg=4194 Wbm=10000 Wdb=10000 Web=10000 Wed=10000 Wee=10000 Weg=10000 Wem=10000 \
                           Wgb=10000 Wgd=0 Wgg=5806 Wgm=5806 Wmb=10000 Wmd=0 Wme=0 Wmg=4194 Wmm=10000";

/// Returns the relays of a network similar to the public one: a quarter are exits, bandwidths differ by up to four
/// orders of magnitude, there are a few hundred policies, families have up to some hundred members, and a tenth of the
/// relays lack a flag.
pub fn network(size: u16, seed: u64) -> Vec<Fake> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut relays: Vec<Fake> = (0..size).map(|at| relay_of_a_network(at, &mut rng)).collect();
    let mut at = 0;
    while at < relays.len() {
        let members = if rng.random_ratio(1, 40) { rng.random_range(20..300) } else { rng.random_range(1..6) };
        let end = (at + members).min(relays.len());
        if end - at > 1 {
            let family = relays[at..end].iter().map(Fake::hex).collect::<Vec<_>>().join(" ");
            let proven = rng.random_ratio(1, 2);
            for relay in &mut relays[at..end] {
                relay.family.clone_from(&family);
                relay.family_ids = if proven { format!("ed25519:{}", base64(&[at as u8; 32])) } else { String::new() };
            }
        }
        at = end;
    }
    relays
}

fn relay_of_a_network(at: u16, rng: &mut SmallRng) -> Fake {
    let mut relay = Fake::new(at);
    rng.fill(&mut relay.id);
    relay.v4 = Ipv4Addr::from_bits(rng.random::<u32>() | 0x0100_0000);
    relay.v6 = rng.random_ratio(2, 5).then(|| Ipv6Addr::from_bits((0x2000 | rng.random_range(0..64u128)) << 112 | 1));
    relay.bandwidth = 10f64.powf(rng.random_range(1.0..5.0)) as u32;
    let exit = rng.random_ratio(1, 4);
    relay.policy = match (exit, rng.random_range(0..3)) {
        (false, _) => String::new(),
        (true, 0) => "accept 20-21,43,53,80,443,993,8000-9000".into(),
        (true, 1) => "reject 25,119,135-139,445,563,1214,4661-4666,6346-6429,6699,6881-6999".into(),
        (true, _) => format!("accept 80,443,{}", 1024 + rng.random_range(0..300)),
    };
    let mut flags = vec!["Running", "Valid", "V2Dir"];
    flags.extend(rng.random_ratio(9, 10).then_some("Fast"));
    flags.extend(rng.random_ratio(9, 10).then_some("Stable"));
    flags.extend((relay.bandwidth > 2000 && rng.random_ratio(2, 3)).then_some("Guard"));
    flags.extend(exit.then_some("Exit"));
    relay.flags = flags.join(" ");
    relay
}
