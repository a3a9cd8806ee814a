//! Parses the list of relays from one of three texts: a consensus of the ns flavour, a consensus of the microdescriptor
//! flavour, or the answer to `GETINFO ns/all`.
//!
//! These three formats differ little. In the microdescriptor flavour the digest is in an `m` line instead of the `r`
//! line. The answer to `ns/all` has neither header nor footer.

use std::io::{self, BufRead};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use super::clients::Clients;
use super::text::{Lines, base64, key_values, seconds};
use super::{Entry, Flags, Lifetime, Nickname, Skipped};
use crate::exit::Fingerprint;
use crate::tor::version::Version;

/// The first 20 bytes of a microdescriptor's SHA-256. `ns/all` contains only these bytes.
pub(super) type Digest = [u8; 20];

/// The most relays that are read. The public network has fewer than 10,000 relays. The limit keeps a broken text from
/// filling the memory.
const MAX_RELAYS: usize = 65_536;

/// The most parameters that are read. The consensus has about 60 parameters. The limit keeps a broken text from filling
/// the memory.
const MAX_PARAMS: usize = 1024;

/// The bandwidth in kB/s of a relay that has no bandwidth in the consensus, as in tor.
const DEFAULT_BANDWIDTH: u32 = 30;

/// Keywords of lines that we know but do not need.
const SKIPPED_KEYWORDS: &[&str] = &[
    "network-status-version",
    "vote-status",
    "consensus-method",
    "voting-delay",
    "server-versions",
    "known-flags",
    "recommended-relay-protocols",
    "required-relay-protocols",
    "shared-rand-previous-value",
    "shared-rand-current-value",
    "package",
    "dir-source",
    "contact",
    "vote-digest",
    "directory-footer",
    "id",
    "p",
];

/// The parts of a consensus that we use, in the order in which they are in the text.
#[derive(Default)]
pub(super) struct Consensus {
    pub(super) relays: Vec<(Entry, Option<Digest>)>,
    pub(super) lifetime: Lifetime,
    pub(super) params: Vec<(Box<str>, i32)>,
    pub(super) weights: String,
    pub(super) clients: Clients,
    pub(super) skipped: Skipped,
    /// True if the `r` line before was accepted, so the next lines belong to that relay.
    in_relay: bool,
    /// The version of tor of the current relay. `None` if the consensus does not contain it.
    version: Option<Version>,
}

impl Consensus {
    pub(super) fn read(text: impl BufRead) -> io::Result<Self> {
        let (mut consensus, mut lines) = (Self::default(), Lines::new(text));
        while let Some(line) = lines.current()? {
            let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
            if keyword == "directory-signature" {
                break; // after this line there are only signatures
            }
            if consensus.line(keyword, rest).is_none() {
                consensus.skipped.malformed += 1;
            }
            lines.advance();
        }
        Ok(consensus)
    }

    /// Parses one line. Returns `None` if the keyword is known but the line cannot be read.
    fn line(&mut self, keyword: &str, rest: &str) -> Option<()> {
        match keyword {
            "r" => self.start_relay(rest),
            "m" | "s" | "w" | "a" => self.relay_line(keyword, rest)?,
            "v" => self.version = rest.parse().ok(),
            "pr" => {
                if let Some(version) = self.version.take() {
                    self.clients.relay(version, rest);
                }
            }
            "valid-after" => self.lifetime.valid_after = Some(seconds(rest)?),
            "fresh-until" => self.lifetime.fresh_until = Some(seconds(rest)?),
            "valid-until" => self.lifetime.valid_until = Some(seconds(rest)?),
            "client-versions" => self.clients.read_versions(rest),
            "recommended-client-protocols" => self.clients.recommended = rest.parse().ok()?,
            "required-client-protocols" => self.clients.required = rest.parse().ok()?,
            "params" => {
                self.params = key_values(rest).take(MAX_PARAMS).map(|(key, value)| (key.into(), value)).collect();
            }
            "bandwidth-weights" => rest.clone_into(&mut self.weights),
            "" => {}
            other if SKIPPED_KEYWORDS.contains(&other) => {}
            _ => self.skipped.unknown += 1,
        }
        Some(())
    }

    fn start_relay(&mut self, rest: &str) {
        let relay = relay(rest).filter(|_| self.relays.len() < MAX_RELAYS);
        self.in_relay = relay.is_some();
        self.version = None;
        match relay {
            Some(relay) => self.relays.push(relay),
            None => self.skipped.relays += 1,
        }
    }

    fn relay_line(&mut self, keyword: &str, rest: &str) -> Option<()> {
        let Some((entry, digest)) = self.relays.last_mut().filter(|_| self.in_relay) else { return Some(()) };
        match keyword {
            "m" => *digest = Some(cut(base64(rest.split(' ').next()?)?)),
            "s" => {
                entry.flags = rest.split(' ').fold(Flags::default(), |flags, word| flags.and(Flags::from_word(word)))
            }
            "w" => entry.bandwidth = bandwidth(rest)?,
            _ => entry.v6 = or_address(rest)?,
        }
        Some(())
    }
}

/// Returns the time from which a consensus is valid. Reads only its header. `None` if the header contains no such time.
pub(super) fn valid_after(text: impl BufRead) -> io::Result<Option<u64>> {
    /// The largest number of lines to read. The line with the time is the fourth. The limit keeps the function from
    /// reading a broken text to its end.
    const HEADER_LINES: usize = 20;
    let mut lines = Lines::new(text);
    for _ in 0..HEADER_LINES {
        let Some(line) = lines.current()? else { break };
        if let Some(date) = line.strip_prefix("valid-after ") {
            return Ok(seconds(date));
        }
        lines.advance();
    }
    Ok(None)
}

/// Shortens a digest to its first 20 bytes, the length in `ns/all`.
pub(super) fn cut(digest: [u8; 32]) -> Digest {
    std::array::from_fn(|i| digest[i])
}

/// Parses an `r` line: `nickname identity [digest] date time ip or-port dir-port`.
fn relay(rest: &str) -> Option<(Entry, Option<Digest>)> {
    let mut fields = [""; 9];
    let mut count = 0;
    for (slot, field) in fields.iter_mut().zip(rest.split(' ')) {
        *slot = field;
        count += 1;
    }
    let digest = match count {
        7 => None,
        8 => base64(fields[2]),
        _ => return None,
    };
    let entry = Entry {
        fingerprint: Fingerprint(base64(fields[1])?),
        nickname: nickname(fields[0])?,
        v4: fields[count - 3].parse::<Ipv4Addr>().ok()?,
        or_port: fields[count - 2].parse().ok()?,
        v6: Ipv6Addr::UNSPECIFIED,
        flags: Flags::default(),
        bandwidth: DEFAULT_BANDWIDTH,
        known: false,
        policy: 0,
        policy_v6: 0,
        family: 0,
        family_ids: 0,
    };
    Some((entry, digest))
}

fn nickname(text: &str) -> Option<Nickname> {
    let legal = (1..=Nickname::MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !legal {
        return None;
    }
    let mut nickname = Nickname { len: text.len() as u8, text: [0; Nickname::MAX] };
    nickname.text[..text.len()].copy_from_slice(text.as_bytes());
    Some(nickname)
}

fn bandwidth(rest: &str) -> Option<u32> {
    let value = rest.split(' ').find_map(|piece| piece.strip_prefix("Bandwidth="))?;
    value.parse().ok()
}

/// Parses an IPv6 address such as `[2001:db8::1]:9001`. Returns `None` for an IPv4 address.
pub(super) fn or_address(rest: &str) -> Option<Ipv6Addr> {
    let address = rest.split(' ').next()?;
    if address.starts_with('[') {
        address.parse::<SocketAddrV6>().ok().map(|addr| *addr.ip())
    } else {
        Some(Ipv6Addr::UNSPECIFIED)
    }
}
