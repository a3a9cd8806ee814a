//! Checks of exits: probes through an exit, what the probes show, and when the next check of the exit is due.
//!
//! No connection uses an exit before a check has found that the exit works. So the first connection through an exit
//! waits for a check. A check for which a live request waits starts before all other checks.
//!
//! A check also records the address of an exit, as servers outside see it. The address that a relay announces may be
//! another one.
//!
//! The code is pure (without I/O) except for two parts. An [`ExitDialer`] opens streams: [`TorExitDialer`],
//! [`UpstreamDialer`], or a simulated dialer in tests. The loop in `check/worker.rs` passes messages between the
//! running checks, the tester's state and [`crate::state`].
//!
//! Next: `check/tester_state.rs` (which checks are due, and which results came back), `check/round.rs` (one check),
//! `check/verdict.rs` (the verdict on one check), `check/evaluator.rs` (verdicts that need the results of other exits),
//! `check/site.rs` (sites and bans), `check/tamper_check.rs` (exits that change pages). Public proxies have a tester of
//! their own, `check/public.rs`, which runs the same loop.

mod addresses;
pub mod condemnation;
mod demand;
mod due_queue;
pub mod echo;
mod echo_server;
mod evaluator;
mod exit_update;
pub mod fault;
mod measure;
mod outage;
mod own_dialer;
pub mod pardon;
pub mod probe;
pub mod public;
mod results;
mod round;
pub mod schedule;
mod settings;
pub mod site;
mod tamper_check;
pub mod target_health;
mod tester_state;
mod tor_dialer;
mod upstream_dialer;
pub mod verdict;
mod waiting;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use self::evaluator::PageHealth;
pub use self::exit_update::{ECHO, Geo};
pub use self::fault::Fault;
pub use self::own_dialer::OwnAddressDialer;
pub use self::results::Checked;
pub use self::settings::{BadSettings, CheckedSite, Settings, Tested};
pub use self::tor_dialer::TorExitDialer;
pub use self::upstream_dialer::UpstreamDialer;
pub use self::worker::CheckBatch;

use self::round::{Finding, Job};
use self::tester_state::TesterState;
use self::worker::{Requests, TesterKind, Worker};
use crate::dial::DialError;
use crate::exit::ExitId;
use crate::net::Target;
use crate::state::State;

/// Opens streams through exits.
pub trait ExitDialer: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Opens a stream to `target` that leaves from `exit`.
    fn open(
        &self,
        exit: &ExitId,
        target: &Target,
        wait: Wait,
    ) -> impl Future<Output = Result<OpenedStream<Self::Stream>, DialError>> + Send;

    /// Returns true if anything between this machine and the exits has answered after the time `since`. While nothing
    /// answers, a silent exit does not count as bad.
    fn first_hop_answered(&self, since: Instant) -> bool;

    /// Returns false while no part of this gateway reaches the network of the exits. A check would then show nothing
    /// about its exit.
    fn is_up(&self) -> bool {
        true
    }

    /// Returns a counter that grows when the result of [`Self::is_up`] may have changed. `None` if that result never
    /// changes.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// How long a check waits for a stream, and who waits for the check.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The longest time that the exit may take, counted from the moment at which a circuit to the exit is ready. The
    /// time that our own engines need for the circuit is not counted, and each [`ExitDialer`] limits that time itself.
    pub timeout: Duration,
    /// True if a client waits for the result of the check. Its circuit is then built before those of other checks.
    pub awaited: bool,
}

/// A stream to a target through an exit, and how long the opening of this stream took.
#[derive(Debug)]
pub struct OpenedStream<S> {
    pub stream: S,
    /// How long the stream waited for a circuit to the exit. `None` for exits that need no circuit.
    pub circuit: Option<Duration>,
    /// The time from the request for the stream until the stream was open.
    pub connect: Duration,
}

/// A handle to request checks from the tester. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: Requests,
    page_health: watch::Receiver<Arc<[PageHealth]>>,
}

impl Handle {
    /// Checks an exit now, before all other checks, and waits for the result. When this returns, the published snapshot
    /// of the state contains the result too. Returns `None` if the exit cannot be checked (it is unknown, has left its
    /// source, or is condemned), or if the tester has stopped.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        self.requests.one(exit).await
    }

    /// Checks all exits of the batch, in the order of the schedule. Returns a channel that yields each result as soon
    /// as it is known, and `None` for an exit that cannot be checked. The channel ends after the last result. If the
    /// caller drops the channel earlier, the checks continue, and their results appear in the snapshot of the state.
    pub async fn pass(&self, batch: CheckBatch) -> mpsc::UnboundedReceiver<(ExitId, Option<Checked>)> {
        self.requests.many(batch).await
    }

    /// Returns the health of every page that checks request through exits. The data is at most one second old.
    pub fn page_health(&self) -> Arc<[PageHealth]> {
        self.page_health.borrow().clone()
    }
}

/// The tester of Tor exits, of own addresses, or of exits of upstream sources. [`Tested`] says of which. There is at most
/// one of each.
pub type Tester<D> = Worker<DialedExits<D>>;

/// How exits are tested to which an [`ExitDialer`] opens streams.
pub struct DialedExits<D> {
    dialer: D,
    settings: Arc<Settings>,
    geo: Geo,
    page_health: watch::Sender<Arc<[PageHealth]>>,
}

impl<D: ExitDialer> Worker<DialedExits<D>> {
    /// Returns a tester of the exits in `state`, and the handle to request checks from it. `urgent` yields exits for
    /// which live requests wait.
    pub fn new(
        dialer: D,
        settings: Settings,
        state: State,
        geo: Geo,
        urgent: mpsc::Receiver<ExitId>,
    ) -> (Arc<Self>, Handle) {
        let (page_health, received) = watch::channel(Arc::from([]));
        let kind = DialedExits { dialer, settings: Arc::new(settings), geo, page_health };
        let (tester, requests) = Self::create(kind, state, urgent);
        (tester, Handle { requests, page_health: received })
    }
}

impl<D: ExitDialer> TesterKind for DialedExits<D> {
    type State = TesterState;
    const TASK: &'static str = "check";

    fn new_state(&self) -> TesterState {
        TesterState::new(self.settings.clone(), self.geo.clone())
    }

    async fn check(&self, job: Job, found: impl FnMut(Finding) + Send) {
        round::run(&self.dialer, &self.settings, &job, found).await;
    }

    fn is_up(&self) -> bool {
        self.dialer.is_up()
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.dialer.changes()
    }

    async fn published(&self, checks: &mut TesterState, state: &State) {
        state.announce(checks.events());
        if let Some(health) = checks.page_health(state.now()) {
            if self.settings.tested == Tested::Tor {
                measure::page_health(&health);
            }
            self.page_health.send_replace(health.into());
        }
    }
}

#[cfg(test)]
mod tests;
