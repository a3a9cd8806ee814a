//! Reads the texts of the directory, as far as an engine needs them.

use std::time::SystemTime;

use super::moment;
use crate::model::text;

/// A consensus.
#[derive(Clone, Debug)]
pub(super) struct Consensus {
    pub(super) valid_after: SystemTime,
    pub(super) fresh_until: SystemTime,
    pub(super) valid_until: SystemTime,
    pub(super) recommended: Vec<String>,
    pub(super) relays: Vec<Listed>,
}

/// One relay of it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) fingerprint: String,
    pub(super) nickname: String,
    pub(super) digest: [u8; 32],
}

pub(super) fn consensus(source: &str) -> Option<Consensus> {
    let field = |name: &str| source.lines().take(50).find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let mut consensus = Consensus {
        valid_after: moment(field("valid-after")?)?,
        fresh_until: moment(field("fresh-until")?)?,
        valid_until: moment(field("valid-until")?)?,
        recommended: field("client-versions").map_or(Vec::new(), |list| list.split(',').map(str::to_owned).collect()),
        relays: Vec::new(),
    };
    for line in source.lines() {
        match line.split_once(' ') {
            Some(("r", rest)) => {
                let mut words = rest.split(' ');
                let (nickname, id) = (words.next()?, words.next()?);
                let fingerprint = text::hex(&base64::<20>(id)?);
                consensus.relays.push(Listed { fingerprint, nickname: nickname.to_owned(), digest: [0; 32] });
            }
            Some(("m", digest)) => {
                if let (Some(relay), Some(digest)) = (consensus.relays.last_mut(), base64(digest)) {
                    relay.digest = digest;
                }
            }
            _ => {}
        }
    }
    (!consensus.relays.is_empty()).then_some(consensus)
}

/// The microdescriptors of a text, each with its annotation and without it.
pub(in crate::tor) fn microdescs(source: &str) -> impl Iterator<Item = (&str, &str)> {
    const BEGIN: &str = "@last-listed ";
    let mut rest = source;
    std::iter::from_fn(move || {
        if !rest.starts_with(BEGIN) {
            return None;
        }
        let end = rest.find(&format!("\n{BEGIN}")).map_or(rest.len(), |at| at + 1);
        let (whole, behind) = rest.split_at(end);
        rest = behind;
        whole.split_once('\n').map(|(_, piece)| (whole, piece))
    })
}

/// Decodes base64 without padding.
pub(super) fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(N), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        held = held << 6 | u32::from(digit(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes.try_into().ok()
}

/// Seconds since 1970 of `2026-11-21 12:14:23`.
pub(super) fn seconds(stamp: &str) -> Option<u64> {
    let numbers: Vec<u64> = stamp.split(['-', ' ', ':']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month, day, hour, minute, second] = numbers[..] else { return None };
    // Years are counted from March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::model::Model;

    #[test]
    fn what_the_model_writes_is_read_back() {
        let (model, hour) = (Model::new(3, 120), Duration::from_secs(3600));
        let text = model.consensus(0, SystemTime::UNIX_EPOCH + hour * 490_000, hour);
        let read = consensus(&text).unwrap();
        assert_eq!(read.valid_after, SystemTime::UNIX_EPOCH + hour * 490_000);
        assert_eq!(read.valid_until, read.valid_after + hour * 3);
        let listed: Vec<_> = read.relays.iter().map(|relay| relay.fingerprint.clone()).collect();
        assert_eq!(listed, model.relays().iter().map(|relay| relay.hex()).collect::<Vec<_>>());
        let mds = model.microdescs(0, SystemTime::now());
        let have: std::collections::HashSet<[u8; 32]> =
            microdescs(&mds).map(|(_, piece)| Sha256::digest(piece).into()).collect();
        assert_eq!(have.len(), 120);
        assert!(read.relays.iter().all(|relay| have.contains(&relay.digest)));
    }
}
