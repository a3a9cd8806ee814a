//! Parses the small formats in directory documents: lines, base64, dates and lists of `key=value`.

use std::io::{self, BufRead};

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

/// Reads a text line by line. A directory has 13 MB, and the memory for a text of this size would never be returned to
/// the operating system. Bytes that are not UTF-8 are replaced.
pub(super) struct Lines<R> {
    text: R,
    bytes: Vec<u8>,
    line: String,
    /// True if `line` contains the next line.
    is_read: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(text: R) -> Self {
        Self { text, bytes: Vec::new(), line: String::new(), is_read: false }
    }

    /// Returns the next line without its line end, and does not advance. Returns `None` at the end of the text.
    pub(super) fn current(&mut self) -> io::Result<Option<&str>> {
        if !self.is_read {
            self.bytes.clear();
            if self.text.read_until(b'\n', &mut self.bytes)? == 0 {
                return Ok(None);
            }
            let bytes =
                self.bytes.strip_suffix(b"\n").map_or(&*self.bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
            self.line.clear();
            self.line.push_str(&String::from_utf8_lossy(bytes));
            self.is_read = true;
        }
        Ok(Some(&self.line))
    }

    /// Advances to the next line.
    pub(super) fn advance(&mut self) {
        self.is_read = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_those_of_the_standard_library() {
        for text in ["", "a", "a\n", "a\r\nb\n\nc\rd", "\n", "a\r", "\r\n\r\n"] {
            let (mut lines, mut found) = (Lines::new(text.as_bytes()), Vec::new());
            while let Some(line) = lines.current().unwrap() {
                found.push(line.to_owned());
                assert_eq!(lines.current().unwrap(), found.last().map(String::as_str), "until it goes on");
                lines.advance();
            }
            assert_eq!(found, text.lines().collect::<Vec<_>>(), "{text:?}");
        }
        assert_eq!(Lines::new(&b"a\xff"[..]).current().unwrap(), Some("a\u{fffd}"));
    }

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
