//! Spawns all tasks, and stops them in two steps: first draining, then killing. No other room of the code (folder in
//! `src`) spawns tasks.
//!
//! After a signal the gateway takes no new work, but open connections may finish for a while (`lifecycle.drain`, the
//! grace period). Each of the two steps has a token. [`Tasks::stopping`] means "no new work": listeners close, and
//! workers leave their loops. [`Tasks::killed`] means that the grace period is over: tunnels end immediately.
//!
//! Every task is spawned and tracked here, because a shutdown does not wait for a task that is not tracked. For
//! example, the HTTP library hyper does not track the connections that it has upgraded.
//!
//! A panic is a bug and is counted. But a panic ends only one connection or one run of a worker, never the gateway:
//! [`Tasks::spawn`] catches the panic, and [`Tasks::supervise`] restarts the worker after a pause.
//!
//! Next: `lifecycle/signals.rs` has the signals of the process. `app/serve.rs` calls [`Lifecycle::stop`] after a
//! signal. `lifecycle/cut.rs` ends one connection. `lifecycle/yielding.rs` is about threads for background work.
//! `lifecycle/memory.rs` returns free memory to the operating system.

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
pub mod memory;
pub mod signals;
pub mod yielding;

pub use cut::Cut;

/// How long a worker task pauses before its restart after a panic or an early return. Any value from 0.1 to 5 seconds
/// works: a worker that panics immediately must not use a whole core, and users should not notice a single panic.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The nice value (CPU priority) of background threads: the middle of the kernel's scale from 0 to 19.
const NICE: i32 = 10;

/// How long the shutdown waits for killed tasks to end. Such tasks only close sockets, which takes far less time. Tasks
/// that still run after this time are logged.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// A handle on all tasks, for code that spawns tasks or must know when to stop. Cloning a handle is cheap.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<TaskTree>);

#[derive(Debug, Default)]
struct TaskTree {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    panics: AtomicU64,
}

impl Tasks {
    /// Runs `work` as a task of its own. A panic in `work` is logged and counted, and ends only this task.
    #[expect(clippy::disallowed_methods, reason = "the only place that spawns")]
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn(Contained { name, tree: self.0.clone(), work });
    }

    /// Runs a worker until shutdown. `make` returns the future of one run. If a run panics or returns, the next run
    /// starts after a pause. A worker must leave its loop by itself when [`Tasks::stopping`] resolves.
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

    /// Runs a worker as [`Tasks::supervise`] does, but on a thread and a runtime of its own. The thread has a lower
    /// priority than the threads that carry traffic, because background work must not slow down connections. See
    /// [`yielding`].
    pub fn background<F>(&self, name: &'static str, make: impl FnMut() -> F + Send + 'static) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = self.clone();
        let work = move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "{name} runs at normal priority");
            }
            yielding::mark_background();
            runtime.block_on(async move {
                tasks.supervise(name, make);
                tasks.killed().await;
            });
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Resolves once the shutdown has begun and no new work may be taken.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// Returns true once the shutdown has begun and no new work may be taken.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Resolves once the grace period is over. Every task must then end immediately.
    pub async fn killed(&self) {
        self.0.kill.cancelled().await;
    }

    /// Returns the number of tasks that run now.
    pub fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// Returns the number of tasks that have panicked since the start of the process.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }
}

impl TaskTree {
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
    /// A future that runs the future `work`. If `work` panics, this future reports the panic and ends. This is a type
    /// and not an `async fn`, because an `async fn` would store `work` twice, and every connection allocates and copies
    /// a whole task.
    ///
    /// Unwind safety: a task shares data with other tasks only behind locks and atomics that are consistent at every
    /// await.
    struct Contained<F> {
        name: &'static str,
        tree: Arc<TaskTree>,
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

/// The result of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All tasks finished within the grace period.
    Drained,
    /// The grace period ended, or a second signal ended it early, while this number of tasks still ran.
    Cut(usize),
}

/// The owner of all tasks. A gateway has exactly one [`Lifecycle`], in `app`.
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
    pub fn new() -> Self {
        Self { tasks: Tasks(Arc::default()) }
    }

    /// Returns the handle for spawning tasks.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Stops all tasks. No new work is taken, and running tasks get up to `grace` to finish. Tasks that still run after
    /// that time are killed. When the future `hurry` resolves, the grace period ends early.
    pub async fn stop(self, grace: Duration, hurry: impl Future<Output = ()>) -> Ended {
        let TaskTree { tracker, stop, kill, .. } = &*self.tasks.0;
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
    async fn work_that_outlives_the_grace_period_is_cut() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        tasks.clone().spawn("connection", async move { tasks.killed().await });
        assert_eq!(life.stop(Duration::from_secs(10), std::future::pending()).await, Ended::Cut(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_grace_period() {
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
    async fn background_work_has_a_lower_priority_and_ends_with_the_rest() {
        let life = Lifecycle::new();
        let tasks = life.tasks();
        let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let stopping = tasks.clone();
        let make = move || {
            let name = std::thread::current().name().map(str::to_owned);
            report.send((name, rustix::process::getpriority_process(None).ok())).unwrap();
            let stopping = stopping.clone();
            async move { stopping.stopping().await }
        };
        tasks.background("background", make).unwrap();
        let (name, nice) = reports.recv().await.unwrap();
        assert_eq!((name.as_deref(), nice), (Some("background"), Some(NICE)));
        assert_eq!(life.stop(Duration::from_secs(10), std::future::pending()).await, Ended::Drained);
    }
}
