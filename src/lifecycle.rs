//! Running → draining → killing: the one tree of tasks, and the only room that spawns.
//!
//! A gateway that is told to stop must stop *taking* work at once and *finish* work for a while. Those are two
//! signals, so there are two tokens: [`Tasks::stopping`] (no new work: listeners close, workers leave their loop) and
//! [`Tasks::killed`] (the grace is over: tunnels end where they are). Everything that runs is spawned here and tracked,
//! because a task that nobody tracks is a connection that shutdown does not wait for, and hyper does not watch the
//! connections that it has upgraded.
//!
//! A panic is a bug and is counted, but it ends one connection or one run of a worker, never the gateway:
//! [`Tasks::spawn`] contains it, [`Tasks::supervise`] starts the worker again after a pause.
//!
//! Next: [`crate::app`] builds the tree; `main.rs` turns signals into [`Lifecycle::stop`]; a [`Cut`] ends one connection.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod cut;
pub mod yielding;

pub use cut::Cut;

/// How long a worker rests before it starts again after a panic or an early return. Arbitrary: long enough that a
/// worker which dies at once does not spin, short enough that nobody notices a single death.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How much a thread aside yields to those that carry traffic: half way down the kernel's scale.
const NICE: i32 = 10;

/// How long killed tasks have to notice. They only drop sockets, so a second is plenty; whatever is left is reported.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// A handle on the tree of tasks: cheap to clone, given to whatever must spawn or must know when to stop.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Tree>);

#[derive(Debug, Default)]
struct Tree {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    panics: AtomicU64,
}

impl Tasks {
    /// Runs `work` as a task of its own. A panic in it is logged, counted and ends there.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn(Contained { name, tree: self.0.clone(), work });
    }

    /// Runs a worker until shutdown: `make` makes one run of it, and a run that panics or returns is followed by
    /// another after a pause. A worker leaves its loop by itself when [`Tasks::stopping`] resolves.
    pub fn supervise<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.spawn(name, async move {
            while !tasks.is_stopping() {
                Contained { name, tree: tasks.0.clone(), work: make() }.await;
                tokio::select! {
                    () = tasks.stopping() => {}
                    () = tokio::time::sleep(RESTART_PAUSE) => {}
                }
            }
        });
    }

    /// Runs a worker as [`Tasks::supervise`] does, on a thread and a runtime of its own, and at a lower priority than all
    /// that carries traffic: what is a matter of throughput must not cost what is one of latency. See [`turn`].
    pub fn background<F>(&self, name: &'static str, make: impl FnMut() -> F + Send + 'static) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = self.clone();
        let work = move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "{name} works at everybody's priority");
            }
            yielding::mark_background();
            runtime.block_on(async move {
                tasks.supervise(name, make);
                tasks.killed().await;
            });
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Resolves once no new work may be taken.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// True once no new work may be taken.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Resolves once the grace is over: end now, wherever you are.
    pub async fn killed(&self) {
        self.0.kill.cancelled().await;
    }

    /// How many tasks run now.
    pub fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// How many tasks have panicked since the start.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }
}

impl Tree {
    fn report(&self, task: &'static str, panic: &(dyn Any + Send)) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        tracing::error!(task, message, "a task panicked; this is a bug in exitgate, please report it");
    }
}

pin_project! {
    /// A future whose panic is reported and is its end. A type and not an `async fn`, which would hold `work` twice: a
    /// task is allocated and copied whole for every connection.
    ///
    /// Unwind safety: what a panicking task shared with others is behind locks and atomics that hold no half-made
    /// state across an await, or is dropped with it.
    struct Contained<F> {
        name: &'static str,
        tree: Arc<Tree>,
        #[pin]
        work: F,
    }
}

impl<F: Future<Output = ()>> Future for Contained<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let work = this.work;
        yielding::yield_if_due();
        match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                this.tree.report(this.name, &*panic);
                Poll::Ready(())
            }
        }
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything finished by itself within the grace.
    Drained,
    /// The grace ran out (or was cut short) with this many tasks still at work.
    Cut(usize),
}

/// The owner of the tree: there is one, in `app`.
#[derive(Debug)]
pub struct Lifecycle {
    tasks: Tasks,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A tree with nothing in it yet.
    pub fn new() -> Self {
        Self { tasks: Tasks(Arc::default()) }
    }

    /// The handle to spawn with.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Stops: no new work, then up to `grace` for what runs, then the kill. `hurry` cuts the grace short.
    pub async fn stop(self, grace: Duration, hurry: impl Future<Output = ()>) -> Ended {
        let Tree { tracker, stop, kill, .. } = &*self.tasks.0;
        stop.cancel();
        tracker.close();
        let drained = tokio::select! {
            () = tracker.wait() => true,
            () = tokio::time::sleep(grace) => false,
            () = hurry => false,
        };
        let left = tracker.len();
        kill.cancel();
        if drained {
            return Ended::Drained;
        }
        if tokio::time::timeout(KILL_WAIT, tracker.wait()).await.is_err() {
            tracing::warn!(tasks = tracker.len(), "tasks outlived the kill; they end with the process");
        }
        Ended::Cut(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_by_itself_drains() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        tasks.clone().spawn("connection", async move {
            tasks.stopping().await;
            tokio::time::sleep(Duration::from_secs(9)).await;
        });
        assert_eq!(life.stop(Duration::from_secs(10), std::future::pending()).await, Ended::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlives_the_grace_is_cut() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        tasks.clone().spawn("connection", async move { tasks.killed().await });
        assert_eq!(life.stop(Duration::from_secs(10), std::future::pending()).await, Ended::Cut(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_the_grace_short() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        tasks.clone().spawn("connection", async move { tasks.killed().await });
        let begun = tokio::time::Instant::now();
        assert_eq!(life.stop(Duration::from_secs(1000), std::future::ready(())).await, Ended::Cut(1));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_the_worker_starts_again() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        let runs = Arc::new(AtomicUsize::new(0));
        let (seen, stopping) = (runs.clone(), tasks.clone());
        tasks.supervise("worker", move || {
            let (runs, stopping) = (seen.clone(), stopping.clone());
            async move {
                assert!(runs.fetch_add(1, Ordering::Relaxed) > 0, "the first run dies");
                stopping.stopping().await;
            }
        });
        while runs.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((tasks.panics(), tasks.running()), (1, 1));
        assert_eq!(life.stop(Duration::from_secs(1), std::future::pending()).await, Ended::Drained);
    }

    #[tokio::test]
    async fn work_aside_yields_and_ends_with_the_rest() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let stopping = tasks.clone();
        let make = move || {
            let name = std::thread::current().name().map(str::to_owned);
            tell.send((name, rustix::process::getpriority_process(None).ok())).unwrap();
            let stopping = stopping.clone();
            async move { stopping.stopping().await }
        };
        tasks.background("background", make).unwrap();
        let (name, nice) = told.recv().await.unwrap();
        assert_eq!((name.as_deref(), nice), (Some("background"), Some(NICE)));
        assert_eq!(life.stop(Duration::from_secs(10), std::future::pending()).await, Ended::Drained);
    }
}
