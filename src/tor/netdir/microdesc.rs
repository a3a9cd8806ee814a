//! Parses microdescriptors: the answer to `GETINFO md/all`, or tor's own cache files.
//!
//! A microdescriptor begins at `onion-key`. It ends where the next microdescriptor or an annotation (`@last-listed …`)
//! begins. Its id is the SHA-256 of exactly this text. The lines are hashed while they are read, always with `\n` at
//! the end, because the control port sends other line ends than those that the authorities signed.

use std::net::Ipv6Addr;

use sha2::{Digest as _, Sha256};

use super::consensus::{Digest, cut, or_address};
use super::text::base64;

/// The parts of a microdescriptor that we use. Their texts are parsed later, because most of these texts occur a
/// hundred times.
#[derive(Default)]
pub(super) struct Microdesc<'a> {
    pub(super) digest: Digest,
    /// True if the microdescriptor contains an ntor key. Without this key no circuit can be extended to the relay.
    pub(super) has_ntor: bool,
    pub(super) v6: Option<Ipv6Addr>,
    pub(super) policy: &'a str,
    pub(super) policy_v6: &'a str,
    pub(super) family: &'a str,
    pub(super) family_ids: &'a str,
}

/// An iterator over the microdescriptors of a text.
pub(super) struct Microdescs<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    pub(super) malformed: u32,
    pub(super) unknown: u32,
}

impl<'a> Microdescs<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.lines().peekable(), malformed: 0, unknown: 0 }
    }

    /// Parses one line. Returns `Some(false)` if the keyword is unknown, and `None` if the keyword is known but the
    /// line cannot be read.
    fn line(found: &mut Microdesc<'a>, line: &'a str) -> Option<bool> {
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        match keyword {
            "ntor-onion-key" => {
                base64::<32>(rest.split(' ').next()?)?;
                found.has_ntor = true;
            }
            "id" => {
                if let Some(key) = rest.strip_prefix("ed25519 ") {
                    base64::<32>(key)?;
                }
            }
            "a" => found.v6 = Some(or_address(rest)?),
            "p" => found.policy = rest,
            "p6" => found.policy_v6 = rest,
            "family" => found.family = rest,
            "family-ids" => found.family_ids = rest,
            "onion-key" | "pr" | "" => {}
            _ => return Some(false),
        }
        Some(true)
    }
}

fn begins(line: &str) -> bool {
    line == "onion-key" || line.starts_with("onion-key ")
}

impl<'a> Iterator for Microdescs<'a> {
    type Item = Microdesc<'a>;

    fn next(&mut self) -> Option<Microdesc<'a>> {
        while self.lines.next_if(|line| !begins(line)).is_some() {}
        let mut next = self.lines.next();
        next?;
        let (mut found, mut hash, mut in_key) = (Microdesc::default(), Sha256::new(), false);
        while let Some(line) = next {
            hash.update(line);
            hash.update("\n");
            if line.starts_with("-----") {
                in_key = line.starts_with("-----BEGIN");
            } else if !in_key {
                match Self::line(&mut found, line) {
                    Some(true) => {}
                    Some(false) => self.unknown += 1,
                    None => self.malformed += 1,
                }
            }
            next = self.lines.next_if(|line| !begins(line) && !line.starts_with('@'));
        }
        found.digest = cut(hash.finalize().into());
        Some(found)
    }
}
