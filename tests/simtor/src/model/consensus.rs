//! The microdescriptor consensus as tor keeps it in `cached-microdesc-consensus`.
//!
//! Signatures have the right shape and sign nothing: a tor would refuse them, and whoever reads the file of a tor that has
//! checked them does not look.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::draw::Draw;
use super::text::{base64, hex, seconds, stamp};
use super::{Model, Relay};

/// What may be ordered of one consensus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edition {
    /// The versions that clients are told to run, in the place of the usual ones: `0.4.9.13,0.4.9.14`.
    pub client_versions: Option<String>,
    /// Parameters that are set or added: `("DoSCircuitCreationRate", 2)`.
    pub params: Vec<(String, i32)>,
    /// Places of relays that this consensus leaves out.
    pub without: Vec<usize>,
}

/// Versions that relays and clients are told to run: those that the authorities served in the autumn of 2026.
pub(super) const VERSIONS: &str =
    "0.4.9.5,0.4.9.6,0.4.9.7,0.4.9.8,0.4.9.9,0.4.9.10,0.4.9.11,0.4.9.12,0.4.9.13,0.4.9.14";

/// Parameters of the public network that matter to a client, sorted as authorities sort them.
const PARAMS: &[(&str, i32)] = &[
    ("AuthDirMaxServersPerAddr", 8),
    ("CircuitPriorityHalflifeMsec", 30_000),
    ("DoSCircuitCreationBurst", 60),
    ("DoSCircuitCreationEnabled", 1),
    ("DoSCircuitCreationMinConnections", 2),
    ("DoSCircuitCreationRate", 2),
    ("DoSConnectionEnabled", 1),
    ("DoSConnectionMaxConcurrentCount", 50),
    ("DoSRefuseSingleHopClientRendezvous", 1),
    ("DoSStreamCreationBurst", 300),
    ("DoSStreamCreationEnabled", 1),
    ("DoSStreamCreationRate", 100),
    ("ExtendByEd25519ID", 1),
    ("KISTSchedRunInterval", 3),
    ("NumDirectoryGuards", 3),
    ("NumEntryGuards", 1),
    ("UseOptimisticData", 1),
    ("bwauthpid", 1),
    ("cbttestfreq", 10),
    ("cc_alg", 2),
    ("hs_service_max_rdv_failures", 1),
    ("onion-key-rotation-days", 28),
    ("pb_disablepct", 0),
    ("sendme_emit_min_version", 1),
    ("usecreatefast", 0),
];

/// What a consensus without changes says of a parameter.
pub fn param(name: &str) -> Option<i32> {
    PARAMS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// By the network's own figures: Wgg .6033, Wmg .3967, Wgd and Wmd .0021, Wed .9958, Wee and Wmm 1.
const BANDWIDTH_WEIGHTS: &str = "Wbd=0 Wbe=0 Wbg=3967 Wbm=10000 Wdb=10000 Web=10000 Wed=9958 Wee=10000 Weg=9958 Wem=10000 \
                                 Wgb=10000 Wgd=21 Wgg=6033 Wgm=6033 Wmb=10000 Wmd=21 Wme=0 Wmg=3967 Wmm=10000";

/// What every relay of 0.4.9 can speak.
const PROTOCOLS: &str = "Conflux=1 Cons=1-2 Desc=1-4 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=1-2 Link=3-5 LinkAuth=3 \
                         Microdesc=1-3 Padding=2 Relay=2-6";

/// As many as the public network has.
const AUTHORITIES: usize = 9;

pub(super) fn write(model: &Model, hour: u64, valid_after: SystemTime, length: Duration, edition: &Edition) -> String {
    let mut text = String::with_capacity(model.relays().len() * 420);
    header(&mut text, model, seconds(valid_after), length, edition);
    let published = "2038-01-01 00:00:00"; // authorities write this since consensus method 33
    for (place, relay) in model.relays().iter().enumerate() {
        if model.is_listed(place, hour) && !edition.without.contains(&place) {
            entry(&mut text, relay, published, &model.microdesc_digest(place));
        }
    }
    footer(&mut text, model.seed, hour);
    text
}

fn header(text: &mut String, model: &Model, after: u64, length: Duration, edition: &Edition) {
    let length = length.as_secs().max(1);
    let client = edition.client_versions.as_deref().unwrap_or(VERSIONS);
    let mut params: Vec<(&str, i32)> = PARAMS.to_vec();
    for (name, value) in &edition.params {
        params.retain(|(known, _)| known != name);
        params.push((name, *value));
    }
    params.sort_unstable();
    let params: Vec<String> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let _ = write!(
        text,
        "network-status-version 3 microdesc\nvote-status consensus\nconsensus-method 35\nvalid-after {}\nfresh-until {}\n\
         valid-until {}\nvoting-delay 300 300\nclient-versions {client}\nserver-versions {VERSIONS}\n\
         known-flags Authority BadExit Exit Fast Guard HSDir MiddleOnly NoEdConsensus Running Stable StaleDesc Sybil V2Dir Valid\n\
         recommended-client-protocols Cons=2 Desc=2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4 HSRend=2 Link=4-5 Microdesc=2 Relay=2-4\n\
         recommended-relay-protocols Cons=2 Desc=2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=2 Link=4-5 LinkAuth=3 Microdesc=2 Relay=2-4\n\
         required-client-protocols Cons=2 Desc=2 FlowCtrl=1 Link=4 Microdesc=2 Relay=2\n\
         required-relay-protocols Cons=2 Desc=2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=2 Link=4-5 LinkAuth=3 Microdesc=2 Relay=2-4\n\
         params {}\n",
        stamp(after),
        stamp(after + length),
        stamp(after + 3 * length),
        params.join(" "),
    );
    let mut draw = Draw::new(model.seed, "authorities");
    for which in ["previous", "current"] {
        let _ = writeln!(text, "shared-rand-{which}-value 9 {}=", base64(&draw.bytes::<32>()));
    }
    for number in 1..=AUTHORITIES {
        let (identity, vote) = (hex(&draw.bytes::<20>()), hex(&draw.bytes::<20>()));
        let ip = format!("127.254.250.{number}");
        let _ = writeln!(text, "dir-source authority{number} {identity} {ip} {ip} 80 443");
        let _ = writeln!(text, "contact authority{number}@example.invalid\nvote-digest {vote}");
    }
}

fn entry(text: &mut String, relay: &Relay, published: &str, digest: &[u8; 32]) {
    let Relay { nickname, address, or_port, version, weight, .. } = relay;
    let identity = base64(&relay.fingerprint);
    let _ = writeln!(text, "r {nickname} {identity} {published} {address} {or_port} 0");
    if let Some(ip) = relay.ipv6 {
        let _ = writeln!(text, "a [{ip}]:{or_port}");
    }
    let flags = flag_words(relay).join(" ");
    let _ = write!(text, "m {}\ns {flags}\nv Tor {version}\npr {PROTOCOLS}\nw Bandwidth={weight}\n", base64(digest));
}

/// The words of a relay's flags, in the order of the alphabet.
pub(super) fn flag_words(relay: &Relay) -> Vec<&'static str> {
    let flags = relay.flags;
    let words = [
        (flags.bad_exit, "BadExit"),
        (flags.exit, "Exit"),
        (flags.fast, "Fast"),
        (flags.guard, "Guard"),
        (flags.hsdir, "HSDir"),
        (true, "Running"),
        (flags.stable, "Stable"),
        (flags.v2dir, "V2Dir"),
        (true, "Valid"),
    ];
    words.into_iter().filter_map(|(set, word)| set.then_some(word)).collect()
}

fn footer(text: &mut String, seed: u64, hour: u64) {
    let _ = writeln!(text, "directory-footer\nbandwidth-weights {BANDWIDTH_WEIGHTS}");
    let mut draw = Draw::new(seed, "authorities");
    draw.bytes::<64>(); // the shared random values of the header
    let mut signatures = Draw::new(seed ^ hour, "signatures");
    for _ in 0..AUTHORITIES {
        let (identity, _) = (hex(&draw.bytes::<20>()), draw.bytes::<20>());
        let _ = writeln!(text, "directory-signature sha256 {identity} {}", hex(&signatures.bytes::<20>()));
        let _ = writeln!(text, "{}", block("SIGNATURE", &signatures.bytes::<256>()));
    }
}

/// A block of base64 in lines of 64, as signatures and keys are written.
pub(super) fn block(name: &str, bytes: &[u8]) -> String {
    let mut digits = base64(bytes);
    while !digits.len().is_multiple_of(4) {
        digits.push('=');
    }
    let mut text = format!("-----BEGIN {name}-----\n");
    for line in digits.as_bytes().chunks(64) {
        text.extend(line.iter().map(|digit| *digit as char));
        text.push('\n');
    }
    text + "-----END " + name + "-----"
}
