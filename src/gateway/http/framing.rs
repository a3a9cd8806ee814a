//! What requests and answers have in common: how long the body is, whether the connection lives on, and which fields
//! end here.
//!
//! The fields that frame a message are read here and nowhere else, for both directions, because a rule that is strict
//! for requests and lax for answers is a rule that an origin gets round. Hop-by-hop fields are those of RFC 9110,
//! section 7.6.1, those that `Connection` lists, everything that begins with `Proxy-`, and our own `X-Exitgate-`.

use super::body::{Body, Chunks};
use super::head::{Fault, Field, Fields, is_token};

/// The most bytes that all `Connection` fields together may take, and the most members that they may name. Arbitrary,
/// and far beyond what clients send: each member is compared with each field, so this bounds the product.
const LIST_MAX: usize = 1024;
const NAMED_MAX: usize = 32;

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Old,
    /// HTTP/1.1.
    Current,
}

impl Version {
    /// Reads `HTTP/1.x`.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        match text {
            b"HTTP/1.1" => Ok(Self::Current),
            b"HTTP/1.0" => Ok(Self::Old),
            other if other.starts_with(b"HTTP/") => Err(Fault::Version),
            _ => Err(Fault::StartLine),
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "HTTP/1.0",
            Self::Current => "HTTP/1.1",
        }
    }
}

/// The length that the fields give a body; none if they give none.
pub fn body(fields: &Fields<'_>, version: Version) -> Result<Option<Body>, Fault> {
    let mut length = None;
    let mut chunked = false;
    for field in fields.iter() {
        if field.is("content-length") {
            if length.is_some() {
                return Err(Fault::SecondLength);
            }
            length = Some(number(field.value)?);
        } else if field.is("transfer-encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Fault::LengthAndCoding),
        (_, true) if version == Version::Old => Err(Fault::OldCoding),
        (_, true) => Ok(Some(Body::Chunked(Chunks::default()))),
        (length, false) => Ok(length.map(Body::Length)),
    }
}

/// Digits and nothing else, and few enough of them that they fit.
fn number(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || value.len() > 18 {
        return Err(Fault::Length);
    }
    value.iter().try_fold(0, |sum, &digit| match digit {
        b'0'..=b'9' => Ok(sum * 10 + u64::from(digit - b'0')),
        _ => Err(Fault::Length),
    })
}

/// What `Connection` (and the `Proxy-Connection` that some clients send in its place) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options<'b> {
    /// The sender closes after this message.
    pub close: bool,
    /// The sender asks for the connection to live on: the default of HTTP/1.1, said aloud.
    pub keep_alive: bool,
    /// The sender offers another protocol.
    pub upgrade: bool,
    /// Other fields that it names, which are for us then.
    named: Vec<&'b [u8]>,
}

impl<'b> Options<'b> {
    /// Reads them, and refuses a list that would strip what frames or addresses the message.
    pub fn read(fields: &Fields<'b>) -> Result<Self, Fault> {
        let mut options = Self::default();
        let mut length = 0;
        for field in fields.iter().filter(|field| field.is("connection") || field.is("proxy-connection")) {
            length += field.line.len();
            if length > LIST_MAX {
                return Err(Fault::Field);
            }
            for member in field.members() {
                options.member(member)?;
            }
        }
        Ok(options)
    }

    fn member(&mut self, member: &'b [u8]) -> Result<(), Fault> {
        let is = |name: &str| member.eq_ignore_ascii_case(name.as_bytes());
        if is("close") {
            self.close = true;
        } else if is("keep-alive") {
            self.keep_alive = true;
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("host") || is("content-length") || is("transfer-encoding") {
            return Err(Fault::Stripped);
        } else if self.named.len() == NAMED_MAX || !member.iter().all(|&b| is_token(b)) {
            return Err(Fault::Field);
        } else {
            self.named.push(member);
        }
        Ok(())
    }

    /// Whether the sender keeps the connection after this message.
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Current || self.keep_alive)
    }

    /// True of a field that is for us and goes no further.
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
            ("Transfer-Encoding: chunked\r\n", Version::Old, Err(Fault::OldCoding)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Version::Current, Err(Fault::SecondLength)),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", Version::Current, Err(Fault::SecondLength)),
            ("Content-Length: 1, 1\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: +1\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: -1\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: 0x1\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: 1 0\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length:\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: 9999999999999999999\r\n", Version::Current, Err(Fault::Length)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Version::Current, Err(Fault::LengthAndCoding)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Version::Current, Err(Fault::LengthAndCoding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: identity\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Version::Current, Err(Fault::Coding)),
            ("Transfer-Encoding:\r\n", Version::Current, Err(Fault::Coding)),
        ] {
            assert_eq!(body(&fields(lines), version), want, "{lines:?}");
        }
    }

    #[test]
    fn connections_live_on_as_their_version_says() {
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
        assert_eq!(Options::read(&fields("Connection: close, Content-Length\r\n")), Err(Fault::Stripped));
        assert_eq!(Options::read(&fields("Connection: hOst\r\n")), Err(Fault::Stripped));
        assert_eq!(Options::read(&fields("Connection: a b\r\n")), Err(Fault::Field));
        for many in ["a,".repeat(33), ",".repeat(LIST_MAX), " ".repeat(LIST_MAX), "x".repeat(LIST_MAX)] {
            assert_eq!(Options::read(&fields(&format!("Connection: {many}\r\n"))), Err(Fault::Field));
        }
        assert_eq!(Options::read(&fields(&"Connection: close\r\n".repeat(100))), Err(Fault::Field));
    }

    #[test]
    fn what_is_for_us_goes_no_further() {
        let lines = "Connection: X-Mine, close\r\nX-Mine: 1\r\nx-yours: 1\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
             Keep-Alive: 5\r\nUpgrade: x\r\nProxy-Status: a\r\nX-Exitgate-Exit: forged\r\nX-Exitgate: 1\r\nCookie: c\r\n";
        let all = fields(lines);
        let options = Options::read(&all).unwrap();
        let kept: Vec<_> = all.iter().filter(|field| !options.ends(field)).map(|field| field.name).collect();
        assert_eq!(kept, ["x-yours", "Proxy-Status", "Cookie"]);
    }
}
