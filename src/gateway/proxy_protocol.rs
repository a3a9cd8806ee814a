//! The PROXY protocol, versions 1 and 2. With this protocol, a load balancer in front of the gateway sends the client's
//! address.
//!
//! Peers that the configuration lists must send the PROXY header. The header of any other peer is refused, because any
//! client could forge an address in it.
//!
//! The address in the header is used only for counting and limits. Whether a client may connect without a key depends
//! only on the two real addresses of the socket. This module does no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of a version 2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The maximum length of a version 1 header line, in bytes. The specification defines this number.
const LINE_MAX: usize = 107;

/// The maximum length of the body of a version 2 header, in bytes. The addresses take 36 bytes, and the TLVs after them
/// (names of certificates and similar data) take a few hundred. Not tuned.
const BODY_MAX: usize = 1024;

/// The error for a PROXY header that is missing or malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header, or a malformed one")]
pub struct BadHeader;

/// A complete PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the header in bytes.
    pub length: usize,
    /// The client's address. `None` if the peer itself is the client, for example in a health check.
    pub client: Option<SocketAddr>,
}

/// Returns true if these bytes begin a PROXY header.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PROXY ") || bytes.starts_with(SIGNATURE)
}

/// Parses the header at the beginning of a connection. Returns `None` while the header is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => version_1(bytes),
        Some(b'\r') => version_2(bytes),
        Some(_) => Err(BadHeader),
    }
}

/// Parses a header of version 1, for example `PROXY TCP4 192.0.2.1 198.51.100.1 5000 1080\r\n`.
fn version_1(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_MAX && b"PROXY ".starts_with(&bytes[..bytes.len().min(6)]) {
            Ok(None)
        } else {
            Err(BadHeader)
        };
    };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| BadHeader)?;
    let mut words = line.split(' ');
    let client = match (words.next(), words.next()) {
        (Some("PROXY"), Some("UNKNOWN")) => None,
        (Some("PROXY"), Some(family @ ("TCP4" | "TCP6"))) => {
            let (Some(source), Some(_), Some(port), Some(_), None) =
                (words.next(), words.next(), words.next(), words.next(), words.next())
            else {
                return Err(BadHeader);
            };
            let ip: IpAddr = source.parse().map_err(|_| BadHeader)?;
            if ip.is_ipv4() != (family == "TCP4") {
                return Err(BadHeader);
            }
            if !port.bytes().all(|b| b.is_ascii_digit()) {
                return Err(BadHeader);
            }
            Some(SocketAddr::new(ip.to_canonical(), port.parse().map_err(|_| BadHeader)?))
        }
        _ => return Err(BadHeader),
    };
    Ok(Some(Header { length: end + 2, client }))
}

/// Parses a header of version 2. It consists of the signature, a command, an address family, the length of the rest,
/// two addresses, and optional TLVs.
fn version_2(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(BadHeader);
    }
    let Some(&[command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BODY_MAX {
        return Err(BadHeader);
    }
    let Some(body) = bytes.get(16..16 + length) else { return Ok(None) };
    let client = match (command, family) {
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => Some(address(body, 4, |ip: [u8; 4]| Ipv4Addr::from_octets(ip).into())?),
        (0x21, 0x21) => Some(address(body, 16, |ip: [u8; 16]| IpAddr::from(Ipv6Addr::from_octets(ip)).to_canonical())?),
        _ => return Err(BadHeader),
    };
    Ok(Some(Header { length: 16 + length, client }))
}

/// Reads the source address. The body holds two addresses of `width` bytes each, and then two ports.
fn address<const N: usize>(body: &[u8], width: usize, ip: fn([u8; N]) -> IpAddr) -> Result<SocketAddr, BadHeader> {
    let source = body.get(..N).and_then(|ip| ip.try_into().ok()).ok_or(BadHeader)?;
    let Some(&[high, low, _, _]) = body.get(2 * width..2 * width + 4) else { return Err(BadHeader) };
    Ok(SocketAddr::new(ip(source), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    #[test]
    fn a_header_names_the_client() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 4, 56];
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 16], &[0x13, 0x88, 0, 0]].concat();
        let with_tlv = [&v4[..], &[4, 0, 1, 0]].concat();
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 1080\r\n".to_vec(), Some("192.0.2.1:5000")),
            (b"PROXY TCP6 2001:db8::1 ::1 5000 1080\r\n".to_vec(), Some("[2001:db8::1]:5000")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 5000 1080\r\n".to_vec(), Some("192.0.2.1:5000")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.1:5000")),
            (v2(0x21, 0x11, &with_tlv), Some("192.0.2.1:5000")),
            (v2(0x21, 0x21, &mapped), Some("192.0.2.1:5000")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
        ] {
            let header = Header { length: bytes.len(), client: client.map(|text| text.parse().unwrap()) };
            let opening = [&bytes[..], &[5, 1, 0]].concat();
            assert_eq!(parse(&opening), Ok(Some(header)), "{}", bytes.escape_ascii());
            assert!(is_header(&opening));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{} of {}", end, bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX));
        for bytes in [
            &b"\x05\x01\x00"[..],
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 1080 x\r\n",
            b"PROXY TCP4 ::1 ::1 5000 1080\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 99999 1080\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +5 1080\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.1 1 1080\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 1080\r\n",
            b"PROXY\r\n",
            b"\r\n\r\nGET",
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x11, &[0; BODY_MAX + 1]),
            long.as_bytes(),
        ] {
            assert_eq!(parse(bytes), Err(BadHeader), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[&b"PROXY "[..], &bytes].concat());
            let signed = [&SIGNATURE[..], &bytes].concat();
            if let Ok(Some(header)) = parse(&signed) {
                prop_assert!(header.length <= signed.len());
            }
        }
    }
}
