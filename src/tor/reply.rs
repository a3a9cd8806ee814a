//! Parses replies of tor's control protocol: the input is bytes, the output is replies. Pure: no I/O.
//!
//! A reply has one or more lines, and each line begins with a three-digit code. The separator after the code shows what
//! follows. After `-` there are more lines. After `+` there is a block of data that ends at a line with a single dot.
//! After a space the reply is complete.
//!
//! Replies with codes from 600 are events, and all others are answers to commands. An event never arrives between the
//! lines of an answer.
//!
//! The other end may be any program that listens on that port, so its bytes are not trusted: lines and replies have
//! size limits. A caller that expects a large answer sets a larger limit for its command. For example, the answer to
//! `GETINFO md/all` has 9 MB on the public network, and an answer to ATTACHSTREAM has 8 bytes.
//!
//! Next: [`super::control`] owns the connection; [`super::event`] parses events from replies.

use std::borrow::Cow;

use bytes::{Buf, BytesMut};

/// The longest accepted line, in bytes. tor's longest lines have about 20 KB. These are a STREAM event with a username
/// and a password of 255 escaped bytes each, and the line of a large family in a microdescriptor.
pub const MAX_LINE: usize = 64 * 1024;

/// The largest accepted answer in bytes, unless the caller sets another limit. An answer to `GETINFO circuit-status`
/// with 1,000 circuits has 250 KB.
pub const MAX_REPLY: usize = 1024 * 1024;

/// The largest accepted event, in bytes. NEWCONSENSUS lists every relay: 2 MB for today's public network.
pub const MAX_EVENT: usize = 8 * 1024 * 1024;

/// The number of bytes that each line adds to the size of a reply, besides the bytes of its text. So even empty lines
/// reach the size limit.
const LINE_COST: usize = 32;

/// One line of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number at the start of the line: 250, for example.
    pub code: u16,
    /// The text after code and separator. Bytes that are not UTF-8 are replaced.
    pub text: Box<str>,
    /// The block of data after a `+` line, without the escaping of dots. Each line of the block ends with `\n`. `None`
    /// if the line has no block.
    pub data: Option<Box<str>>,
}

/// An answer or an event, which has at least one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    lines: Vec<Line>,
}

/// Error: the bytes are not a control reply, or the reply is too large. The connection must be closed after this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line has more than [`MAX_LINE`] bytes.
    #[error("tor sent a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// A reply is larger than the caller's limit.
    #[error("tor sent a reply of more than the {limit} bytes that were allowed for it")]
    ReplyTooLong { limit: usize },
    /// A line does not begin with three digits and a separator.
    #[error("tor sent a line that is not a control reply")]
    NotAReply,
    /// A line of an event is in the middle of an answer, or a line of an answer is in the middle of an event.
    #[error("tor mixed an event into an answer")]
    Mixed,
}

impl Reply {
    /// Makes a reply from its lines. Returns `None` if there are no lines.
    pub fn new(lines: Vec<Line>) -> Option<Self> {
        if lines.is_empty() { None } else { Some(Self { lines }) }
    }

    /// Returns the lines, at least one.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Returns the code of the last line, which is the result of the command.
    pub fn code(&self) -> u16 {
        self.lines[self.lines.len() - 1].code
    }

    /// Returns the text of the last line.
    pub fn text(&self) -> &str {
        &self.lines[self.lines.len() - 1].text
    }

    /// Returns true if the reply is an event.
    pub fn is_event(&self) -> bool {
        is_event(self.lines[0].code)
    }

    /// Returns true if the reply is an answer that reports success.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code())
    }

    /// Returns the value of the first line with `key=value`: its block of data if it has one, otherwise the text after
    /// `=`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let inline = line.text.strip_prefix(key)?.strip_prefix('=')?;
            Some(line.data.as_deref().unwrap_or(inline))
        })
    }

    /// Writes the reply in the format of tor's control protocol, for tests.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests and fuzz targets write replies with it"))]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let last = self.lines.len() - 1;
        for (at, line) in self.lines.iter().enumerate() {
            let separator = match &line.data {
                Some(_) => '+',
                None if at < last => '-',
                None => ' ',
            };
            out.extend_from_slice(format!("{:03}{separator}{}\r\n", line.code, line.text).as_bytes());
            for row in line.data.iter().flat_map(|data| data.split_terminator('\n')) {
                out.extend_from_slice(if row.starts_with('.') { b"." } else { b"" });
                out.extend_from_slice(row.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            if line.data.is_some() {
                out.extend_from_slice(b".\r\n");
            }
        }
    }
}

fn is_event(code: u16) -> bool {
    code >= 600
}

/// A parser for replies whose bytes arrive in pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    /// The bytes that are not parsed yet. After [`Parser::next`] returned `None`, this is at most one incomplete line.
    bytes: BytesMut,
    /// The number of bytes at the start of `bytes` that contain no line feed. These bytes are not searched again.
    searched: usize,
    /// The lines of the reply that is still incomplete.
    lines: Vec<Line>,
    /// The block of data that is being read for the last of `lines`. `None` outside of a block.
    block: Option<String>,
    /// The size of the incomplete reply in bytes, to compare with its limit.
    size: usize,
}

impl Parser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the buffer, to which the caller appends the received bytes.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Appends received bytes to the buffer.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests and fuzz targets feed bytes with it"))]
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete reply, if there is one. `limit` is the largest allowed size of an answer in bytes.
    /// Events have their own limit. After an error the parser must not be used any more.
    pub fn next(&mut self, limit: usize) -> Result<Option<Reply>, ReplyError> {
        while let Some(length) = self.line_end()? {
            let line = self.bytes.split_to(length);
            self.bytes.advance(1); // removes the line feed
            self.searched = 0;
            if self.take_line(line.strip_suffix(b"\r").unwrap_or(&line), limit)? {
                self.size = 0;
                return Ok(Reply::new(std::mem::take(&mut self.lines)));
            }
        }
        Ok(None)
    }

    /// Returns the position where the next line ends.
    fn line_end(&mut self) -> Result<Option<usize>, ReplyError> {
        let found = self.bytes[self.searched..].iter().position(|&b| b == b'\n').map(|at| self.searched + at);
        self.searched = self.bytes.len();
        if found.unwrap_or(self.bytes.len()) > MAX_LINE { Err(ReplyError::LineTooLong) } else { Ok(found) }
    }

    /// Parses one line. Returns true if this line completes the reply.
    fn take_line(&mut self, line: &[u8], limit: usize) -> Result<bool, ReplyError> {
        let first = self.lines.first().map(|line| line.code);
        if let Some(block) = &mut self.block {
            if line == b"." {
                let whole = self.block.take().map(String::into_boxed_str);
                if let Some(last) = self.lines.last_mut() {
                    last.data = whole;
                }
                return Ok(false);
            }
            let row = line.strip_prefix(b".").unwrap_or(line);
            self.size += row.len() + 1;
            bound(self.size, first.unwrap_or(0), limit)?;
            block.push_str(&String::from_utf8_lossy(row));
            block.push('\n');
            return Ok(false);
        }
        let (code, separator, text) = split(line).ok_or(ReplyError::NotAReply)?;
        if first.is_some_and(|first| is_event(first) != is_event(code)) {
            return Err(ReplyError::Mixed);
        }
        self.size += text.len() + LINE_COST;
        bound(self.size, code, limit)?;
        self.lines.push(Line { code, text: String::from_utf8_lossy(text).into(), data: None });
        if separator == b'+' {
            self.block = Some(String::new());
        }
        Ok(separator == b' ')
    }
}

fn bound(size: usize, code: u16, limit: usize) -> Result<(), ReplyError> {
    let limit = if is_event(code) { MAX_EVENT } else { limit };
    if size > limit { Err(ReplyError::ReplyTooLong { limit }) } else { Ok(()) }
}

/// Splits a line into code, separator and text.
fn split(line: &[u8]) -> Option<(u16, u8, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    // A line with nothing after "250" is not in the specification, but it is accepted.
    let (&separator, text) = rest.split_first().unwrap_or((&b' ', &[]));
    if !code.iter().all(u8::is_ascii_digit) || !matches!(separator, b' ' | b'-' | b'+') {
        return None;
    }
    let code = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((code, separator, text))
}

/// Splits a text into its first word and the rest. The spaces between both are removed.
pub fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(' ');
    match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start_matches(' ')),
        None => (text, ""),
    }
}

/// Returns the pairs of a text such as `KEY=value KEY="quoted value" …`. The pairs may be in any order. Words without a
/// key are skipped, because a later tor may add such words.
pub fn pairs(text: &str) -> Pairs<'_> {
    Pairs { rest: text }
}

/// The iterator that [`pairs`] returns.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest.trim_start_matches(' ');
            if rest.is_empty() {
                self.rest = rest;
                return None;
            }
            let end = rest.find([' ', '=']).unwrap_or(rest.len());
            let (key, behind) = rest.split_at(end);
            let Some(value) = behind.strip_prefix('=') else {
                self.rest = behind;
                continue;
            };
            let (value, rest) = if value.starts_with('"') {
                match unquote(value) {
                    Some((text, rest)) => (Cow::Owned(text), rest),
                    None => (Cow::Borrowed(value), ""), // without a closing quote, the whole rest is the value
                }
            } else {
                let (plain, rest) = value.split_at(value.find(' ').unwrap_or(value.len()));
                (Cow::Borrowed(plain), rest)
            };
            self.rest = rest;
            return Some((key, value));
        }
    }
}

/// Parses a quoted string at the start of `text`. Returns its content and the text after the closing quote. The C
/// escapes that tor writes (`\n`, `\t`, `\r`, octal) are decoded. Any other escaped character stands for itself.
pub fn unquote(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let bytes = inner.as_bytes();
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => {
                // A quote is one ASCII byte, so the text behind it is valid UTF-8.
                return Some((String::from_utf8_lossy(&content).into_owned(), inner.get(at + 1..)?));
            }
            b'\\' => {
                let (byte, used) = escape(&bytes[at + 1..])?;
                content.push(byte);
                at += 1 + used;
            }
            &byte => {
                content.push(byte);
                at += 1;
            }
        }
    }
}

/// Returns the byte that an escape sequence stands for, and the length of the sequence in bytes without its backslash.
fn escape(bytes: &[u8]) -> Option<(u8, usize)> {
    let first = *bytes.first()?;
    let octal = bytes.iter().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
    Some(match first {
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'r' => (b'\r', 1),
        b'0'..=b'7' => {
            let value = bytes[..octal].iter().fold(0u16, |sum, digit| sum * 8 + u16::from(digit - b'0'));
            (value as u8, octal) // `\777` is larger than a byte; tor never writes it
        }
        other => (other, 1),
    })
}

/// Writes a text as a quoted string that tor and [`unquote`] can parse. The result contains no line break.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\{:03o}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
