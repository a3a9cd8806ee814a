//! The head of an HTTP/1 message: finds the end of the head, and checks each of its fields.
//!
//! The worst error of a proxy is to see one message where the next program sees two (request smuggling). Each such
//! attack uses a form of a head that only some parsers accept: a bare LF, a folded line, a space before the colon, a
//! NUL. The parser in this module refuses all of these forms.
//!
//! [`Scan`] looks at each byte of a head once as it arrives, and stops at the first byte that makes the head invalid.
//! [`Fields`] consist only of checked lines and keep the original bytes, so the target gets the fields in the case and
//! the order that the client used.
//!
//! Next: [`super::request`] and [`super::response`] read the meaning of the fields.

use std::str;

/// The maximum length of a head in bytes, including its start line. Common servers accept heads of 8 to 80 KiB. Even
/// the head of a scraper with many cookies is much shorter.
pub const HEAD_MAX: usize = 64 * 1024;

/// The maximum number of fields in a head. It is about twice the number of fields in the largest real heads. Not tuned.
pub const FIELDS_MAX: usize = 200;

/// The reason why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    #[error("a line ends in a bare LF")]
    BareLf,
    /// A CR without an LF after it.
    #[error("a bare CR")]
    BareCr,
    /// A NUL or another control character.
    #[error("a control character")]
    Control,
    /// A line that begins with white space and so continues the line before it.
    #[error("a folded line")]
    Folded,
    /// A field without a colon, or with characters in its name that HTTP does not allow.
    #[error("a field that is not `name: value`")]
    Field,
    /// White space between the name of a field and its colon.
    #[error("white space before a colon")]
    SpaceBeforeColon,
    #[error("the first line is malformed")]
    StartLine,
    #[error("not HTTP/1.0 or HTTP/1.1")]
    Version,
    #[error("a head of more than 64 KiB")]
    TooLong,
    #[error("a head of more than 200 fields")]
    TooMany,
    #[error("more than one Content-Length")]
    SecondLength,
    #[error("a Content-Length that is not a number")]
    Length,
    #[error("Content-Length beside Transfer-Encoding")]
    LengthAndCoding,
    #[error("a Transfer-Encoding other than `chunked`")]
    Coding,
    #[error("Transfer-Encoding in HTTP/1.0")]
    OldCoding,
    #[error("not exactly one Host")]
    Host,
    #[error("Connection lists a field that frames or addresses the message")]
    Stripped,
    #[error("a CONNECT or TRACE with a body")]
    UnexpectedBody,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target holds credentials")]
    Userinfo,
    #[error("the request target does not begin with http://")]
    Scheme,
    #[error("an expectation other than 100-continue")]
    Expectation,
}

/// Finds the end of a head whose bytes arrive in pieces. Each byte is examined only once.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    at: usize,
    line: usize,
}

impl Scan {
    /// Returns the length of the head, including the empty line at its end, or `None` while the head is incomplete.
    /// `bytes` must begin with the head and must include all bytes of the previous call.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        while let Some(&byte) = bytes.get(self.at) {
            if self.at >= HEAD_MAX {
                return Err(HeadFault::TooLong);
            }
            match byte {
                b'\r' => match bytes.get(self.at + 1) {
                    None => return Ok(None),
                    Some(b'\n') => {
                        let empty = self.at == self.line;
                        self.at += 2;
                        self.line = self.at;
                        if empty {
                            return if self.at <= HEAD_MAX { Ok(Some(self.at)) } else { Err(HeadFault::TooLong) };
                        }
                        continue;
                    }
                    Some(_) => return Err(HeadFault::BareCr),
                },
                b'\n' => return Err(HeadFault::BareLf),
                b' ' | b'\t' if self.at == self.line => return Err(HeadFault::Folded),
                b'\t' => {}
                0..0x20 | 0x7F => return Err(HeadFault::Control),
                _ => {}
            }
            self.at += 1;
        }
        Ok(None)
    }
}

/// One field, as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name, in the case in which it was received.
    pub name: &'b str,
    /// The value without the white space around it. The value is not always UTF-8.
    pub value: &'b [u8],
    /// The whole line with its CRLF.
    pub line: &'b [u8],
}

impl<'b> Field<'b> {
    /// Returns true if the field has this name. The case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Returns true if the field's name begins with `prefix`. The case does not matter.
    pub fn begins(&self, prefix: &str) -> bool {
        self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    }

    /// Returns the members of a comma-separated value, in the case in which they were received.
    pub fn members(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        self.value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
    }
}

/// The checked fields of a head. The head is parsed only once, because later code reads each field about ten times.
#[derive(Clone, Debug)]
pub struct Fields<'b>(Vec<Field<'b>>);

/// The number of fields for which memory is allocated in advance. With this number, most heads need only one
/// allocation. Not tuned.
const USUAL: usize = 16;

impl<'b> Fields<'b> {
    /// Checks `lines`: the lines after the start line, without the empty line that ends the head.
    pub fn check(lines: &'b [u8]) -> Result<Self, HeadFault> {
        let mut rest = lines;
        let mut fields = Vec::with_capacity(if lines.is_empty() { 0 } else { USUAL });
        while !rest.is_empty() {
            let field = check_line(rest)?;
            rest = &rest[field.line.len()..];
            fields.push(field);
            if fields.len() > FIELDS_MAX {
                return Err(HeadFault::TooMany);
            }
        }
        Ok(Self(fields))
    }

    /// Returns the fields in the order in which they were received.
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + use<'b, '_> {
        self.0.iter().copied()
    }

    /// Returns the first field with this name.
    pub fn get(&self, name: &str) -> Option<Field<'b>> {
        self.iter().find(|field| field.is(name))
    }
}

/// Returns the position of the first CRLF. The function searches for an LF and then checks that a CR is before the LF.
/// A search for the two bytes together takes five times as many instructions.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|&b| b == b'\n')?;
        if at > 0 && bytes[at - 1] == b'\r' {
            return Some(at - 1);
        }
        from = at + 1;
    }
}

/// Checks the first line of `lines`.
fn check_line(lines: &[u8]) -> Result<Field<'_>, HeadFault> {
    let end = line_end(lines).ok_or(HeadFault::Field)?;
    let line = &lines[..end];
    let colon = line.iter().take_while(|&&b| is_token(b)).count();
    match line.get(colon) {
        Some(b':') if colon > 0 => {}
        Some(b' ' | b'\t') if colon == 0 => return Err(HeadFault::Folded),
        Some(b' ' | b'\t') => return Err(HeadFault::SpaceBeforeColon),
        _ => return Err(HeadFault::Field),
    }
    match line[colon..].iter().find(|&&b| (b < b' ' && b != b'\t') || b == 0x7F) {
        None => {}
        Some(b'\n') => return Err(HeadFault::BareLf),
        Some(b'\r') => return Err(HeadFault::BareCr),
        Some(_) => return Err(HeadFault::Control),
    }
    let name = str::from_utf8(&line[..colon]).map_err(|_| HeadFault::Field)?; // never fails: a token is ASCII
    Ok(Field { name, value: trim(&line[colon + 1..]), line: &lines[..end + 2] })
}

/// Returns true if the byte is allowed in a token (RFC 9110, section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Returns the bytes without spaces and tabs at both ends.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = bytes.iter().take_while(|b| blank(b)).count();
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|b| blank(b)).count();
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8], piece: usize) -> Result<Option<usize>, HeadFault> {
        let mut scan = Scan::default();
        let mut have = 0;
        loop {
            have = (have + piece).min(bytes.len());
            match scan.end(&bytes[..have]) {
                Ok(None) if have < bytes.len() => {}
                end => return end,
            }
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for piece in 1..=head.len() + 4 {
            assert_eq!(scan(&[head, &b"body"[..]].concat(), piece), Ok(Some(head.len())));
        }
        assert_eq!(scan(&head[..head.len() - 1], 1), Ok(None));
        assert_eq!(scan(b"\r\n", 1), Ok(Some(2)));
        assert_eq!(scan(b"", 1), Ok(None));
    }

    #[test]
    fn a_head_is_refused_at_the_first_invalid_byte() {
        for (bytes, fault) in [
            (&b"GET / HTTP/1.1\n"[..], HeadFault::BareLf),
            (b"GET / HTTP/1.1\r\nA: b\n", HeadFault::BareLf),
            (b"GET / HTTP/1.1\rX", HeadFault::BareCr),
            (b"GET / HTTP/1.1\r\r\n", HeadFault::BareCr),
            (b"GET / HTTP/1.1\r\nA: b\r\n c", HeadFault::Folded),
            (b"GET / HTTP/1.1\r\n\tA: b", HeadFault::Folded),
            (b" GET /", HeadFault::Folded),
            (b"GET /\0", HeadFault::Control),
            (b"GET / HTTP/1.1\r\nA: \x01", HeadFault::Control),
            (b"GET / HTTP/1.1\r\nA: \x7F", HeadFault::Control),
            (b"\x16\x03\x01", HeadFault::Control),
        ] {
            for piece in [1, 100] {
                assert_eq!(scan(bytes, piece), Err(fault), "{}", bytes.escape_ascii());
            }
        }
        assert_eq!(scan(&vec![b'a'; HEAD_MAX + 1], 1000), Err(HeadFault::TooLong));
        let ends_at = |length: usize| [&vec![b'a'; length - 4][..], b"\r\n\r\n"].concat();
        assert_eq!(scan(&ends_at(HEAD_MAX), 1000), Ok(Some(HEAD_MAX)));
        for more in 1..4 {
            assert_eq!(scan(&ends_at(HEAD_MAX + more), 1000), Err(HeadFault::TooLong));
        }
    }

    #[test]
    fn fields_keep_the_bytes_that_were_read() {
        let fields = Fields::check(b"HOST:a\r\nX-Empty:\r\nx-odd: \t b c\xFF \t\r\n").unwrap();
        let read: Vec<_> = fields.iter().map(|f| (f.name, f.value, f.line.len())).collect();
        assert_eq!(read, [("HOST", &b"a"[..], 8), ("X-Empty", b"", 10), ("x-odd", b"b c\xFF", 17)]);
        assert!(fields.get("host").is_some() && fields.get("hos").is_none());
        assert!(fields.get("X-ODD").unwrap().begins("X-") && !fields.get("host").unwrap().begins("hostess"));
        let list = Fields::check(b"A: b ,, c,d\t,\r\n").unwrap().get("a").unwrap();
        assert_eq!(list.members().collect::<Vec<_>>(), [b"b", b"c", b"d"]);
    }

    #[test]
    fn a_bad_field_is_refused() {
        for (lines, fault) in [
            (&b"no colon\r\n"[..], HeadFault::SpaceBeforeColon),
            (b"nocolon\r\n", HeadFault::Field),
            (b": empty\r\n", HeadFault::Field),
            (b"A : b\r\n", HeadFault::SpaceBeforeColon),
            (b"A\t: b\r\n", HeadFault::SpaceBeforeColon),
            (b"A: b\r\n c\r\n", HeadFault::Folded),
            (b"A(b: c\r\n", HeadFault::Field),
            (b"\xC3\xA9: c\r\n", HeadFault::Field),
            (b"A: b\0\r\n", HeadFault::Control),
            (b"A: b\nC: d\r\n", HeadFault::BareLf),
            (b"A: b\rC: d\r\n", HeadFault::BareCr),
            (b"A: b", HeadFault::Field),
        ] {
            assert_eq!(Fields::check(lines).err(), Some(fault), "{}", lines.escape_ascii());
        }
        assert!(Fields::check(&b"A: b\r\n".repeat(FIELDS_MAX)).is_ok());
        assert_eq!(Fields::check(&b"A: b\r\n".repeat(FIELDS_MAX + 1)).err(), Some(HeadFault::TooMany));
    }

    #[test]
    fn tokens_have_the_characters_that_the_rfc_lists() {
        for byte in 0..=u8::MAX {
            let listed = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), listed, "{byte:#x}");
        }
    }

    #[test]
    fn a_line_ends_at_its_first_crlf_and_nowhere_else() {
        let ends = |bytes: &[u8]| bytes.windows(2).position(|pair| pair == b"\r\n");
        for bytes in
            [&b""[..], b"\n", b"\r", b"\r\n", b"a\nb\r\n", b"a\r\r\n", b"\n\r\n", b"a\r\nb\r\n", b"a\n\n", b"a\rb"]
        {
            assert_eq!(line_end(bytes), ends(bytes), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in "[GET /:a\r\n\t\0]{0,80}", piece in 1usize..20) {
            prop_assert_eq!(scan(bytes.as_bytes(), piece), scan(bytes.as_bytes(), 1000));
        }

        #[test]
        fn checked_fields_are_all_seen(bytes in "([a-zA-Z-]{1,5}:[ a-z,]{0,8}\r\n){0,8}") {
            let fields = Fields::check(bytes.as_bytes()).unwrap();
            let again: Vec<u8> = fields.iter().flat_map(|field| field.line.iter().copied()).collect();
            prop_assert_eq!(again, bytes.as_bytes());
        }

        #[test]
        fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes, 3);
            if let Ok(fields) = Fields::check(&bytes) {
                prop_assert!(fields.iter().all(|f| f.name.bytes().all(is_token) && !f.value.contains(&b'\n')));
            }
        }
    }
}
