//! The last look at the log: control characters that its formats let through are written out.
//!
//! JSON escapes what is below a space and nothing above, and strangers name hosts and users. Some terminals take U+009B
//! for the beginning of a command, as they do ESC, and some programs take U+0085 for the end of a line. Colours, which a
//! terminal is sent on purpose, begin with ESC itself and stay; ESC in a value is written out by the formats.

use std::io::{self, Write};

/// A writer of whole lines of UTF-8, after which they do nothing to whoever shows them.
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

/// With DEL and the controls behind it (U+0080 to U+009F, which are C2 80 to C2 9F) as JSON writes them; none if there
/// are none.
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
    fn controls_beyond_ascii_are_written_out_and_nothing_else_is_touched() {
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
        // Half a character at the end is nobody's control.
        assert_eq!(escaped(b"a\xc2"), None);
    }
}
