//! Taking one connection off the kernel's queue, and what to do when that fails.
//!
//! `accept` reports two kinds of failure by one channel. Some are about the connection that was to be accepted (it is
//! gone, or a firewall disliked it) and the next call may well succeed. Some are about us (no descriptor, no memory):
//! the next call fails as well, and a loop that simply tries again burns a core exactly when the machine is short.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Where connections come from. A trait, so that a test can make it fail as no kernel does on demand.
pub(super) trait Acceptor: Send {
    /// Takes a connection if one is there; otherwise the task is woken when one may be.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;
}

impl Acceptor for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, cx)
    }
}

/// First rest after an accept that failed for lack of something. Arbitrary: some tunnels end in that time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest rest. Arbitrary: a client that waits this long in the queue is late, and not lost.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// This many connections in a row that die in the queue are not bad luck any more. Arbitrary.
const BAD_LUCK: u32 = 64;

/// How fast to try again: remembers what failed lately.
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    pauses: u32,
    lost: u32,
}

impl AcceptBackoff {
    /// A connection was accepted: all is forgotten.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// An accept failed: `None` = try the next at once, `Some` = rest this long first.
    pub(super) fn failed(&mut self, fault: &io::Error) -> Option<Duration> {
        if only_that_connection(fault) && self.lost < BAD_LUCK {
            self.lost += 1;
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses += 1;
        Some(pause)
    }
}

/// True of failures that belong to the connection and not to us: `accept(2)` passes on what happened to it.
fn only_that_connection(fault: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        fault.kind(),
        ConnectionAborted
            | ConnectionReset
            | Interrupted
            | PermissionDenied
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | TimedOut
    ) || matches!(fault.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn a_lost_connection_costs_no_time_and_a_lost_resource_does() {
        for code in [libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::EPERM, libc::ENETDOWN, libc::EHOSTUNREACH] {
            assert_eq!(AcceptBackoff::default().failed(&os(code)), None, "{}", os(code));
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL, libc::EBADF] {
            assert_eq!(AcceptBackoff::default().failed(&os(code)), Some(FIRST_PAUSE), "{}", os(code));
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_forgotten_on_success() {
        let mut backoff = AcceptBackoff::default();
        let pauses: Vec<Duration> = (0..40).filter_map(|_| backoff.failed(&os(libc::EMFILE))).collect();
        assert_eq!(pauses.len(), 40);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[39], LONGEST_PAUSE);
        backoff.succeeded();
        assert_eq!(backoff.failed(&os(libc::EMFILE)), Some(FIRST_PAUSE));
    }

    #[test]
    fn connections_that_only_ever_die_do_not_spin() {
        let mut backoff = AcceptBackoff::default();
        let pauses = (0..BAD_LUCK + 1).filter_map(|_| backoff.failed(&os(libc::ECONNABORTED))).count();
        assert_eq!(pauses, 1);
    }
}
