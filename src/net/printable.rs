//! Texts of strangers, as people are shown them.
//!
//! Whoever names a relay, runs a control port or writes a value into a file may write for the terminal of the one who
//! reads it. Control characters are written out wherever such a text becomes a line, a cell or a field; the log has a
//! last look of its own, at what its formats let through.

use std::fmt;

/// A text that may quote a stranger's and does nothing to the terminal that shows it.
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
    fn controls_are_written_out_and_everything_else_stays() {
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
