//! Writes a target in the address format of SOCKS5, for tor's SOCKS port and for public proxies.

use std::net::IpAddr;

use crate::net::Host;

/// Appends the target to `bytes` in SOCKS5's format: address type, address and port.
pub(super) fn push(bytes: &mut Vec<u8>, host: &Host, port: u16) {
    match host {
        Host::Ip(IpAddr::V4(ip)) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        Host::Name(name) => {
            bytes.extend([3, name.len() as u8]); // the length fits into one byte, because a name has at most 253 bytes
            bytes.extend(name.as_bytes());
        }
    }
    bytes.extend(port.to_be_bytes());
}
