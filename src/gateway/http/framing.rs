//! The rules that requests and answers have in common: how long the body is, whether the connection is kept, and which
//! fields are dropped.
//!
//! The fields that decide the length of a message are read in this module for both directions. If the rules for answers
//! were less strict than those for requests, an origin server could exploit the difference. The following fields
//! concern only one hop: the fields of RFC 9110, section 7.6.1, the fields that `Connection` lists, all fields that
//! begin with `Proxy-`, and the gateway's own fields `X-Exitgate-…`.

use super::body::{Body, Chunks};
use super::head::{Field, Fields, HeadFault, is_token};

/// The maximum length, in bytes, of all `Connection` fields together, and the maximum number of names that they may
/// list. Each name is compared with each field of the head, so these limits bound the number of comparisons. Both
/// limits are far above what clients send. Not tuned.
const LIST_MAX: usize = 1024;
const NAMED_MAX: usize = 32;

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0, whose connections end after one answer unless both sides agree otherwise.
    Old,
    /// HTTP/1.1, whose connections are kept unless a side wants to close.
    Current,
}

impl Version {
    /// Parses the text `HTTP/1.x`.
    pub fn parse(text: &[u8]) -> Result<Self, HeadFault> {
        match text {
            b"HTTP/1.1" => Ok(Self::Current),
            b"HTTP/1.0" => Ok(Self::Old),
            other if other.starts_with(b"HTTP/") => Err(HeadFault::Version),
            _ => Err(HeadFault::StartLine),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "HTTP/1.0",
            Self::Current => "HTTP/1.1",
        }
    }
}

/// Returns the body that the header fields announce, or `None` if they announce none.
pub fn body(fields: &Fields<'_>, version: Version) -> Result<Option<Body>, HeadFault> {
    let mut length = None;
    let mut chunked = false;
    for field in fields.iter() {
        if field.is("content-length") {
            if length.is_some() {
                return Err(HeadFault::SecondLength);
            }
            length = Some(number(field.value)?);
        } else if field.is("transfer-encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Coding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(HeadFault::LengthAndCoding),
        (_, true) if version == Version::Old => Err(HeadFault::OldCoding),
        (_, true) => Ok(Some(Body::Chunked(Chunks::default()))),
        (length, false) => Ok(length.map(Body::Length)),
    }
}

/// Parses a decimal number. The value must consist of 1 to 18 digits, so the number fits into 64 bits.
fn number(value: &[u8]) -> Result<u64, HeadFault> {
    if value.is_empty() || value.len() > 18 {
        return Err(HeadFault::Length);
    }
    value.iter().try_fold(0, |sum, &digit| match digit {
        b'0'..=b'9' => Ok(sum * 10 + u64::from(digit - b'0')),
        _ => Err(HeadFault::Length),
    })
}

/// The options in the field `Connection` and in `Proxy-Connection`, which some clients send in place of `Connection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options<'b> {
    /// True if the sender closes the connection after this message.
    pub close: bool,
    /// True if the sender explicitly asks to keep the connection. HTTP/1.1 keeps connections also without this option.
    pub keep_alive: bool,
    /// True if the sender offers another protocol.
    pub upgrade: bool,
    /// The names of other fields that `Connection` lists. These fields are for this hop only and are not forwarded.
    named: Vec<&'b [u8]>,
}

impl<'b> Options<'b> {
    /// Reads the options. Fails if `Connection` lists a field that decides the length or the host of the message,
    /// because that field would be dropped.
    pub fn read(fields: &Fields<'b>) -> Result<Self, HeadFault> {
        let mut options = Self::default();
        let mut length = 0;
        for field in fields.iter().filter(|field| field.is("connection") || field.is("proxy-connection")) {
            length += field.line.len();
            if length > LIST_MAX {
                return Err(HeadFault::Field);
            }
            for member in field.members() {
                options.member(member)?;
            }
        }
        Ok(options)
    }

    fn member(&mut self, member: &'b [u8]) -> Result<(), HeadFault> {
        let is = |name: &str| member.eq_ignore_ascii_case(name.as_bytes());
        if is("close") {
            self.close = true;
        } else if is("keep-alive") {
            self.keep_alive = true;
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("host") || is("content-length") || is("transfer-encoding") {
            return Err(HeadFault::Stripped);
        } else if self.named.len() == NAMED_MAX || !member.iter().all(|&b| is_token(b)) {
            return Err(HeadFault::Field);
        } else {
            self.named.push(member);
        }
        Ok(())
    }

    /// Returns true if the sender keeps the connection after this message.
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Current || self.keep_alive)
    }

    /// Returns true if the field must not be forwarded, because it concerns only this hop.
    pub fn ends(&self, field: &Field<'_>) -> bool {
        const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "te", "upgrade", "http2-settings"];
        HOP_BY_HOP.iter().any(|name| field.is(name))
            || (field.begins("proxy-") && !field.is("proxy-status"))
            || field.begins("x-exitgate-")
            || field.is("x-exitgate")
            || self.named.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &str) -> Fields<'_> {
        Fields::check(lines.as_bytes()).unwrap()
    }

    #[test]
    fn a_body_has_one_length() {
        let chunked = Some(Body::Chunked(Chunks::default()));
        for (lines, version, want) in [
            ("", Version::Current, Ok(None)),
            ("Content-Length: 0\r\n", Version::Old, Ok(Some(Body::NONE))),
            ("content-LENGTH:  12 \r\n", Version::Current, Ok(Some(Body::Length(12)))),
            ("Transfer-Encoding: Chunked\r\n", Version::Current, Ok(chunked)),
            ("Transfer-Encoding: chunked\r\n", Version::Old, Err(HeadFault::OldCoding)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Version::Current, Err(HeadFault::SecondLength)),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", Version::Current, Err(HeadFault::SecondLength)),
            ("Content-Length: 1, 1\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: +1\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: -1\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: 0x1\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: 1 0\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length:\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: 9999999999999999999\r\n", Version::Current, Err(HeadFault::Length)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Version::Current, Err(HeadFault::LengthAndCoding)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Version::Current, Err(HeadFault::LengthAndCoding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: identity\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Version::Current, Err(HeadFault::Coding)),
            ("Transfer-Encoding:\r\n", Version::Current, Err(HeadFault::Coding)),
        ] {
            assert_eq!(body(&fields(lines), version), want, "{lines:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_as_its_version_says() {
        for (lines, old, current) in [
            ("", false, true),
            ("Connection: close\r\n", false, false),
            ("Connection: keep-alive\r\n", true, true),
            ("Proxy-Connection: Keep-Alive\r\n", true, true),
            ("Connection: keep-alive, Close\r\n", false, false),
            ("Connection: foo\r\nConnection: CLOSE\r\n", false, false),
        ] {
            let options = Options::read(&fields(lines)).unwrap();
            assert_eq!(
                (options.persists(Version::Old), options.persists(Version::Current)),
                (old, current),
                "{lines:?}"
            );
        }
        assert_eq!(Options::read(&fields("Connection: close, Content-Length\r\n")), Err(HeadFault::Stripped));
        assert_eq!(Options::read(&fields("Connection: hOst\r\n")), Err(HeadFault::Stripped));
        assert_eq!(Options::read(&fields("Connection: a b\r\n")), Err(HeadFault::Field));
        for many in ["a,".repeat(33), ",".repeat(LIST_MAX), " ".repeat(LIST_MAX), "x".repeat(LIST_MAX)] {
            assert_eq!(Options::read(&fields(&format!("Connection: {many}\r\n"))), Err(HeadFault::Field));
        }
        assert_eq!(Options::read(&fields(&"Connection: close\r\n".repeat(100))), Err(HeadFault::Field));
    }

    #[test]
    fn fields_of_this_hop_are_not_forwarded() {
        let lines = "Connection: X-Mine, close\r\nX-Mine: 1\r\nx-yours: 1\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
             Keep-Alive: 5\r\nUpgrade: x\r\nProxy-Status: a\r\nX-Exitgate-Exit: forged\r\nX-Exitgate: 1\r\nCookie: c\r\n";
        let all = fields(lines);
        let options = Options::read(&all).unwrap();
        let kept: Vec<_> = all.iter().filter(|field| !options.ends(field)).map(|field| field.name).collect();
        assert_eq!(kept, ["x-yours", "Proxy-Status", "Cookie"]);
    }
}
