//! Parses the small formats in directory documents: base64, dates, `key=value` lists.

/// Decodes base64 with or without padding into exactly `N` bytes. Bits beyond the last byte are not looked at, as tor does
/// not look at them either.
pub(super) fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() != (N * 8).div_ceil(6) {
        return None;
    }
    let mut out = [0; N];
    let (mut bits, mut held, mut filled) = (0u32, 0, 0);
    for digit in digits {
        bits = bits << 6 | u32::from(six_bits(*digit)?);
        held += 6;
        if held >= 8 && filled < N {
            held -= 8;
            out[filled] = (bits >> held) as u8;
            filled += 1;
        }
    }
    Some(out)
}

fn six_bits(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Seconds since 1970 of `2026-11-21 12:14:23`, which is UTC.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let plausible = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    plausible.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01. The year is taken to begin in March, so that the leap day is its last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u64; N]> {
    let mut pieces = text.split(separator);
    let mut out = [0; N];
    for number in &mut out {
        *number = pieces.next().filter(|piece| piece.len() <= 4)?.parse().ok()?;
    }
    pieces.next().is_none().then_some(out)
}

/// The pairs of a list such as `a=1 b=-2`. Pairs that cannot be read are skipped.
pub(super) fn key_values(text: &str) -> impl Iterator<Item = (&str, i32)> + Clone {
    text.split_ascii_whitespace().filter_map(|piece| {
        let (key, value) = piece.split_once('=')?;
        Some((key, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_base64_of_the_right_length_only() {
        assert_eq!(base64::<3>("TWFu"), Some(*b"Man"));
        assert_eq!(base64::<2>("TWE="), Some(*b"Ma"));
        assert_eq!(base64::<1>("TQ"), Some(*b"M"));
        assert_eq!(base64::<20>("A5bNqGRTTSMw8eytgKRzSFhuv4A").map(|id| id[..3].to_vec()), Some(vec![3, 0x96, 0xcd]));
        for text in ["", "TWF", "TWFuA", "TW!u", "TWFü", "TWFu\n"] {
            assert_eq!(base64::<3>(text), None, "{text:?}");
        }
    }

    #[test]
    fn reads_dates_of_every_kind_of_year() {
        for (text, want) in [
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29 12:00:00", 951_825_600),
            ("2026-11-21 11:59:13", 1_795_262_353),
            ("2038-01-01 00:00:00", 2_145_916_800),
            ("2100-03-01 00:00:00", 4_107_542_400),
        ] {
            assert_eq!(seconds(text), Some(want), "{text}");
        }
        for text in
            ["", "2026-11-21", "2026-13-01 00:00:00", "1969-12-31 23:59:59", "2026-11-21 24:00:00", "a-b-c d:e:f"]
        {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", date in "[0-9]{0,6}-[0-9]{0,3}-[0-9]{0,3} [0-9:]{0,12}") {
            let _ = (base64::<20>(&text), seconds(&text), seconds(&date), key_values(&text).count());
        }
    }
}
