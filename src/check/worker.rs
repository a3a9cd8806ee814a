//! The loop of a tester. It starts checks, collects their findings, publishes the findings, and answers callers.
//!
//! Both testers run this loop: [`Tester`](super::Tester) for Tor exits and
//! [`PublicTester`](super::public::PublicTester) for public proxies. The two differ in two traits. A [`CheckState`]
//! decides, without any I/O, what is due and what a finding means. A [`TesterKind`] runs one check.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tracing::Instrument as _;

use super::results::{Checked, Results};
use super::settings::CheckedSite;
use super::waiting::Waiter;
use crate::exit::{ExitId, Moment};
use crate::lifecycle::{Tasks, yielding};
use crate::route::Memory;
use crate::state::{Change, Snapshot, State};
use crate::telemetry::trace_id::{Kind, TraceId};

/// The least time between two reads of the catalog while the catalog changes all the time. Any value from 0.1 to 2
/// seconds does.
const LOOK: Duration = Duration::from_millis(500);

/// How many requests of callers may wait until the loop reads them. Not tuned: a request for many exits counts as one.
const REQUESTS: usize = 256;

/// How urgent a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A live request waits for this check, or a live request failed through the exit.
    LiveRequest,
    /// A person wants the check now.
    Now,
    /// The check is one of many, and runs in the order of the schedule.
    Soon,
}

/// The state of a tester: which checks are due, which results came back, and which updates must be published. No I/O.
pub(super) trait CheckState: Send {
    /// The description of one check to run.
    type Job: Send + 'static;
    /// The results of a check, or a part of them.
    type Finding: Send + 'static;

    fn exit(job: &Self::Job) -> &ExitId;

    /// Reads a snapshot that has changed.
    fn look(&mut self, snapshot: &Snapshot, now: Moment);

    /// Finds out which exits are wanted. Called after [`Self::look`], and when routes or live requests need other
    /// exits.
    fn demand(&mut self, _snapshot: &Snapshot, _memory: &Memory, _now: Moment) {}

    /// Records whether this gateway reaches the network of the exits. `_up` is true if it does.
    fn set_uplink(&mut self, _up: bool) {}

    /// Makes the check of an exit start sooner. Returns false if the exit cannot be checked.
    fn hasten(&mut self, exit: &ExitId, urgency: Urgency, snapshot: &Snapshot, now: Moment) -> bool;

    /// Returns the next check, if a check may begin now.
    fn next<R: Rng + ?Sized>(&mut self, snapshot: &Snapshot, now: Moment, rng: &mut R) -> Option<Self::Job>;

    fn found(&mut self, exit: &ExitId, finding: Self::Finding, snapshot: &Snapshot, now: Moment);

    /// Records that a check ended, normally or by a panic. Called once for each job, after all findings of that job.
    fn ended<R: Rng + ?Sized>(&mut self, exit: &ExitId, now: Moment, rng: &mut R);

    /// Decides what only the results of several exits can show, for example that a page is down or that an exit tampers.
    /// A decision without enough results waits for the next call.
    fn settle(&mut self, snapshot: &Snapshot, now: Moment);

    /// Called when all updates so far are being published.
    fn publishing(&mut self) {}

    fn results(&mut self) -> &mut Results;

    /// Returns the time at which there is something to do even if no message arrives.
    fn wake(&self) -> Moment;

    /// Sets the metric gauges.
    fn measure(&mut self, now: Moment);

    /// Accepts a request of a caller.
    fn ask(&mut self, request: CheckRequest, snapshot: &Snapshot, now: Moment) {
        let mut wait = |exit: ExitId, urgency, waiter| {
            if self.hasten(&exit, urgency, snapshot, now) {
                self.results().wait(exit, waiter);
            } else {
                self.results().refuse(exit, waiter);
            }
        };
        match request {
            CheckRequest::One(exit, answer) => wait(exit, Urgency::Now, Waiter::One(answer)),
            CheckRequest::Many(CheckBatch { exits, extra }, results) => {
                for exit in exits {
                    wait(exit, Urgency::Soon, Waiter::Many(results.clone(), extra.clone()));
                }
            }
        }
    }

    /// Returns the updates to publish now, if there are any.
    fn updates(&mut self, snapshot: &Snapshot, now: Moment) -> Vec<crate::state::ExitUpdate> {
        if self.results().is_time_to_settle(now) {
            self.settle(snapshot, now);
        }
        let updates = self.results().take(now);
        if !updates.is_empty() {
            self.publishing();
        }
        updates
    }
}

/// Which exits a tester tests, and how one check runs.
pub(super) trait TesterKind: Send + Sync + 'static {
    type State: CheckState;

    /// The name of a task that runs one check.
    const TASK: &'static str;

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

    /// Returns the state of the tester at the start of a run.
    fn new_state(&self) -> Self::State;

    /// Runs one check, and calls `found` with each finding.
    fn check(
        &self,
        job: <Self::State as CheckState>::Job,
        found: impl FnMut(<Self::State as CheckState>::Finding) + Send,
    ) -> impl Future<Output = ()> + Send;

    /// Called each time after the loop has published the collected updates, even if there were none.
    fn published(&self, checks: &mut Self::State, state: &State) -> impl Future<Output = ()> + Send;
}

/// A request to the tester to check exits now. The results go back through the channel of the variant.
pub(super) enum CheckRequest {
    /// Check this exit immediately.
    One(ExitId, oneshot::Sender<Checked>),
    /// Check all these exits, in the order of the schedule.
    Many(CheckBatch, mpsc::UnboundedSender<(ExitId, Option<Checked>)>),
}

/// Many exits to check, each exit once.
#[derive(Clone, Debug, Default)]
pub struct CheckBatch {
    pub exits: Vec<ExitId>,
    /// A page to request once through each exit that works. The result is reported to the caller, and does not change
    /// any verdict.
    pub extra: Option<Arc<CheckedSite>>,
}

/// A handle that sends requests to the loop.
#[derive(Clone, Debug)]
pub(super) struct Requests(mpsc::Sender<CheckRequest>);

impl Requests {
    /// Requests a check of one exit now, and waits for the result. Returns `None` if the exit cannot be checked, or if
    /// the tester has stopped.
    pub(super) async fn one(&self, exit: ExitId) -> Option<Checked> {
        let (answer, checked) = oneshot::channel();
        self.0.send(CheckRequest::One(exit, answer)).await.ok()?;
        checked.await.ok()
    }

    /// Requests checks of all these exits. If the tester has stopped, there are no results.
    pub(super) async fn many(&self, batch: CheckBatch) -> mpsc::UnboundedReceiver<(ExitId, Option<Checked>)> {
        let (results, received) = mpsc::unbounded_channel();
        let _ = self.0.send(CheckRequest::Many(batch, results)).await;
        received
    }
}

/// Waits until the counter grows. If there is no counter, the wait never ends.
async fn changes(counter: Option<&mut watch::Receiver<u64>>) {
    if let Some(counter) = counter
        && counter.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// A message of a running check. `Ended` is always sent, even if the check panics.
enum Message<F> {
    Found(ExitId, F),
    Ended(ExitId),
}

/// Sends [`Message::Ended`] when this guard is dropped together with the task of its check.
struct CompletionGuard<F> {
    exit: ExitId,
    messages: mpsc::UnboundedSender<Message<F>>,
}

impl<F> Drop for CompletionGuard<F> {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Ended(self.exit.clone())); // fails after the loop has ended
    }
}

type Sender<K> = mpsc::UnboundedSender<Message<<<K as TesterKind>::State as CheckState>::Finding>>;

/// A tester: the loop and the values that the loop needs. A gateway has one tester of each kind.
pub struct Worker<K> {
    pub(super) kind: Arc<K>,
    state: State,
    /// The messages that this tester receives. The current run of the tester holds the lock. After a panic, the next
    /// run takes the lock.
    inbox: Mutex<Inbox>,
}

struct Inbox {
    /// Yields the exits for which live requests wait.
    urgent: mpsc::Receiver<ExitId>,
    requests: mpsc::Receiver<CheckRequest>,
}

#[expect(private_bounds, reason = "callers know the two testers, not what they share")]
impl<K: TesterKind> Worker<K> {
    pub(super) fn create(kind: K, state: State, urgent: mpsc::Receiver<ExitId>) -> (Arc<Self>, Requests) {
        let (ask, requests) = mpsc::channel(REQUESTS);
        let inbox = Mutex::new(Inbox { urgent, requests });
        (Arc::new(Self { kind: Arc::new(kind), state, inbox }), Requests(ask))
    }

    /// Tests until shutdown. Pass this function to [`Tasks::supervise`]: if a run panics, a new run starts with a new
    /// state.
    pub async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut inbox = self.inbox.lock().await;
        let (post, mut messages) = mpsc::unbounded_channel();
        let mut checks = self.kind.new_state();
        let (mut revisions, mut wanted) = (self.state.revisions(), self.state.wanted());
        let mut uplink = self.kind.changes();
        let (mut changed, mut looked) = (true, Moment::default());
        while !tasks.is_stopping() {
            let now = self.state.now();
            if changed && now.since(looked) >= LOOK {
                let snapshot = self.state.snapshot();
                checks.look(&snapshot, now);
                checks.demand(&snapshot, self.state.memory(), now);
                (changed, looked) = (false, now);
            }
            checks.set_uplink(self.kind.is_up());
            self.start_checks(&mut checks, &tasks, &post);
            self.publish(&mut checks).await;
            let wake = if changed { checks.wake().min(looked.after(LOOK)) } else { checks.wake() };
            let inbox = &mut *inbox;
            tokio::select! {
                () = tasks.stopping() => break,
                Some(first) = messages.recv() => {
                    self.read(&mut checks, first);
                    while let Ok(more) = messages.try_recv() {
                        self.read(&mut checks, more);
                    }
                }
                Some(exit) = inbox.urgent.recv() => {
                    checks.hasten(&exit, Urgency::LiveRequest, &self.state.load(), self.state.now());
                    changed = true; // the waiting request's username may be new, and may want more exits
                }
                Some(request) = inbox.requests.recv() => checks.ask(request, &self.state.load(), self.state.now()),
                Ok(()) = revisions.changed() => changed = true,
                Ok(()) = wanted.changed() => changed = true,
                () = changes(uplink.as_mut()) => {}
                () = tokio::time::sleep(wake.since(self.state.now())) => changed = true,
            }
        }
    }

    /// Starts every check that may begin.
    fn start_checks(&self, checks: &mut K::State, tasks: &Tasks, post: &Sender<K>) {
        let (snapshot, now) = (self.state.load(), self.state.now());
        while let Some(job) = checks.next(&snapshot, now, &mut rand::rng()) {
            self.start_check(job, tasks, post.clone());
            yielding::yield_if_due();
        }
        checks.measure(now);
    }

    fn start_check(&self, job: <K::State as CheckState>::Job, tasks: &Tasks, messages: Sender<K>) {
        let (kind, stop, exit) = (self.kind.clone(), tasks.clone(), K::State::exit(&job).clone());
        // The span and its id are created only if debug logs of this module are enabled.
        let span = tracing::debug_span!("check", id = %TraceId::next(Kind::Check), %exit);
        let guard = CompletionGuard { exit, messages };
        let check = async move {
            let guard = guard; // moves the whole guard into the task, whose end drops the guard
            let found = |finding| _ = guard.messages.send(Message::Found(guard.exit.clone(), finding));
            tracing::debug!("a check begins");
            tokio::select! {
                () = stop.stopping() => {}
                () = kind.check(job, found) => tracing::debug!("the check has ended"),
            }
        };
        tasks.spawn(K::TASK, check.instrument(span));
    }

    fn read(&self, checks: &mut K::State, message: Message<<K::State as CheckState>::Finding>) {
        yielding::yield_if_due();
        let now = self.state.now();
        match message {
            Message::Found(exit, finding) => checks.found(&exit, finding, &self.state.load(), now),
            Message::Ended(exit) => checks.ended(&exit, now, &mut rand::rng()),
        }
    }

    /// Publishes the collected updates, then answers the callers that waited for them.
    async fn publish(&self, checks: &mut K::State) {
        let updates = checks.updates(&self.state.load(), self.state.now());
        if !updates.is_empty()
            && let Err(error) = self.state.apply(Change::ExitUpdates(updates)).await
        {
            tracing::error!(%error, "the results of checks could not be applied");
        }
        self.kind.published(checks, &self.state).await;
        checks.results().answer();
    }
}
