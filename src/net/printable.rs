//! Displays untrusted text with its control characters escaped.
//!
//! The nickname of a relay, the error text of a control port or a value in a file may contain control characters, and a
//! terminal obeys such characters. Wherever such a text becomes part of a line, a table cell or a field, [`Printable`]
//! escapes its control characters. In addition, `telemetry/log_sanitizer.rs` escapes log lines.

use std::fmt;

/// A text that is displayed with its control characters escaped (as `\n`, `\u{1b}`).
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((at, last)) if last.is_control() => write!(f, "{}{}", &piece[..at], last.escape_default())?,
                _ => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        for (text, want) in [
            ("", ""),
            ("gr\u{fc}n \u{1f600}", "gr\u{fc}n \u{1f600}"),
            ("No \x1b[2Jway\u{9b}\u{7f}", "No \\u{1b}[2Jway\\u{9b}\\u{7f}"),
            ("a\r\nb\t", "a\\r\\nb\\t"),
        ] {
            assert_eq!(Printable(text).to_string(), want);
        }
    }
}
