//! The judge of public proxies: thousands of strangers, most of them dead, some of them liars.
//!
//! A free proxy is believed in nothing. That it works is shown by an answer that carries our nonce; which address it
//! leaves from by two servers, one of them over TLS, where nobody on the way can speak for it; what it adds by a page
//! that repeats the headers that came; that it lets pages alone by one that is the same for everybody. One that shows
//! certificates of its own, or other pages than everybody else's, is never used again. One that passes has twenty more
//! requests to answer before it counts as reliable.
//!
//! There are many and they are slow, so the judge works on a thread of its own, at a lower priority than those that
//! carry traffic: a pass over twenty thousand is a matter of throughput, a tunnel one of latency.
//!
//! Next: `public/trial.rs` (one test, step by step), `public/queue.rs` (who is next), `public/evaluator.rs` (what others'
//! tests say about one's own), `public/shown.rs` (anonymity), `public/exit_update.rs` (what is kept).

mod evaluator;
mod exit_update;
mod queue;
mod report;
mod settings;
mod shown;
mod tester_state;
mod trial;

use std::io;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

pub use self::settings::Settings;
pub use self::trial::Line;

use self::report::{Job, Report};
use self::tester_state::PublicTesterState;
use super::exit_update::Geo;
use super::tester_state::Checked;
use crate::exit::ExitId;
use crate::lifecycle::{Tasks, yielding};
use crate::state::{Change, State};

/// Checks that people insist on, not yet taken. Arbitrary.
const FORCED: usize = 256;

/// The one message of a running check, which is always sent, also by a check that panics.
enum CheckMessage {
    Found(ExitId, Box<Report>),
    /// It ended without a finding.
    IpVersion(ExitId),
}

/// Tells what became of a check, however it ends.
struct CompletionGuard {
    exit: ExitId,
    found: Option<Box<Report>>,
    news: mpsc::UnboundedSender<CheckMessage>,
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        let exit = self.exit.clone();
        let _ = self.news.send(match self.found.take() {
            Some(report) => CheckMessage::Found(exit, report),
            None => CheckMessage::IpVersion(exit),
        }); // nobody reads it once the worker is gone
    }
}

/// Somebody waits for a check of this exit.
type CheckRequest = (ExitId, oneshot::Sender<Checked>);

/// Asks the judge for a check. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<CheckRequest>);

impl Handle {
    /// Tests a proxy now, ahead of everything else, and waits for the result: by then it is in the snapshot. `None`:
    /// it cannot be tested (it is unknown, on its way out, or bad for good), or the judge is at its end.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        let (answer, checked) = oneshot::channel();
        self.0.send((exit, answer)).await.ok()?;
        checked.await.ok()
    }
}

/// The worker that judges public proxies, one for the whole gateway.
pub struct PublicTester {
    line: Arc<Line>,
    settings: Arc<Settings>,
    state: State,
    geo: Geo,
    give_up: mpsc::Sender<ExitId>,
    /// Held by the run of the moment; the next run takes them over.
    inbox: Mutex<Inbox>,
}

struct Inbox {
    wishes: mpsc::Receiver<ExitId>,
    asked: mpsc::Receiver<CheckRequest>,
}

impl PublicTester {
    /// A judge of the public proxies in `state`, and the handle to ask it by. `wishes` are proxies that failed a live
    /// request, or that one waits for; what has failed too often goes to `give_up`.
    pub fn new(
        line: Line,
        settings: Settings,
        state: State,
        geo: Geo,
        wishes: mpsc::Receiver<ExitId>,
        give_up: mpsc::Sender<ExitId>,
    ) -> (Arc<Self>, Handle) {
        let (ask, asked) = mpsc::channel(FORCED);
        let inbox = Mutex::new(Inbox { wishes, asked });
        let (line, settings) = (Arc::new(line), Arc::new(settings));
        (Arc::new(Self { line, settings, state, geo, give_up, inbox }), Handle(ask))
    }

    /// Starts its thread, which judges until shutdown.
    pub fn start(self: Arc<Self>, tasks: &Tasks) -> io::Result<()> {
        let worker = tasks.clone();
        tasks.background("public-tester", move || self.clone().run(worker.clone()))
    }

    /// Judges until shutdown. A run that dies is followed by another that begins anew.
    pub async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut inbox = self.inbox.lock().await;
        let (post, mut news) = mpsc::unbounded_channel();
        let mut tester = PublicTesterState::new(self.settings.clone(), self.geo.clone());
        let mut revisions = self.state.revisions();
        let mut changed = true;
        while !tasks.is_stopping() {
            let now = self.state.now();
            changed = changed && !tester.look(&self.state.load(), now);
            tester.settle(&self.state.load(), now);
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
                Some(exit) = inbox.wishes.recv() => tester.wish(&exit, self.state.now()),
                Some((exit, answer)) = inbox.asked.recv() => {
                    tester.force(exit, answer, &self.state.load(), self.state.now());
                }
                Ok(()) = revisions.changed() => changed = true,
                () = tokio::time::sleep(wake.since(self.state.now())) => changed = true,
            }
        }
    }

    /// Begins every check that may begin.
    fn begin(&self, tester: &mut PublicTesterState, tasks: &Tasks, post: &mpsc::UnboundedSender<CheckMessage>) {
        let (snapshot, now) = (self.state.load(), self.state.now());
        while let Some(job) = tester.next(&snapshot, now, &mut rand::rng()) {
            self.start_one(job, tasks, post.clone());
            yielding::yield_if_due();
        }
        tester.measure(now);
    }

    fn start_one(&self, job: Job, tasks: &Tasks, news: mpsc::UnboundedSender<CheckMessage>) {
        let (line, settings, stop) = (self.line.clone(), self.settings.clone(), tasks.clone());
        let guard = CompletionGuard { exit: job.subject.id.clone(), found: None, news };
        tasks.spawn("public check", async move {
            let mut guard = guard; // all of it, so that its end is the task's
            tokio::select! {
                () = stop.stopping() => {}
                report = trial::run(&line, &settings, job) => guard.found = Some(Box::new(report)),
            }
        });
    }

    fn read(&self, tester: &mut PublicTesterState, news: CheckMessage) {
        yielding::yield_if_due();
        let now = self.state.now();
        match news {
            CheckMessage::Found(exit, report) => {
                tester.found(&exit, *report, &self.state.load(), now, &mut rand::rng())
            }
            CheckMessage::IpVersion(exit) => tester.over(&exit, now),
        }
    }

    async fn tell(&self, tester: &mut PublicTesterState) {
        let updates = tester.updates(self.state.now());
        if !updates.is_empty()
            && let Err(error) = self.state.apply(Change::ExitUpdates(updates)).await
        {
            tracing::error!(%error, "what checks of public proxies found could not be taken over");
        }
        tester.answer();
        for exit in tester.given_up() {
            let _ = self.give_up.send(exit).await; // the lists are at their end, and so are we
        }
    }
}
