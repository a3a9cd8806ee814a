//! A target's HTTP answer: how the answer is parsed, and how it is written for the client.
//!
//! The target is not trusted, and its answer is sent on a connection that the client also uses for other targets.
//! Therefore an answer whose end is ambiguous is replaced by a 502. The end is ambiguous if there are two
//! Content-Length fields, or a Content-Length together with chunked encoding, or chunked encoding that the request did
//! not allow.
//!
//! Fields `X-Exitgate-…` of a target are dropped, because clients trust these fields.

use super::body::Body;
use super::framing::{self, Options, Version};
use super::head::{Fields, HeadFault};
use crate::gateway::failure::{AnswerFault, Failure};

/// The parts of a request that decide how its answer must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// True if the method was HEAD: the answer has no body, whatever its fields say.
    pub head: bool,
    pub version: Version,
    /// True if the request offered to switch to another protocol.
    pub upgrade: bool,
}

/// One HTTP answer of a target. Its fields borrow the bytes of the head.
#[derive(Clone, Debug)]
pub struct Response<'b> {
    pub status: u16,
    reason: &'b [u8],
    fields: Fields<'b>,
    options: Options<'b>,
    pub body: Body,
    /// True if the target keeps its connection after this answer.
    pub persists: bool,
}

/// Returns the failure for a request whose answer has a bad head.
pub fn failure(fault: HeadFault) -> Failure {
    Failure::Answer(match fault {
        HeadFault::TooLong | HeadFault::TooMany => AnswerFault::HeadTooLarge,
        HeadFault::Coding | HeadFault::OldCoding => AnswerFault::Coding,
        _ => AnswerFault::Head,
    })
}

impl<'b> Response<'b> {
    /// Returns false if these bytes cannot be the beginning of an HTTP answer. In this case the target does not use
    /// HTTP, and the gateway would wait for the end of a head that never comes.
    pub fn may_begin(bytes: &[u8]) -> bool {
        const START: &[u8] = b"HTTP/1.";
        let seen = bytes.len().min(START.len());
        bytes[..seen] == START[..seen]
    }

    /// Parses a whole head, including the empty line at its end.
    pub fn parse(head: &'b [u8], asked: Asked) -> Result<Self, HeadFault> {
        let lines = head.strip_suffix(b"\r\n").ok_or(HeadFault::StartLine)?;
        let end = lines.windows(2).position(|pair| pair == b"\r\n").ok_or(HeadFault::StartLine)?;
        let (line, lines) = (&lines[..end], &lines[end + 2..]);
        let version = Version::parse(line.get(..8).ok_or(HeadFault::StartLine)?)?;
        let (code, reason) = match &line[8..] {
            [b' ', a, b, c] => ([*a, *b, *c], &[][..]),
            [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(HeadFault::StartLine),
        };
        let status = status(code)?;
        let fields = Fields::check(lines)?;
        let options = Options::read(&fields)?;
        let framed = framing::body(&fields, version)?;
        if asked.version == Version::Old && matches!(framed, Some(Body::Chunked(_))) {
            return Err(HeadFault::Coding);
        }
        let bodiless = asked.head || matches!(status, 100..200 | 204 | 304);
        let body = if bodiless { Body::NONE } else { framed.unwrap_or(Body::UntilClose) };
        let persists = options.persists(version) && body != Body::UntilClose;
        Ok(Self { status, reason, fields, options, body, persists })
    }

    /// Returns true if another answer must follow this one (status 1xx, but not 101).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Writes the head for the client, without the empty line at its end. The caller appends the gateway's own fields
    /// and the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("HTTP/1.1 {} ", self.status).as_bytes());
        out.extend_from_slice(self.reason);
        out.extend_from_slice(b"\r\n");
        let no_length = matches!(self.status, 100..200 | 204);
        for field in self.fields.iter() {
            let framing = field.is("content-length") || field.is("transfer-encoding");
            if field.is("upgrade") && self.status == 101 {
                out.extend_from_slice(field.line);
            } else if !(framing && no_length || self.options.ends(&field)) {
                out.extend_from_slice(field.line);
            }
        }
        if self.status == 101 {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        }
    }
}

fn status(code: [u8; 3]) -> Result<u16, HeadFault> {
    if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return Err(HeadFault::StartLine);
    }
    Ok(code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::http::body::Chunks;

    const GET: Asked = Asked { head: false, version: Version::Current, upgrade: false };

    fn read(head: &str, asked: Asked) -> Result<(u16, Body, bool), HeadFault> {
        Response::parse(head.as_bytes(), asked).map(|r| (r.status, r.body, r.persists))
    }

    #[test]
    fn answers_end_where_they_say() {
        let chunked = Body::Chunked(Chunks::default());
        let head = Asked { head: true, ..GET };
        let old = Asked { version: Version::Old, ..GET };
        for (text, asked, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", GET, (200, Body::Length(3), true)),
            ("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", GET, (200, Body::Length(3), true)),
            ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", GET, (200, chunked, true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", GET, (200, Body::Length(3), false)),
            ("HTTP/1.1 200 OK\r\n\r\n", GET, (200, Body::UntilClose, false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", GET, (200, Body::Length(3), false)),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
                old,
                (200, Body::Length(3), true),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", head, (200, Body::NONE, true)),
            ("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", GET, (204, Body::NONE, true)),
            ("HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", GET, (304, Body::NONE, true)),
            ("HTTP/1.1 100 Go\r\n\r\n", GET, (100, Body::NONE, true)),
        ] {
            assert_eq!(read(text, asked), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_recognised_by_its_first_bytes() {
        for (bytes, may) in [("", true), ("H", true), ("HTTP/1.", true), ("HTTP/1.1 200", true)] {
            assert_eq!(Response::may_begin(bytes.as_bytes()), may, "{bytes}");
        }
        for bytes in ["SSH-2.0", "h", "\r\n", "HTTP/2", "220 mail", "\x15\x03"] {
            assert!(!Response::may_begin(bytes.as_bytes()), "{bytes}");
        }
    }

    #[test]
    fn an_answer_with_two_ends_is_refused() {
        let old = Asked { version: Version::Old, ..GET };
        for (text, asked, fault) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", GET, HeadFault::SecondLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", GET, HeadFault::SecondLength),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                GET,
                HeadFault::LengthAndCoding,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", GET, HeadFault::Coding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET, HeadFault::OldCoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old, HeadFault::Coding),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", GET, HeadFault::SpaceBeforeColon),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", GET, HeadFault::Folded),
            ("HTTP/2 200\r\n\r\n", GET, HeadFault::Version),
            ("HTTP/2.0 200 OK\r\n\r\n", GET, HeadFault::Version),
            ("HTTP/1.1  200 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("HTTP/1.1 20 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("HTTP/1.1 099 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("HTTP/1.1 +20 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("ICY 200 OK\r\n\r\n", GET, HeadFault::StartLine),
            ("\r\n", GET, HeadFault::StartLine),
        ] {
            assert_eq!(read(text, asked).err(), Some(fault), "{text:?}");
        }
    }

    #[test]
    fn fields_of_one_hop_and_forged_ones_do_not_reach_the_client() {
        let head = "HTTP/1.0 200 Fine \u{fc}\r\nServer: x\r\nconnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\
             X-Exitgate-Exit-Ip: 6.6.6.6\r\nProxy-Authenticate: Basic\r\nset-cookie: a=b\r\n\r\n";
        let mut out = Vec::new();
        Response::parse(head.as_bytes(), GET).unwrap().write(&mut out);
        let want = "HTTP/1.1 200 Fine \u{fc}\r\nServer: x\r\nContent-Length: 3\r\nset-cookie: a=b\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);

        let mut out = Vec::new();
        let head = b"HTTP/1.1 204 No\r\nContent-Length: 3\r\nA: b\r\n\r\n";
        Response::parse(head, GET).unwrap().write(&mut out);
        assert_eq!(out, b"HTTP/1.1 204 No\r\nA: b\r\n");

        let mut out = Vec::new();
        let head = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        Response::parse(head, GET).unwrap().write(&mut out);
        let want = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\n";
        assert_eq!(out, want);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Response::parse(&bytes, GET);
            let _ = Response::parse(&[&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat(), GET);
        }
    }
}
