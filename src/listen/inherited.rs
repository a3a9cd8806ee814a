//! Listening sockets that the process got from its parent, usually systemd (`LISTEN_FDS`).
//!
//! The parent keeps these sockets open while the gateway restarts. Clients that connect in this time wait in the kernel's
//! queue and are not refused.
//!
//! A socket belongs to the setting with the same address, so the parent needs no names for its sockets. The gateway uses a
//! copy of the descriptor and keeps the original. If it closed the original, it could not listen on this address again,
//! because the socket of the parent still occupies the address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use listenfd::ListenFd;
use socket2::Socket;

use super::Reservation;

/// The listening sockets that the process inherited. Usually there are none.
#[derive(Debug, Default)]
pub struct Inherited(Vec<InheritedSocket>);

#[derive(Debug)]
struct InheritedSocket {
    addr: SocketAddr,
    socket: Socket,
    /// Alive while a reservation or a listener uses this socket.
    user: Mutex<Weak<()>>,
}

/// An inherited descriptor that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("socket {number} of {count} that the process inherited (LISTEN_FDS) cannot be used: {why}")]
pub struct InheritError {
    number: usize,
    count: usize,
    why: String,
}

impl Inherited {
    /// Takes the sockets that `LISTEN_FDS` announces, and removes this variable. Call this function before the process has
    /// a second thread, because a change of the environment is not safe beside other threads.
    pub fn take() -> Result<Self, InheritError> {
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        let mut listeners = Vec::with_capacity(count);
        for index in 0..count {
            let error = |why: String| InheritError { number: index + 1, count, why };
            let listener = passed.take_tcp_listener(index).map_err(|fault| error(fault.to_string()))?;
            listeners.extend(listener);
        }
        Self::from_listeners(listeners)
    }

    /// Makes the sockets usable for the gateway. Fails if one of them does not listen.
    pub fn from_listeners(listeners: Vec<TcpListener>) -> Result<Self, InheritError> {
        let count = listeners.len();
        let adopt = |(index, listener): (usize, TcpListener)| {
            let error = |why: String| InheritError { number: index + 1, count, why };
            InheritedSocket::adopt(listener.into()).map_err(|fault| error(fault.to_string()))
        };
        Ok(Self(listeners.into_iter().enumerate().map(adopt).collect::<Result<_, _>>()?))
    }

    /// Returns the inherited socket with the address `addr`. Returns `None` if there is no such socket. Fails with
    /// `AddrInUse` while another listener of the gateway uses the socket.
    pub fn reserve(&self, addr: SocketAddr) -> Option<io::Result<Reservation>> {
        self.0.iter().find(|inherited| inherited.addr == addr).map(InheritedSocket::reserve)
    }

    /// Returns the address of an inherited socket that has the same port as `addr` but another address.
    pub fn same_port(&self, addr: SocketAddr) -> Option<SocketAddr> {
        self.0.iter().map(|inherited| inherited.addr).find(|other| other.port() == addr.port() && *other != addr)
    }

    /// Returns the addresses of the sockets that nothing uses. Clients that connect to them get no answer.
    pub fn unused(&self) -> Vec<SocketAddr> {
        self.0.iter().filter(|inherited| !inherited.is_used()).map(|inherited| inherited.addr).collect()
    }
}

impl InheritedSocket {
    fn adopt(socket: Socket) -> io::Result<Self> {
        if !socket.is_listener()? {
            return Err(io::Error::other("it does not listen; in a socket unit, leave out Accept=yes"));
        }
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?; // accepted sockets inherit it, as in `bound`
        Ok(Self { addr, socket, user: Mutex::default() })
    }

    fn reserve(&self) -> io::Result<Reservation> {
        let mut user = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        if user.strong_count() > 0 {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = self.socket.try_clone()?;
        let lent = Arc::new(());
        *user = Arc::downgrade(&lent);
        Ok(Reservation { socket, addr: self.addr, lent: Some(lent) })
    }

    fn is_used(&self) -> bool {
        self.user.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }
}

#[cfg(test)]
mod tests;
