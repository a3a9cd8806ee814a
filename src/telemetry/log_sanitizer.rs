//! Escapes control characters that the log formats do not escape themselves.
//!
//! Host names and usernames in a log come from untrusted clients. JSON escapes only U+0000 to U+001F. Some terminals
//! interpret U+009B like ESC, and some programs read U+0085 as the end of a line. So DEL and U+0080 to U+009F are
//! escaped here. ESC itself is not changed here: ESC begins the colour codes of lines on a terminal, and the formats
//! already escape ESC in values.

use std::io::{self, Write};

/// A writer that escapes DEL and U+0080 to U+009F. Each write must contain whole lines.
pub(super) struct LogSanitizer<W>(pub(super) W);

impl<W: Write> Write for LogSanitizer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match escaped(bytes) {
            None => self.0.write(bytes),
            Some(text) => self.0.write_all(&text).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns the text with DEL and U+0080 to U+009F (in UTF-8: C2 80 to C2 9F) escaped as in JSON. Returns `None` if the
/// text has no such character.
fn escaped(bytes: &[u8]) -> Option<Vec<u8>> {
    let control = |at: usize| match (bytes[at], bytes.get(at + 1)) {
        (0x7F, _) => Some((0x7F, 1)),
        (0xC2, Some(&low @ 0x80..=0x9F)) => Some((low, 2)),
        _ => None,
    };
    let mut at = (0..bytes.len()).find(|at| control(*at).is_some())?;
    let mut text = bytes[..at].to_vec();
    while at < bytes.len() {
        let length = match control(at) {
            Some((code, length)) => {
                text.extend(format!("\\u{code:04x}").into_bytes());
                length
            }
            None => {
                text.push(bytes[at]);
                1
            }
        };
        at += length;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_beyond_ascii_are_escaped_and_nothing_else() {
        for (line, want) in [
            ("a line\n", "a line\n"),
            (
                "\x1b[32mINFO\x1b[0m gr\u{fc}n \u{a0}\u{2028}\u{1f600}\n",
                "\x1b[32mINFO\x1b[0m gr\u{fc}n \u{a0}\u{2028}\u{1f600}\n",
            ),
            ("{\"a\":\"\u{85}x\u{9b}2J\u{7f}\"}\n", "{\"a\":\"\\u0085x\\u009b2J\\u007f\"}\n"),
            ("\u{80}", "\\u0080"),
        ] {
            let mut out = LogSanitizer(Vec::new());
            out.write_all(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out.0).unwrap(), want);
        }
        // An incomplete UTF-8 character at the end of the text is not changed.
        assert_eq!(escaped(b"a\xc2"), None);
    }
}
