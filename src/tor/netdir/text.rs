//! Parses the small formats in directory documents: base64, dates and lists of `key=value`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The base64 format of tor: padding is optional, and bits after the last whole byte are ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// Decodes base64 into exactly `N` bytes. Returns `None` for any other length.
pub(super) fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let length = BASE64.decode_slice(text, &mut out).ok()?;
    (length == N).then_some(out)
}

/// Parses a date in UTC such as `2026-11-21 12:14:23`. Returns seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let date = PrimitiveDateTime::parse(text, DATE).ok()?;
    date.assume_utc().unix_timestamp().try_into().ok()
}

/// Returns the pairs of a list such as `a=1 b=-2`. Pairs that cannot be read are skipped.
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
