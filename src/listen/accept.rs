//! Accepts one connection from the kernel's queue, and decides what the loop does after a failure.
//!
//! The system call `accept` has two kinds of errors. Errors of the first kind concern only the connection (it is gone,
//! or a firewall dropped it), and the next call may succeed. Errors of the second kind concern this process (it lacks
//! file descriptors or memory), and the next call fails too. Without a pause, the loop would then use a whole CPU core
//! while the machine is short of resources.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// A source of connections. It is a trait because tests need failures that no kernel produces on demand.
pub(super) trait Acceptor: Send {
    /// Takes a connection if one is waiting. Otherwise returns `Pending`, and the task is woken when a connection may
    /// be waiting.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;
}

impl Acceptor for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, cx)
    }
}

/// The first pause after an accept that failed because a resource was missing. Meanwhile some tunnels end and free
/// resources. Not tuned.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause after failed accepts. Clients wait longer than this time before they give up. Not tuned.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The number of lost connections in a row after which every further failure of an accept causes a pause. Not tuned.
const MAX_LOST: u32 = 64;

/// Computes how long the loop pauses after several failures in a row.
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    pauses: u32,
    lost: u32,
}

impl AcceptBackoff {
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts a failed accept. The result is the time to pause before the next try. `None` means that the loop tries
    /// again immediately.
    pub(super) fn failed(&mut self, fault: &io::Error) -> Option<Duration> {
        if concerns_the_connection(fault) && self.lost < MAX_LOST {
            self.lost += 1;
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses += 1;
        Some(pause)
    }
}

/// Returns true if the error concerns only the connection and not this process. `accept(2)` lists such errors.
fn concerns_the_connection(fault: &io::Error) -> bool {
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
    fn only_a_lack_of_resources_causes_a_pause() {
        for code in [libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::EPERM, libc::ENETDOWN, libc::EHOSTUNREACH] {
            assert_eq!(AcceptBackoff::default().failed(&os(code)), None, "{}", os(code));
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL, libc::EBADF] {
            assert_eq!(AcceptBackoff::default().failed(&os(code)), Some(FIRST_PAUSE), "{}", os(code));
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_a_success() {
        let mut backoff = AcceptBackoff::default();
        let pauses: Vec<Duration> = (0..40).filter_map(|_| backoff.failed(&os(libc::EMFILE))).collect();
        assert_eq!(pauses.len(), 40);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[39], LONGEST_PAUSE);
        backoff.succeeded();
        assert_eq!(backoff.failed(&os(libc::EMFILE)), Some(FIRST_PAUSE));
    }

    #[test]
    fn many_failed_connections_in_a_row_cause_a_pause() {
        let mut backoff = AcceptBackoff::default();
        let pauses = (0..MAX_LOST + 1).filter_map(|_| backoff.failed(&os(libc::ECONNABORTED))).count();
        assert_eq!(pauses, 1);
    }
}
