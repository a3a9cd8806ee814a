//! The small forms that directory documents are made of: hexadecimal, base64, dates, policies.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Upper-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02X}"); // a String takes everything
        hex
    })
}

/// Base64 without padding, as directory documents write keys and digests.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 2);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|at| DIGITS[(group >> (18 - 6 * at)) as usize & 63] as char));
    }
    text
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `YYYY-MM-DD hh:mm:ss` in UTC, of seconds since 1970.
pub fn stamp(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last of its year;
/// 146,097 days are 400 years, 719,468 days lie between 1 March of year 0 and 1970.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (cycle, of_cycle) = (day / 146_097, day % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, of_month)
}

/// Whether a summary such as `accept 80,443,8000-9000` lets a port out.
pub(crate) fn policy_allows(policy: &str, port: u16) -> bool {
    let Some((word, list)) = policy.split_once(' ') else { return false };
    let bounds = |entry: &str| {
        let (low, high) = entry.split_once('-').unwrap_or((entry, entry));
        Some(low.parse::<u16>().ok()?..=high.parse::<u16>().ok()?)
    };
    let named = list.split(',').filter_map(bounds).any(|range| range.contains(&port));
    named == (word == "accept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_every_kind_of_year() {
        for (seconds, written) in [
            (0, "1970-01-01 00:00:00"),
            (951_827_696, "2000-02-29 12:34:56"),
            (1_788_491_100, "2026-09-04 03:05:00"),
            (4_107_542_399, "2100-02-28 23:59:59"),
        ] {
            assert_eq!(stamp(seconds), written);
        }
    }

    #[test]
    fn base64_and_hex_of_known_bytes() {
        assert_eq!((base64(b"Man"), base64(b"Ma"), base64(b"M")), ("TWFu".into(), "TWE".into(), "TQ".into()));
        assert_eq!(hex(&[0, 0x9f, 255]), "009FFF");
    }

    #[test]
    fn a_summary_says_which_ports_are_let_out() {
        for (policy, port, allowed) in [
            ("accept 80,443", 443, true),
            ("accept 80,443", 25, false),
            ("accept 20-23,80", 22, true),
            ("reject 25,119", 25, false),
            ("reject 25,119", 80, true),
            ("reject 1-65535", 80, false),
            ("accept 1-65535", 65535, true),
        ] {
            assert_eq!(policy_allows(policy, port), allowed, "{policy} {port}");
        }
    }
}
