//! SOCKS as tor speaks it with its clients: versions 4, 4a and 5, and its own RESOLVE. Pure.
//!
//! tor reads what has arrived and keeps one answer at a time: where greeting, name and request come in one piece, the
//! answer to the greeting is lost under the one to the name. That is kept here, because clients were written against it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a client has said so far.
#[derive(Debug, Default)]
pub(super) struct Parser {
    bytes: Vec<u8>,
    stage: Stage,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Greeting,
    Name,
    Request,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Resolve,
    ResolvePtr,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    /// 4 or 5.
    pub(super) version: u8,
    /// What came behind it already.
    pub(super) early: Vec<u8>,
}

/// What came of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More is needed; this is to be answered first.
    More(Vec<u8>),
    /// This is to be answered, and then there is a request.
    Done(Vec<u8>, Request),
    /// This is to be answered, and then the connection is to be closed.
    Refused(Vec<u8>),
}

/// Why a request is none: these user names are reserved for tor's own use.
const RESERVED: &str = "<torS0X>";

impl Parser {
    /// Takes bytes in.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Step {
        self.bytes.extend_from_slice(bytes);
        let mut answer = Vec::new();
        loop {
            let stage = match (self.stage, self.bytes.first()) {
                (_, None) => None,
                (Stage::Greeting, Some(4)) => return self.request4(),
                (Stage::Greeting, Some(5)) => self.greeting(),
                (Stage::Greeting, Some(_)) => return Step::Refused(NOT_SOCKS.to_vec()),
                (Stage::Name, _) => self.name(),
                (Stage::Request, _) => return self.request(answer),
            };
            match stage {
                None => return Step::More(answer),
                Some(Ok(said)) => answer = said,
                Some(Err(said)) => return Step::Refused(said),
            }
        }
    }

    /// The methods on offer; a name is asked for where the client offers to tell one.
    fn greeting(&mut self) -> Option<Result<Vec<u8>, Vec<u8>>> {
        let count = usize::from(*self.bytes.get(1)?);
        let methods = self.bytes.get(2..2 + count)?.to_vec();
        self.bytes.drain(..2 + count);
        Some(match (methods.contains(&2), methods.contains(&0)) {
            (true, _) => {
                self.stage = Stage::Name;
                Ok(vec![5, 2])
            }
            (false, true) => {
                self.stage = Stage::Request;
                Ok(vec![5, 0])
            }
            (false, false) => Err(vec![5, 0xFF]),
        })
    }

    fn name(&mut self) -> Option<Result<Vec<u8>, Vec<u8>>> {
        let length = usize::from(*self.bytes.get(1)?);
        let name = self.bytes.get(2..2 + length)?.to_vec();
        let second = usize::from(*self.bytes.get(2 + length)?);
        let password = self.bytes.get(3 + length..3 + length + second)?.to_vec();
        self.bytes.drain(..3 + length + second);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let name = text(name);
        if name.starts_with(RESERVED) {
            return Some(Err(vec![1, 1]));
        }
        (self.username, self.password) = (Some(name), Some(text(password)));
        self.stage = Stage::Request;
        Some(Ok(vec![1, 0]))
    }

    fn request(&mut self, answer: Vec<u8>) -> Step {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else { return Step::More(answer) };
        let refused = |code: u8| Step::Refused([answer.as_slice(), &reply5(code, None)].concat());
        let command = match head[1] {
            1 => Command::Connect,
            0xF0 => Command::Resolve,
            0xF1 => Command::ResolvePtr,
            _ => return refused(7),
        };
        if head[0] != 5 {
            return Step::Refused(answer);
        }
        let length = match (head[3], rest.first()) {
            (1, _) => 4,
            (4, _) => 16,
            (3, Some(length)) => usize::from(*length) + 1,
            (3, None) => return Step::More(answer),
            _ => return refused(8),
        };
        let (Some(host), Some(port)) = (rest.get(..length), rest.get(length..length + 2)) else {
            return Step::More(answer);
        };
        let host = match head[3] {
            1 => <[u8; 4]>::try_from(host).map(|ip| Ipv4Addr::from(ip).to_string()).unwrap_or_default(),
            4 => <[u8; 16]>::try_from(host).map(|ip| format!("[{}]", Ipv6Addr::from(ip))).unwrap_or_default(),
            _ => String::from_utf8_lossy(&host[1..]).into_owned(),
        };
        let port = u16::from_be_bytes([port[0], port[1]]);
        if host.is_empty() || host.contains(|c: char| c.is_ascii_control() || c == ' ' || !c.is_ascii()) {
            return refused(1);
        }
        let early = rest[length + 2..].to_vec();
        let (username, password) = (self.username.take(), self.password.take());
        Step::Done(answer, Request { command, host, port, username, password, version: 5, early })
    }

    fn request4(&mut self) -> Step {
        let bytes = &self.bytes;
        let more = || Step::More(Vec::new());
        let Some(ip) = bytes.get(4..8) else { return more() };
        let Some(end) = bytes[8..].iter().position(|b| *b == 0) else { return more() };
        let (name, rest) = (&bytes[8..8 + end], &bytes[9 + end..]);
        let by_name = ip[..3] == [0, 0, 0] && ip[3] != 0;
        let (host, early) = match by_name {
            false => (Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).to_string(), rest),
            true => match rest.iter().position(|b| *b == 0) {
                Some(end) => (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 1..]),
                None => return more(),
            },
        };
        let command = match bytes[1] {
            1 => Command::Connect,
            0xF0 => Command::Resolve,
            _ => return Step::Refused(reply4(91)),
        };
        let username = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let early = early.to_vec();
        Step::Done(Vec::new(), Request { command, host, port, username, password: None, version: 4, early })
    }
}

/// What tor answers a browser that takes its port for a web proxy.
const NOT_SOCKS: &[u8] =
    b"HTTP/1.0 501 Tor is not an HTTP Proxy\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n";

impl Request {
    /// The answer of this code, with an address if there is one.
    pub(super) fn reply(&self, code: u8, address: Option<IpAddr>) -> Vec<u8> {
        match self.version {
            4 => reply4(if code == 0 { 90 } else { 91 }),
            _ if code != 0 && self.command != Command::Connect => vec![5, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => reply5(code, address),
        }
    }

    /// A name as the answer to a question for one.
    pub(super) fn reply_name(&self, name: &str) -> Vec<u8> {
        [&[5, 0, 0, 3, name.len() as u8], name.as_bytes(), &[0, 0]].concat()
    }
}

fn reply4(code: u8) -> Vec<u8> {
    vec![0, code, 0, 0, 0, 0, 0, 0]
}

fn reply5(code: u8, address: Option<IpAddr>) -> Vec<u8> {
    let mut reply = vec![5, code, 0];
    match address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        IpAddr::V4(ip) => {
            reply.push(1);
            reply.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            reply.push(4);
            reply.extend(ip.octets());
        }
    }
    reply.extend([0, 0]);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"\x05\x01\x02\x01\x02ab\x01-\x05\x01\x00\x03\x08web.test\x00\x50GET";

    #[test]
    fn in_one_piece_the_answer_to_the_greeting_is_lost_and_in_pieces_it_is_not() {
        let Step::Done(answer, request) = Parser::default().take(WHOLE) else { panic!("no request") };
        assert_eq!((answer, request.host.as_str(), request.port), (vec![1, 0], "web.test", 80));
        assert_eq!((request.username.as_deref(), request.early.as_slice()), (Some("ab"), &b"GET"[..]));
        let mut parser = Parser::default();
        assert_eq!(parser.take(&WHOLE[..3]), Step::More(vec![5, 2]));
        assert_eq!(parser.take(&WHOLE[3..9]), Step::More(vec![1, 0]));
        assert!(matches!(parser.take(&WHOLE[9..]), Step::Done(answer, _) if answer.is_empty()));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (bytes, want) in [
            (&b"GET / HTTP/1.0"[..], NOT_SOCKS.to_vec()),
            (b"\x05\x01\x01", vec![5, 0xFF]),
            (b"\x05\x01\x00\x05\x02\x00\x01\x7f\0\0\x01\0\x50", vec![5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
            (b"\x05\x01\x02\x01\x08<torS0X>\x01-", vec![1, 1]),
        ] {
            assert_eq!(Parser::default().take(bytes), Step::Refused(want));
        }
    }

    #[test]
    fn every_form_of_address_is_read() {
        for (bytes, host) in [
            (&b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01\0\x50"[..], "127.0.0.1"),
            (b"\x05\x01\x00\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50", "[::1]"),
            (b"\x04\x01\0\x50\x7f\0\0\x01me\0", "127.0.0.1"),
            (b"\x04\x01\0\x50\0\0\0\x01me\0a.test\0", "a.test"),
        ] {
            match Parser::default().take(bytes) {
                Step::Done(_, request) => assert_eq!((request.host.as_str(), request.port), (host, 80)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn bytes_in_any_pieces_end_in_the_same_request() {
        for cut in 0..WHOLE.len() {
            let mut parser = Parser::default();
            let step = match parser.take(&WHOLE[..cut]) {
                Step::More(_) => parser.take(&WHOLE[cut..]),
                done => done,
            };
            assert!(matches!(step, Step::Done(_, request) if request.host == "web.test"), "{cut}");
        }
    }
}
