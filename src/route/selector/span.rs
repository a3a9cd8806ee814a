//! Times in usernames: `30s`, `10m`, `2h`, `1d`.

use std::fmt;
use std::time::Duration;

/// The longest time that a username may have, in seconds: a year. `gateway.max_session_ttl` sets the limit of a
/// gateway.
const LONGEST: u64 = 366 * 24 * 3600;

/// Reads a number with its unit. `bare` is the unit, in seconds, for a number without a unit, because some keywords of
/// paid gateways have numbers in minutes. If `bare` is `None`, a number without a unit is refused.
pub(super) fn parse(text: &str, bare: Option<u64>) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => bare?,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let seconds = number(digits)?.checked_mul(unit).filter(|seconds| (1..=LONGEST).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// Reads digits and nothing else. `u64::from_str` would also accept a leading `+`.
pub(super) fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Displays a time in the form that usernames have: a whole number in the largest unit that fits.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            hours if hours % 3600 == 0 => write!(f, "{}h", hours / 3600),
            minutes if minutes % 60 == 0 => write!(f, "{}m", minutes / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}
