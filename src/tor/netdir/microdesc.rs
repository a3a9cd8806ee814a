//! Parses microdescriptors: the answer to `GETINFO md/all`, or tor's own cache files.
//!
//! A microdescriptor begins at `onion-key`. It ends where the next microdescriptor or an annotation (`@last-listed …`)
//! begins. Its id is the SHA-256 of exactly this text. The lines are hashed while they are read, always with `\n` at
//! the end, because the control port sends other line ends than those that the authorities signed.

use std::io::{self, BufRead};
use std::net::Ipv6Addr;

use sha2::{Digest as _, Sha256};

use super::consensus::{Digest, cut, or_address};
use super::text::{Lines, base64};

/// The parts of a microdescriptor that we use. Their texts are parsed later, because most of these texts occur a
/// hundred times.
#[derive(Default)]
pub(super) struct Microdesc {
    pub(super) digest: Digest,
    /// True if the microdescriptor contains an ntor key. Without this key no circuit can be extended to the relay.
    pub(super) has_ntor: bool,
    pub(super) v6: Option<Ipv6Addr>,
    pub(super) policy: String,
    pub(super) policy_v6: String,
    pub(super) family: String,
    pub(super) family_ids: String,
}

impl Microdesc {
    /// Empties all fields. The memory of the texts is kept for the next microdescriptor.
    fn clear(&mut self) {
        let Self { digest, has_ntor, v6, policy, policy_v6, family, family_ids } = self;
        (*digest, *has_ntor, *v6) = (Digest::default(), false, None);
        [policy, policy_v6, family, family_ids].into_iter().for_each(String::clear);
    }

    /// Parses one line. Returns `Some(false)` if the keyword is unknown, and `None` if the keyword is known but the
    /// line cannot be read.
    fn line(&mut self, line: &str) -> Option<bool> {
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        let text = match keyword {
            "p" => &mut self.policy,
            "p6" => &mut self.policy_v6,
            "family" => &mut self.family,
            "family-ids" => &mut self.family_ids,
            "ntor-onion-key" => {
                base64::<32>(rest.split(' ').next()?)?;
                self.has_ntor = true;
                return Some(true);
            }
            "id" => {
                if let Some(key) = rest.strip_prefix("ed25519 ") {
                    base64::<32>(key)?;
                }
                return Some(true);
            }
            "a" => {
                self.v6 = Some(or_address(rest)?);
                return Some(true);
            }
            "onion-key" | "pr" | "" => return Some(true),
            _ => return Some(false),
        };
        text.clear();
        text.push_str(rest);
        Some(true)
    }
}

/// Reads the microdescriptors of a text one after another. Only one of them is in memory at a time.
pub(super) struct Microdescs<R> {
    lines: Lines<R>,
    found: Microdesc,
    pub(super) malformed: u32,
    pub(super) unknown: u32,
}

fn begins(line: &str) -> bool {
    line == "onion-key" || line.starts_with("onion-key ")
}

impl<R: BufRead> Microdescs<R> {
    pub(super) fn new(text: R) -> Self {
        Self { lines: Lines::new(text), found: Microdesc::default(), malformed: 0, unknown: 0 }
    }

    /// Returns the next microdescriptor, or `None` at the end of the text.
    pub(super) fn next(&mut self) -> io::Result<Option<&Microdesc>> {
        while self.lines.current()?.is_some_and(|line| !begins(line)) {
            self.lines.advance();
        }
        if self.lines.current()?.is_none() {
            return Ok(None);
        }
        self.found.clear();
        let (mut hash, mut in_key, mut first) = (Sha256::new(), false, true);
        while let Some(line) = self.lines.current()? {
            if !std::mem::take(&mut first) && (begins(line) || line.starts_with('@')) {
                break;
            }
            hash.update(line);
            hash.update("\n");
            if line.starts_with("-----") {
                in_key = line.starts_with("-----BEGIN");
            } else if !in_key {
                match self.found.line(line) {
                    Some(true) => {}
                    Some(false) => self.unknown += 1,
                    None => self.malformed += 1,
                }
            }
            self.lines.advance();
        }
        self.found.digest = cut(hash.finalize().into());
        Ok(Some(&self.found))
    }
}
