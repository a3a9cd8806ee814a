//! Binds ports. The error says what the user should do.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::listen::{Inherited, Listener, Reservation};

/// The error for a port that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot listen on {addr}: {why}")]
pub struct PortError {
    /// What needs the port: a configuration key or a route.
    pub what: String,
    pub addr: SocketAddr,
    /// The cause, and what the user should do.
    pub why: String,
}

/// Reserves a port: takes the inherited socket with this address, or else binds the port without listening on it yet.
/// `what` is the configuration key or route that the error message shows.
pub fn bind(what: &str, addr: SocketAddr, inherited: &Inherited) -> Result<Reservation, PortError> {
    inherited.reserve(addr).unwrap_or_else(|| Listener::bind(addr)).map_err(|error| {
        let why = match (error.kind(), inherited.same_port(addr)) {
            (ErrorKind::AddrInUse, Some(other)) => format!(
                "the port is in use; systemd passed a socket for {other}: write the same address into the socket unit \
                 and into the configuration"
            ),
            (ErrorKind::AddrInUse, None) => {
                "the port is in use by another program (or another exitgate); stop that, or choose another port"
                    .to_owned()
            }
            (ErrorKind::PermissionDenied, _) => {
                "not permitted; choose a port from 1024 on, or give exitgate CAP_NET_BIND_SERVICE".to_owned()
            }
            (ErrorKind::AddrNotAvailable, _) => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        PortError { what: what.to_owned(), addr, why }
    })
}
