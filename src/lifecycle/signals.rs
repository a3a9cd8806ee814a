//! The signals of the process, and what the gateway does on each of them.
//!
//! From the start, before any port is bound, the gateway handles these signals. A signal that arrives while the gateway
//! still starts takes effect when the start is complete. After that `app/serve.rs` waits for the signals, and the
//! gateway does the following steps in this order.
//!
//! SIGHUP, while the gateway runs:
//!
//! 1. The gateway notifies systemd that a reload has begun.
//! 2. The gateway reads the configuration again (`app/reload.rs`). Either all changes are applied, or none if there is
//!    an error. The outcome is logged.
//! 3. The gateway notifies systemd that it is ready again, and waits for the next signal.
//!
//! The first SIGTERM or SIGINT:
//!
//! 1. The gateway notifies systemd that it stops.
//! 2. The gateway closes the listeners, so no new connection is accepted.
//! 3. The gateway lets open connections finish for at most the time `lifecycle.drain` (the grace period).
//! 4. The gateway cuts the connections that are still open after the grace period, and ends all other tasks.
//! 5. The gateway closes the database. The exit code is 0, even if connections were cut.
//!
//! A second SIGTERM or SIGINT during step 3 ends the grace period immediately. Steps 4 and 5 follow, and the exit code
//! is 128 plus the number of the second signal. A SIGHUP after the first SIGTERM or SIGINT has no effect.
//!
//! SIGXFSZ (a file grew beyond the limit of `ulimit -f`) has no effect on the process. The write to the file fails, as
//! on a full disk.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The action that a signal requests from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGHUP: the gateway must read its configuration again.
    Reload,
    /// SIGTERM or SIGINT, with the signal's number: the gateway must drain. If the gateway drains already, it must end
    /// immediately.
    Stop(u8),
}

/// The signals that the process handles.
#[derive(Debug)]
pub struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    /// SIGXFSZ. Without a handler, this signal would kill the process when a file reaches the limit of `ulimit -f`.
    /// With the handler, the write to that file fails like a write to a full disk.
    _too_large: Signal,
}

impl Signals {
    /// Installs the handlers. From now on these signals do not kill the process.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            _too_large: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for the next SIGHUP, SIGTERM or SIGINT.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.hup.recv() => SignalRequest::Reload,
            _ = self.term.recv() => SignalRequest::Stop(15),
            _ = self.int.recv() => SignalRequest::Stop(2),
        }
    }

    /// Waits for the next SIGTERM or SIGINT, and returns its number. A SIGHUP is ignored.
    pub async fn stop(&mut self) -> u8 {
        loop {
            if let SignalRequest::Stop(number) = self.next().await {
                return number;
            }
        }
    }
}
