//! Reads microdescriptors: the answer to `GETINFO md/all`, or tor's own cache files.
//!
//! A microdescriptor begins at `onion-key` and ends where the next one, or an annotation (`@last-listed …`), begins. It is
//! identified by the SHA-256 of exactly that text. Lines are hashed as they are read, always with `\n`, because the
//! control port sends other line ends than the authorities signed.

use std::net::Ipv6Addr;

use sha2::{Digest as _, Sha256};

use super::consensus::{Digest, cut, or_address};
use super::text::base64;

/// The parts of a microdescriptor that we use. Texts are not parsed here, because most of them occur a hundred times.
#[derive(Default)]
pub(super) struct Microdesc<'a> {
    pub(super) digest: Digest,
    /// It has an ntor key: without one, no circuit can be extended to the relay.
    pub(super) has_ntor: bool,
    pub(super) v6: Option<Ipv6Addr>,
    pub(super) policy: &'a str,
    pub(super) policy_v6: &'a str,
    pub(super) family: &'a str,
    pub(super) family_ids: &'a str,
}

/// Iterates over the microdescriptors of a text.
pub(super) struct Microdescs<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    pub(super) malformed: u32,
    pub(super) unknown: u32,
}

impl<'a> Microdescs<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.lines().peekable(), malformed: 0, unknown: 0 }
    }

    /// Takes one line. `Some(false)` if its keyword is unknown, `None` if a line of a known keyword cannot be read.
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
