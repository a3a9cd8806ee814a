//! The SOCKS5 protocol between a dial and an engine's SOCKS port. Pure: no I/O.
//!
//! The dial sends greeting, username and request in one write. tor 0.4.9 then answers only the username and the
//! request: tor keeps one answer at a time, so the answer to the greeting is lost. If the three arrive at tor in
//! pieces, tor sends all three answers. This parser accepts both cases. It tells them apart by the first byte: an
//! answer to the greeting begins with 5, an answer to the username with 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dial::socks_address;
use crate::net::{Host, Target};

/// The largest number of bytes that [`Handshake::wants`] returns: the length byte, a host name of 255 bytes and a port.
pub(super) const LONGEST: usize = 1 + 255 + 2;

/// A request to tor's SOCKS port.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Connect(&'a Target),
    Resolve(&'a Host),
    ResolvePtr(IpAddr),
}

/// tor's reply to a SOCKS request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Success, with the address in the reply. For the command RESOLVE this address is the result.
    Yes(Host),
    /// Refusal, with its SOCKS reply code.
    No(u8),
}

/// Error: the bytes from tor are not a SOCKS5 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// Writes greeting, username and request, followed by early data for the target.
pub(super) fn request(username: &str, ask: &Ask<'_>, early: &[u8]) -> Vec<u8> {
    let (command, host, port) = match ask {
        Ask::Connect(target) => (1, target.host.clone(), target.port),
        Ask::Resolve(name) => (0xF0, (*name).clone(), 0),
        Ask::ResolvePtr(addr) => (0xF1, Host::from(*addr), 0),
    };
    let mut bytes = Vec::with_capacity(LONGEST + username.len() + 16 + early.len());
    bytes.extend([5, 1, 2]);
    bytes.extend([1, username.len() as u8]); // the length fits into one byte, because our usernames have 17 bytes
    bytes.extend(username.as_bytes());
    bytes.extend([1, b'-']); // tor requires a password of at least one byte
    bytes.extend([5, command, 0]);
    socks_address::push(&mut bytes, &host, port);
    bytes.extend(early);
    bytes
}

/// The part of tor's answers that the parser reads next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The answer to the greeting or, if tor skips that answer, to the username.
    #[default]
    First,
    /// The answer to the username.
    Name,
    /// The first four bytes of the answer to the request.
    Head,
    /// The length of the host name in the answer to the request.
    Length,
    /// The rest of the answer to the request: an address or a host name, and a port.
    Rest { kind: u8, length: usize },
}

/// A parser that reads tor's answers piece by piece. It never reads a byte of the stream after the answers.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    stage: Stage,
}

impl Handshake {
    /// Returns the number of bytes that the caller must read next.
    pub(super) fn wants(&self) -> usize {
        match self.stage {
            Stage::First | Stage::Name => 2,
            Stage::Head => 4,
            Stage::Length => 1,
            Stage::Rest { length, .. } => length + 2,
        }
    }

    /// Parses the next bytes. `bytes` must have exactly the length that [`Self::wants`] returned.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Garbage> {
        self.stage = match (self.stage, bytes) {
            (Stage::First, [5, 2]) => Stage::Name,
            (Stage::First | Stage::Name, [1, 0]) => Stage::Head,
            // The rest of a refusal is not needed, and tor leaves out the address type when a name does not resolve.
            (Stage::Head, &[5, code, _, _]) if code != 0 => return Ok(Some(Answer::No(code))),
            (Stage::Head, [5, 0, _, 1]) => Stage::Rest { kind: 1, length: 4 },
            (Stage::Head, [5, 0, _, 4]) => Stage::Rest { kind: 4, length: 16 },
            (Stage::Head, [5, 0, _, 3]) => Stage::Length,
            (Stage::Length, &[length]) => Stage::Rest { kind: 3, length: length.into() },
            (Stage::Rest { kind, length }, _) => {
                return host(kind, &bytes[..length.min(bytes.len())])
                    .map(|host| Some(Answer::Yes(host)))
                    .ok_or(Garbage);
            }
            _ => return Err(Garbage),
        };
        Ok(None)
    }
}

fn host(kind: u8, bytes: &[u8]) -> Option<Host> {
    match kind {
        1 => Some(Host::from(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)))),
        4 => Some(Host::from(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)))),
        _ => Host::parse(std::str::from_utf8(bytes).ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut bytes: &[u8]) -> Result<(Answer, usize), Garbage> {
        let mut handshake = Handshake::default();
        loop {
            let (piece, rest) = bytes.split_at_checked(handshake.wants()).ok_or(Garbage)?;
            bytes = rest;
            if let Some(answer) = handshake.take(piece)? {
                return Ok((answer, rest.len()));
            }
        }
    }

    #[test]
    fn the_answer_to_the_greeting_may_be_missing() {
        let yes = |host: &str| Ok((Answer::Yes(Host::parse(host).unwrap()), 0));
        for (bytes, want) in [
            (&b"\x01\x00\x05\x00\x00\x01\x7f\x58\x51\x01\x00\x00"[..], yes("127.88.81.1")),
            (b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x58\x51\x01\x00\x00", yes("127.88.81.1")),
            (b"\x01\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0", yes("::1")),
            (b"\x01\x00\x05\x00\x00\x03\x08web.test\0\0", yes("web.test")),
            (b"\x01\x00\x05\x05\x00\x01\0\0\0\0\0\0", Ok((Answer::No(5), 6))),
            (b"\x01\x00\x05\xf0\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Ok((Answer::No(0xf0), 18))),
            (b"\x01\x00\x05\x04\x00\x00\0\0\0\0\0\0", Ok((Answer::No(4), 6))),
            (b"\x05\xff", Err(Garbage)),
            (b"\x01\x01", Err(Garbage)),
            (b"\x05\x02\x05\x02", Err(Garbage)),
            (b"\x01\x00\x04\x00\x00\x01\0\0\0\0\0\0", Err(Garbage)),
            (b"\x01\x00\x05\x00\x00\x03\x02a\n\0\0", Err(Garbage)),
        ] {
            assert_eq!(read(bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_behind_the_answer_are_not_read() {
        let bytes = b"\x01\x00\x05\x00\x00\x01\0\0\0\0\0\0HTTP/1.1";
        assert_eq!(read(bytes).map(|(_, left)| left), Ok(8));
    }

    #[test]
    fn a_request_is_greeting_username_request_and_early_data() {
        let target: Target = "web.test:80".parse().unwrap();
        let want = b"\x05\x01\x02\x01\x02ab\x01-\x05\x01\x00\x03\x08web.test\x00\x50GET";
        assert_eq!(request("ab", &Ask::Connect(&target), b"GET"), want);
        let v6: Target = "[::1]:80".parse().unwrap();
        assert!(
            request("a", &Ask::Connect(&v6), b"").ends_with(b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0P")
        );
        assert!(
            request("a", &Ask::ResolvePtr([1, 2, 3, 4].into()), b"").ends_with(b"\x05\xf1\x00\x01\x01\x02\x03\x04\0\0")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_ask_for_too_much(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..6], 0..300)) {
            let (mut handshake, mut rest) = (Handshake::default(), &bytes[..]);
            while let Some((piece, behind)) = rest.split_at_checked(handshake.wants()) {
                prop_assert!((1..=LONGEST).contains(&piece.len()));
                rest = behind;
                if !matches!(handshake.take(piece), Ok(None)) {
                    break;
                }
            }
        }
    }
}
