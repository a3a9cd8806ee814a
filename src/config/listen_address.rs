//! Addresses to listen on. Each listener has at least one address, and no two listeners may use the same address.

use std::net::SocketAddr;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::text_value::OneOrMany;

/// Returns the addresses of one listener. If an address is written twice, that is reported.
pub(super) fn addresses(listen: &OneOrMany<SocketAddr>, at: &str, findings: &mut Findings) -> Vec<SocketAddr> {
    if listen.0.is_empty() {
        findings.fault(at, "is an empty list", "name an address and port, or leave the key out for the default");
    }
    listen.0.iter().map(|(_, address)| address.0).collect()
}

/// Reports each address in `wanted` that conflicts with an earlier one in the list.
pub(super) fn report(wanted: &[(KeyPath, SocketAddr)], findings: &mut Findings) {
    for (index, (at, address)) in wanted.iter().enumerate() {
        let Some((earlier, taken)) = wanted[..index].iter().find(|(_, taken)| overlap(*taken, *address)) else {
            continue;
        };
        if findings.is_sound(earlier) {
            let place = findings.whereabouts(earlier);
            let what = format!("asks for {address}, but {earlier}{place} already uses {taken}");
            findings.fault(at, what, "give each listener a port of its own");
        }
    }
}

/// Returns true if the two addresses cannot be bound at the same time. Port 0 (any free port) never conflicts. IPv4 and
/// IPv6 do not conflict either: `0.0.0.0:1080` and `[::]:1080` can both be bound.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && a.is_ipv4() == b.is_ipv4() && covers
}

/// Returns true if only programs on this machine can reach the address.
pub(super) fn is_local(address: std::net::IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
