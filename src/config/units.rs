//! Durations, sizes in bytes, and numbers with a range, as the configuration writes them.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use super::text_value::TextValue;

/// The units of a duration in milliseconds, smallest first.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The longest duration that the configuration accepts: ten years. Not tuned: no useful value is longer, and a clock
/// does not overflow.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

impl TextValue for Duration {
    const WANT: &'static str = "a duration such as \"30s\", \"10m\", \"2h\" or \"7d\"";

    fn read(text: &str) -> Result<Self, String> {
        let MaybeZero(time) = MaybeZero::read(text)?;
        if time.is_zero() { Err("it must be longer than 0".to_owned()) } else { Ok(time) }
    }

    fn write(&self) -> String {
        MaybeZero(*self).write()
    }
}

/// A duration that may be zero, written as `"0s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaybeZero(pub(super) Duration);

impl TextValue for MaybeZero {
    const WANT: &'static str = Duration::WANT;

    fn read(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        let mut sum: u64 = 0;
        if rest.is_empty() {
            return Err(String::new());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = rest.split_at(digits);
            let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (unit, after) = after.split_at(letters);
            let number: u64 = number.parse().map_err(|_| String::new())?;
            let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(String::new)?;
            sum = number.checked_mul(*millis).and_then(|part| sum.checked_add(part)).ok_or("it is too long")?;
            rest = after.trim_start();
        }
        let sum = Duration::from_millis(sum);
        if sum <= LONGEST { Ok(Self(sum)) } else { Err("it is longer than ten years".to_owned()) }
    }

    fn write(&self) -> String {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let whole = |(_, unit): &&(&str, u64)| millis > 0 && millis.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().rev().find(whole).unwrap_or(&UNITS[1]);
        format!("{}{name}", millis / unit)
    }
}

/// A duration, or `None` for the word `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurationOrNever(pub(super) Option<Duration>);

impl TextValue for DurationOrNever {
    const WANT: &'static str = "a duration such as \"10m\" or \"2h\", or \"never\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self(None)) } else { Duration::read(text).map(|after| Self(Some(after))) }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| "never".to_owned(), |after| after.write())
    }
}

/// A size as a number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// The units of a size in bytes, largest first.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl TextValue for Bytes {
    const WANT: &'static str = "a number of bytes such as 500000, \"500KB\" or \"10MiB\"";

    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let unit = SIZES.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        let number: u64 = digits.trim_end().parse().map_err(|_| String::new())?;
        number.checked_mul(unit).map(Self).ok_or_else(|| "it is too large".to_owned())
    }

    fn number(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }

    fn write(&self) -> String {
        let whole = |(_, unit): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        let (name, unit) = SIZES.iter().find(whole).unwrap_or(&SIZES[6]);
        format!("{}{name}", self.0 / unit)
    }
}

/// A whole number from `MIN` to `MAX`. The range is part of the type, so the schema shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Int<MIN, MAX> {
    /// Returns the number as a `NonZeroU32`. This function is only for ranges whose `MIN` is above 0.
    pub(super) fn positive(self) -> NonZeroU32 {
        const { assert!(MIN > 0) };
        NonZeroU32::new(self.0).unwrap_or(NonZeroU32::MIN)
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Int<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InRange<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> Visitor<'_> for InRange<MIN, MAX> {
            type Value = Int<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                let inside = u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
                inside.map(Int).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_any(InRange)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            (" 2h ", 7_200_000),
            ("1h 1s", 3_601_000),
        ] {
            assert_eq!(Duration::read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            " ",
            "30",
            "s",
            "30 s",
            "30x",
            "-1s",
            "1.5h",
            "3000000000d",
            "20000000000000000000s",
            "0s",
            "4000d",
            "1m!",
        ] {
            assert!(Duration::read(text).is_err(), "{text}");
        }
        assert_eq!(MaybeZero::read("0s"), Ok(MaybeZero(Duration::ZERO)));
        assert_eq!(DurationOrNever::read("never"), Ok(DurationOrNever(None)));
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("500", 500), ("1KB", 1_000), ("64KiB", 65_536), ("10 MiB", 10 << 20), ("2B", 2)]
        {
            assert_eq!(Bytes::read(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "KB", "1kb", "-1", "1.5MB", "99999999999999999999", "99999999999999GiB"] {
            assert!(Bytes::read(text).is_err(), "{text}");
        }
        assert_eq!((Bytes::number(7), Bytes::number(-7)), (Some(Bytes(7)), None));
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(millis in 1..LONGEST.as_millis() as u64) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(Duration::read(&time.write()), Ok(time));
        }

        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(Bytes::read(&Bytes(bytes).write()), Ok(Bytes(bytes)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-9]{0,22}[a-zA-Z]{0,3} ?[0-9]{0,3}[smhd]?") {
            _ = (Duration::read(&text), Bytes::read(&text), DurationOrNever::read(&text));
        }
    }
}
