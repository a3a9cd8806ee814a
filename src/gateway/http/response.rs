//! A target's answer: what it says about itself, and how it goes on to the client.
//!
//! The target is a stranger, and its answer passes into a connection that the client will use again for other targets.
//! So an answer whose end could be seen in two places is replaced by a 502: two lengths, a length beside chunks, chunks
//! that were not asked for. What an origin says in `X-Exitgate-…` is dropped, because a client believes those fields.

use super::body::Body;
use super::framing::{self, Options, Version};
use super::head::{Fault, Fields};
use crate::gateway::failure::{AnswerFault, Failure};

/// What the answer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// It was a HEAD: the answer has no body, whatever its fields say.
    pub head: bool,
    /// In which version.
    pub version: Version,
    /// It offered another protocol.
    pub upgrade: bool,
}

/// One answer, as a view of its head.
#[derive(Clone, Debug)]
pub struct Response<'b> {
    /// The status code.
    pub status: u16,
    reason: &'b [u8],
    fields: Fields<'b>,
    options: Options<'b>,
    /// What follows the head.
    pub body: Body,
    /// Whether the target keeps its connection.
    pub persists: bool,
}

/// What a client is told of a target's bad head.
pub fn failure(fault: Fault) -> Failure {
    Failure::Answer(match fault {
        Fault::TooLong | Fault::TooMany => AnswerFault::HeadTooLarge,
        Fault::Coding | Fault::OldCoding => AnswerFault::Coding,
        _ => AnswerFault::Head,
    })
}

impl<'b> Response<'b> {
    /// False of bytes that no answer begins with: something else speaks there, and it may never end a head.
    pub fn may_begin(bytes: &[u8]) -> bool {
        const START: &[u8] = b"HTTP/1.";
        let seen = bytes.len().min(START.len());
        bytes[..seen] == START[..seen]
    }

    /// Reads a whole head, empty line and all.
    pub fn parse(head: &'b [u8], asked: Asked) -> Result<Self, Fault> {
        let lines = head.strip_suffix(b"\r\n").ok_or(Fault::StartLine)?;
        let end = lines.windows(2).position(|pair| pair == b"\r\n").ok_or(Fault::StartLine)?;
        let (line, lines) = (&lines[..end], &lines[end + 2..]);
        let version = Version::parse(line.get(..8).ok_or(Fault::StartLine)?)?;
        let (code, reason) = match &line[8..] {
            [b' ', a, b, c] => ([*a, *b, *c], &[][..]),
            [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(Fault::StartLine),
        };
        let status = status(code)?;
        let fields = Fields::check(lines)?;
        let options = Options::read(&fields)?;
        let framed = framing::body(&fields, version)?;
        if asked.version == Version::Old && matches!(framed, Some(Body::Chunked(_))) {
            return Err(Fault::Coding);
        }
        let bodiless = asked.head || matches!(status, 100..200 | 204 | 304);
        let body = if bodiless { Body::NONE } else { framed.unwrap_or(Body::UntilClose) };
        let persists = options.persists(version) && body != Body::UntilClose;
        Ok(Self { status, reason, fields, options, body, persists })
    }

    /// True of an answer that another one will follow.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Writes the head as the client gets it, up to but without its empty line: ours follows.
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

fn status(code: [u8; 3]) -> Result<u16, Fault> {
    if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return Err(Fault::StartLine);
    }
    Ok(code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::http::body::Chunks;

    const GET: Asked = Asked { head: false, version: Version::Current, upgrade: false };

    fn read(head: &str, asked: Asked) -> Result<(u16, Body, bool), Fault> {
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
    fn what_is_no_answer_is_known_by_its_first_bytes() {
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
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", GET, Fault::SecondLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", GET, Fault::SecondLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", GET, Fault::LengthAndCoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", GET, Fault::Coding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET, Fault::OldCoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old, Fault::Coding),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", GET, Fault::SpaceBeforeColon),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", GET, Fault::Folded),
            ("HTTP/2 200\r\n\r\n", GET, Fault::Version),
            ("HTTP/2.0 200 OK\r\n\r\n", GET, Fault::Version),
            ("HTTP/1.1  200 OK\r\n\r\n", GET, Fault::StartLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", GET, Fault::StartLine),
            ("HTTP/1.1 20 OK\r\n\r\n", GET, Fault::StartLine),
            ("HTTP/1.1 099 OK\r\n\r\n", GET, Fault::StartLine),
            ("HTTP/1.1 +20 OK\r\n\r\n", GET, Fault::StartLine),
            ("ICY 200 OK\r\n\r\n", GET, Fault::StartLine),
            ("\r\n", GET, Fault::StartLine),
        ] {
            assert_eq!(read(text, asked).err(), Some(fault), "{text:?}");
        }
    }

    #[test]
    fn what_a_client_gets_is_clean() {
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
