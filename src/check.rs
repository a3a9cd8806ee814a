//! Checks of exits: probes through an exit, what they show, and when the next check is due.
//!
//! No connection uses an exit before this room has found that it works. What sites see of an exit is what this room
//! observed: the address that a relay announces may be another. So the first connection through an exit waits for a
//! check, and checks that live requests wait for go ahead of all others.
//!
//! The code is pure except for two things: an [`ExitDialer`] opens streams ([`TorExitDialer`], or a scripted one in
//! tests), and the loop in `check/worker.rs` moves messages between the running checks, the tester's state and
//! [`crate::state`].
//!
//! Next: `check/tester_state.rs` (what is due and what came back), `check/round.rs` (one check), `check/verdict.rs` (the
//! verdict on one check), `check/evaluator.rs` (verdicts that need the results of other exits), `check/site.rs` (sites
//! and bans), `check/tamper_check.rs` (exits that change pages). Public proxies have a tester of their own,
//! `check/public.rs`, which runs the same loop.

mod due_queue;
pub mod echo;
mod evaluator;
mod exit_update;
pub mod fault;
mod measure;
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
pub mod verdict;
mod waiting;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

pub use self::evaluator::PageHealth;
pub use self::exit_update::{ECHO, Geo};
pub use self::fault::Fault;
pub use self::results::Checked;
pub use self::settings::{BadSettings, CheckedSite, Settings};
pub use self::tor_dialer::TorExitDialer;
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

    /// Opens a stream to `target` that leaves from `exit`. The exit has `timeout` for it, counted from the moment at
    /// which a circuit to the exit is there: the time that our own engines need is not counted, and implementations
    /// limit it themselves.
    fn open(
        &self,
        exit: &ExitId,
        target: &Target,
        timeout: Duration,
    ) -> impl Future<Output = Result<OpenedStream<Self::Stream>, DialError>> + Send;
}

/// A stream that ends at its target, and how long opening it took.
#[derive(Debug)]
pub struct OpenedStream<S> {
    pub stream: S,
    /// Waiting for a circuit to the exit, where there are circuits.
    pub circuit: Option<Duration>,
    /// From the request to the open stream.
    pub connect: Duration,
}

/// Asks the tester for checks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: Requests,
    page_health: watch::Receiver<Arc<[PageHealth]>>,
}

impl Handle {
    /// Checks an exit now, ahead of everything else, and waits for the result: by then it is in the snapshot. `None` if
    /// the exit cannot be checked (it is unknown, has left its source, or is condemned), or if the tester has stopped.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        self.requests.one(exit).await
    }

    /// Checks all of these, in the order of the schedule, and yields results as they come; `None` for an exit that
    /// cannot be checked. The stream ends after the last one. Dropping it earlier stops no check: what they find is in
    /// the snapshot, so a later pass may leave out exits with a recent result.
    pub async fn pass(&self, batch: CheckBatch) -> mpsc::UnboundedReceiver<(ExitId, Option<Checked>)> {
        self.requests.many(batch).await
    }

    /// The health of every page that exits are asked to fetch, at most a second old.
    pub fn page_health(&self) -> Arc<[PageHealth]> {
        self.page_health.borrow().clone()
    }
}

/// The tester of Tor exits, one for the whole gateway.
pub type Tester<D> = Worker<TorExits<D>>;

/// How Tor exits are tested.
pub struct TorExits<D> {
    dialer: D,
    settings: Arc<Settings>,
    geo: Geo,
    page_health: watch::Sender<Arc<[PageHealth]>>,
}

impl<D: ExitDialer> Worker<TorExits<D>> {
    /// A tester of the exits in `state`, and the handle to ask it by. `urgent` yields exits that live requests wait for.
    pub fn new(
        dialer: D,
        settings: Settings,
        state: State,
        geo: Geo,
        urgent: mpsc::Receiver<ExitId>,
    ) -> (Arc<Self>, Handle) {
        let (page_health, received) = watch::channel(Arc::from([]));
        let kind = TorExits { dialer, settings: Arc::new(settings), geo, page_health };
        let (tester, requests) = Self::create(kind, state, urgent);
        (tester, Handle { requests, page_health: received })
    }
}

impl<D: ExitDialer> TesterKind for TorExits<D> {
    type State = TesterState;
    const TASK: &'static str = "check";

    fn new_state(&self) -> TesterState {
        TesterState::new(self.settings.clone(), self.geo.clone())
    }

    async fn check(&self, job: Job, found: impl FnMut(Finding) + Send) {
        round::run(&self.dialer, &self.settings, &job, found).await;
    }

    async fn published(&self, checks: &mut TesterState, state: &State) {
        state.announce(checks.events());
        if let Some(health) = checks.page_health(state.now()) {
            measure::page_health(&health);
            self.page_health.send_replace(health.into());
        }
    }
}

#[cfg(test)]
mod tests;
