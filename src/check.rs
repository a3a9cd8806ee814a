//! The exit tester: probes through an exit, what they came to, and when the next one is due.
//!
//! No exit carries a connection before this room says that it works, and what sites see of it is what this room saw:
//! the address that a relay announces is only a guess. So the tester is on the way of every first connection, and live
//! requests go ahead of its backlog.
//!
//! It is pure but for two things: [`Through`] opens streams ([`ByTor`], or a scripted one in tests), and
//! the worker below moves messages between the running checks, the desk and the state. What it learns is told in
//! batches, because each telling makes a new snapshot.
//!
//! Next: `check/tester_state.rs` (what is due and what came back), `check/round.rs` (one check), `check/verdict.rs` (its verdict),
//! `check/evaluator.rs` (what other exits say of it), `check/site.rs` (sites and bans), `check/tamper_check.rs` (tampering). Public
//! proxies have a tester of their own: `check/public.rs`.

mod by_tor;
pub mod echo;
mod evaluator;
mod exit_update;
pub mod fault;
mod measure;
pub mod probe;
pub mod public;
mod round;
pub mod schedule;
mod settings;
pub mod site;
mod tamper_check;
pub mod target_health;
mod tester_state;
pub mod verdict;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use self::by_tor::ByTor;
pub use self::evaluator::PageHealth;
pub use self::exit_update::{ECHO, Geo};
pub use self::fault::Fault;
pub use self::settings::{BadSettings, CheckedSite, Settings};
pub use self::tester_state::Checked;

use self::round::{Found, Job};
use self::tester_state::TesterState;
use crate::dial::DialError;
use crate::exit::ExitId;
use crate::lifecycle::Tasks;
use crate::net::Target;
use crate::state::{Change, ExitUpdate, State};

/// Checks that people insist on, not yet taken. Arbitrary: more than that is a backlog, and that is the schedule's.
const FORCED: usize = 256;

/// Opens streams through exits.
pub trait Through: Send + Sync + 'static {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// A stream to `target` that leaves from `exit`. The exit has `timeout` for it, from the moment at which there is a
    /// way to it: waiting for our own engines is not its fault, and is bounded by whoever opens.
    fn open(
        &self,
        exit: &ExitId,
        target: &Target,
        timeout: Duration,
    ) -> impl Future<Output = Result<Opened<Self::Stream>, DialError>> + Send;
}

/// A stream that ends at its target, and what that took.
#[derive(Debug)]
pub struct Opened<S> {
    /// The stream.
    pub stream: S,
    /// Waiting for a circuit to the exit, where there are circuits.
    pub circuit: Option<Duration>,
    /// From the request to the open stream.
    pub connect: Duration,
}

/// A message of a running check. The last one is always sent, also by a check that panics.
enum CheckMessage {
    Found(ExitId, Found),
    IpVersion(ExitId),
}

/// Sends [`News::IpVersion`] when a check is over, however it ends.
struct CompletionGuard {
    exit: ExitId,
    news: mpsc::UnboundedSender<CheckMessage>,
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        let _ = self.news.send(CheckMessage::IpVersion(self.exit.clone())); // nobody reads it once the worker is gone
    }
}

/// What people ask for.
enum CheckRequest {
    /// This exit, at once.
    Now(ExitId, oneshot::Sender<Checked>),
    /// All of these, each when its turn comes.
    All(CheckBatch, mpsc::UnboundedSender<(ExitId, Option<Checked>)>),
}

/// Many exits to test, each once.
#[derive(Clone, Debug, Default)]
pub struct CheckBatch {
    /// Which.
    pub exits: Vec<ExitId>,
    /// A page to ask through each that works, this once. What it answers is told, and held against nobody.
    pub extra: Option<Arc<CheckedSite>>,
}

/// Asks the tester for a check. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    ask: mpsc::Sender<CheckRequest>,
    standing: watch::Receiver<Arc<[PageHealth]>>,
}

impl Handle {
    /// Tests an exit now, ahead of everything else, and waits for the result: by then it is in the snapshot. `None`: the
    /// exit cannot be tested (it is unknown, on its way out, or bad for good), or the tester is at its end.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        let (answer, checked) = oneshot::channel();
        self.ask.send(CheckRequest::Now(exit, answer)).await.ok()?;
        checked.await.ok()
    }

    /// Tests all of these, at the tester's own pace, and yields results as they come; `None` for an exit that
    /// cannot be tested. The stream ends after the last one. Nothing is lost if it is dropped before that: the checks
    /// go on, and what was found stands in the snapshot, so that a later pass may leave out what is fresh.
    pub async fn pass(&self, pass: CheckBatch) -> mpsc::UnboundedReceiver<(ExitId, Option<Checked>)> {
        let (results, yielded) = mpsc::unbounded_channel();
        let _ = self.ask.send(CheckRequest::All(pass, results)).await; // a tester at its end yields nothing
        yielded
    }

    /// How every page of the tester fares, as of a second ago at most.
    pub fn standing(&self) -> Arc<[PageHealth]> {
        self.standing.borrow().clone()
    }
}

/// The worker that tests exits, one for the whole gateway.
pub struct Tester<T> {
    through: Arc<T>,
    settings: Arc<Settings>,
    state: State,
    geo: Geo,
    standing: watch::Sender<Arc<[PageHealth]>>,
    /// Held by the run of the moment; the next run takes them over.
    inbox: Mutex<Inbox>,
}

struct Inbox {
    wishes: mpsc::Receiver<ExitId>,
    asked: mpsc::Receiver<CheckRequest>,
}

impl<T: Through> Tester<T> {
    /// A tester of the exits in `state`, and the handle to ask it by. `wishes` are exits that live requests wait for.
    pub fn new(
        through: T,
        settings: Settings,
        state: State,
        geo: Geo,
        wishes: mpsc::Receiver<ExitId>,
    ) -> (Arc<Self>, Handle) {
        let (ask, asked) = mpsc::channel(FORCED);
        let inbox = Mutex::new(Inbox { wishes, asked });
        let (through, settings) = (Arc::new(through), Arc::new(settings));
        let (standing, stands) = watch::channel(Arc::from([]));
        let handle = Handle { ask, standing: stands };
        (Arc::new(Self { through, settings, state, geo, standing, inbox }), handle)
    }

    /// Tests until shutdown. Give it to [`Tasks::supervise`]: a run that dies is followed by another that begins anew.
    pub async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut inbox = self.inbox.lock().await;
        let (post, mut news) = mpsc::unbounded_channel();
        let mut tester = TesterState::new(self.settings.clone(), self.geo.clone());
        let (mut revisions, mut wanted) = (self.state.revisions(), self.state.wanted());
        tester.use_only(&self.state.used(), self.state.now());
        let mut changed = true;
        while !tasks.is_stopping() {
            let now = self.state.now();
            changed = changed && !tester.look(&self.state.load(), now);
            self.begin(&mut tester, &tasks, &post);
            self.tell(&mut tester).await;
            let wake = if changed { tester.wake().min(tester.looks_at()) } else { tester.wake() };
            let inbox = &mut *inbox;
            tokio::select! {
                () = tasks.stopping() => break,
                Some(first) = news.recv() => {
                    self.read(&mut tester, first);
                    while let Ok(more) = news.try_recv() {
                        self.read(&mut tester, more);
                    }
                }
                Some(exit) = inbox.wishes.recv() => tester.wish(&exit, &self.state.load(), self.state.now()),
                Some(asked) = inbox.asked.recv() => tester.ask(asked, &self.state.load(), self.state.now()),
                Ok(()) = revisions.changed() => changed = true,
                Ok(()) = wanted.changed() => tester.use_only(&self.state.used(), self.state.now()),
                () = tokio::time::sleep(wake.since(self.state.now())) => changed = true,
            }
        }
    }

    /// Begins every check that may begin.
    fn begin(&self, tester: &mut TesterState, tasks: &Tasks, post: &mpsc::UnboundedSender<CheckMessage>) {
        let (snapshot, now) = (self.state.load(), self.state.now());
        while let Some(job) = tester.next(&snapshot, now, &mut rand::rng()) {
            self.start(job, tasks, post.clone());
        }
        let (running, waiting) = tester.load(now);
        measure::load(running, waiting);
    }

    fn start(&self, job: Job, tasks: &Tasks, news: mpsc::UnboundedSender<CheckMessage>) {
        let (through, settings, stop) = (self.through.clone(), self.settings.clone(), tasks.clone());
        let guard = CompletionGuard { exit: job.exit.clone(), news };
        tasks.spawn("check", async move {
            let found = |found| _ = guard.news.send(CheckMessage::Found(guard.exit.clone(), found));
            tokio::select! {
                () = stop.stopping() => {}
                () = round::run(&*through, &settings, &job, found) => {}
            }
        });
    }

    fn read(&self, tester: &mut TesterState, news: CheckMessage) {
        let now = self.state.now();
        match news {
            CheckMessage::Found(exit, found) => tester.found(&exit, found, &self.state.load(), now),
            CheckMessage::IpVersion(exit) => tester.over(&exit, now, &mut rand::rng()),
        }
    }

    async fn tell(&self, tester: &mut TesterState) {
        let updates: Vec<ExitUpdate> = tester.updates(self.state.now());
        if !updates.is_empty()
            && let Err(error) = self.state.apply(Change::ExitUpdates(updates)).await
        {
            tracing::error!(%error, "what checks found could not be taken over");
        }
        self.state.announce(tester.events());
        if let Some(standing) = tester.standing(self.state.now()) {
            measure::standing(&standing);
            self.standing.send_replace(standing.into());
        }
        tester.answer();
    }
}

#[cfg(test)]
mod tests;
