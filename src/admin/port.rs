//! Binds ports. The error says what the user should do.

use std::net::SocketAddr;

use crate::listen::{Listener, Reservation};

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

/// Binds a port without listening on it yet. `what` is the configuration key or route that the error message shows.
pub fn bind(what: &str, addr: SocketAddr) -> Result<Reservation, PortError> {
    Listener::bind(addr).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use by another program (or another exitgate); stop that, or choose another port"
                    .to_owned()
            }
            std::io::ErrorKind::PermissionDenied => {
                "not permitted; choose a port from 1024 on, or give exitgate CAP_NET_BIND_SERVICE".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        PortError { what: what.to_owned(), addr, why }
    })
}
