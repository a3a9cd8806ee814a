//! Runs the process: start, serve, reload on SIGHUP, drain on SIGTERM or SIGINT, end immediately on a second signal.

use std::path::PathBuf;

use sd_notify::NotifyState;
use tokio::sync::mpsc;

use super::{StartError, files, reload, wire};
use crate::api::ReloadRequest;
use crate::config::Loaded;
use crate::lifecycle::Ended;
use crate::lifecycle::signals::{SignalRequest, Signals};
use crate::listen::Inherited;
use crate::telemetry::{self, Telemetry};

/// How the gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A signal or a request stopped the gateway. This is also the result if open connections had to be cut.
    Stopped,
    /// A second signal ended the gateway immediately. The value is the number of the signal.
    Signal(u8),
    /// The gateway could not start, but a later start may succeed: a port is taken, or tor is missing.
    Unavailable,
    /// This program or the machine failed.
    Broken,
}

/// Runs the gateway until a signal stops it. `asked` is the `--config` of the command line, which a reload reads again.
pub fn serve(loaded: Loaded, asked: Option<PathBuf>) -> End {
    // First of all, because the process must still have one thread.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return failed(&error, End::Unavailable),
    };
    let telemetry = match telemetry::init(&wire::log_settings(&loaded.config.log)) {
        Ok(telemetry) => telemetry,
        Err(error) => return failed(&error, End::Unavailable),
    };
    files::forbid_core_dumps();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, End::Broken),
    };
    let end = runtime.block_on(run(loaded, asked, telemetry, inherited));
    // A task that continues although it was told to end must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    end
}

/// Prints the error to stderr: a person who started the gateway by hand must see the error at every log level.
/// Returns `end`.
#[expect(clippy::print_stderr, reason = "the log may not exist yet, or may hide it")]
fn failed(error: &dyn std::error::Error, end: End) -> End {
    eprintln!("exitgate: {error}");
    end
}

async fn run(loaded: Loaded, asked: Option<PathBuf>, telemetry: Telemetry, inherited: Inherited) -> End {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(&error, End::Broken),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %loaded.origin, "exitgate starts");
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let (reloads, mut asked_reloads) = mpsc::channel::<ReloadRequest>(4);
    let mut running = match wire::build(loaded.config, telemetry, reloads, inherited).await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "exitgate could not start");
            return failed(&error, end(&error));
        }
    };
    notify(&[NotifyState::Ready]);
    loop {
        let answer = tokio::select! {
            request = signals.next() => match request {
                SignalRequest::Stop(_) => break,
                SignalRequest::Reload => None,
            },
            Some(answer) = asked_reloads.recv() => Some(answer),
        };
        let reloading = [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()];
        notify(&reloading.into_iter().flatten().collect::<Vec<_>>());
        let outcome = reload::reload(&mut running, asked.as_deref()).await;
        notify(&[NotifyState::Ready]);
        // The client that requested the reload may have disconnected.
        let _ = answer.map(|answer| answer.send(outcome));
    }
    notify(&[NotifyState::Stopping]);
    stop(running, signals).await
}

async fn stop(running: wire::Running, mut signals: Signals) -> End {
    let crate::config::Lifecycle { drain: grace, drain_delay: delay } = running.config.lifecycle;
    if delay.is_zero() {
        tracing::info!(grace_s = grace.as_secs(), "draining: no new connections; a second signal ends at once");
    } else {
        let (delay_s, grace_s) = (delay.as_secs(), grace.as_secs());
        tracing::info!(delay_s, grace_s, "not ready; the ports close after the delay; a second signal ends at once");
    }
    let mut second = None;
    let ended = running.stop(delay, grace, async { second = Some(signals.stop().await) }).await;
    match (ended, second) {
        (_, Some(signal)) => {
            tracing::warn!("ended at once by a second signal");
            End::Signal(signal)
        }
        (Ended::Drained, None) => {
            tracing::info!("drained");
            End::Stopped
        }
        (Ended::Cut(left), None) => {
            tracing::warn!(left, "the time for draining is over: open connections were cut");
            End::Stopped
        }
    }
}

fn end(error: &StartError) -> End {
    match error {
        StartError::Port(_) | StartError::Secret(_) | StartError::Store(_) | StartError::Tor(_) => End::Unavailable,
        StartError::Other(_) => End::Broken,
    }
}

/// Sends these states to systemd. Does nothing if the process does not run under systemd.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
