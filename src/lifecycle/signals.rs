//! The signals of the process: SIGHUP reloads, SIGTERM and SIGINT drain, a second one ends the process immediately.
//!
//! Next: `app/serve.rs` waits for these signals and acts on them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks the process to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM or SIGINT, with the signal's number: drain, or end immediately if the process drains already.
    Stop(u8),
}

/// The signals that the process handles.
#[derive(Debug)]
pub struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    /// Handled so that it does not kill the process: with `ulimit -f`, a write then fails like on a full disk.
    _too_large: Signal,
}

impl Signals {
    /// Starts to handle the signals.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            _too_large: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.hup.recv() => SignalRequest::Reload,
            _ = self.term.recv() => SignalRequest::Stop(15),
            _ = self.int.recv() => SignalRequest::Stop(2),
        }
    }

    /// Waits for the next signal that stops the process, and returns its number.
    pub async fn stop(&mut self) -> u8 {
        loop {
            if let SignalRequest::Stop(number) = self.next().await {
                return number;
            }
        }
    }
}
