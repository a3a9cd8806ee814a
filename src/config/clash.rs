//! Addresses that are listened on: that there are some, and that no two of them are one.

use std::net::SocketAddr;

use super::finding::{Findings, KeyPath};
use super::keyword::Many;

/// The addresses of one listener.
pub(super) fn addresses(listen: &Many<SocketAddr>, at: &str, findings: &mut Findings) -> Vec<SocketAddr> {
    if listen.0.is_empty() {
        findings.fault(at, "is an empty list", "name an address and port, or leave the key out for the default");
    }
    listen.0.iter().map(|(_, address)| address.0).collect()
}

/// Reports each address that an earlier one of the list already takes.
pub(super) fn report(wanted: &[(KeyPath, SocketAddr)], findings: &mut Findings) {
    for (index, (at, address)) in wanted.iter().enumerate() {
        let Some((earlier, taken)) = wanted[..index].iter().find(|(_, taken)| overlap(*taken, *address)) else {
            continue;
        };
        if findings.is_sound(earlier) {
            let place = findings.whereabouts(earlier);
            let what = format!("asks for {address}, and {earlier}{place} already has {taken}");
            findings.fault(at, what, "give each listener a port of its own");
        }
    }
}

/// True when the second could not be bound beside the first. Port 0 never is in the way, and the two families are kept
/// apart: `0.0.0.0:1080` beside `[::]:1080` is how one listens on both.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && a.is_ipv4() == b.is_ipv4() && covers
}

/// True of an address that only this machine can reach.
pub(super) fn is_local(address: std::net::IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
