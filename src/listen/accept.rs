//! Accepts one connection from the kernel's queue, and decides how to go on after a failure.
//!
//! `accept` has two kinds of errors. Some concern the connection itself (it is gone, or a firewall dropped it), and the next
//! call may succeed. Others concern this process (no descriptor, no memory): the next call fails too, and a loop without a
//! pause would use a whole core just when the machine is short of resources.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The source of connections. A trait, because tests need failures that no kernel produces on demand.
pub(super) trait Acceptor: Send {
    /// Takes a connection if one is there; otherwise the task is woken when one may be.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;
}

impl Acceptor for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, cx)
    }
}

/// The first pause after an accept that failed for lack of a resource. Not tuned: a few tunnels end in that time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause. Not tuned: clients wait longer than this before they give up.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this many failed connections in a row, each failure causes a pause. Not tuned.
const MAX_LOST: u32 = 64;

/// How long to pause after failures in a row.
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    pauses: u32,
    lost: u32,
}

impl AcceptBackoff {
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure. `None`: try again at once; `Some`: pause this long first.
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

/// True of errors of the connection and not of this process; `accept(2)` lists them.
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
