//! Starts tor processes, and makes sure that none lives longer than this process. Also the limit on open files of this process.
//!
//! There are three mechanisms, because each alone is not enough. [`Processes`] kills on drop, which is enough if a test fails or panics.
//! `PR_SET_PDEATHSIG` works if the test process is killed. It acts when the *thread* that forked ends, and threads of tests end early,
//! so every fork happens on one thread that lives as long as [`Processes`]. tor's `__OwningControllerProcess` (see `torrc.rs`) works in all
//! other cases.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;

mod raw;

type Children = HashMap<String, Child>;
type Job = Box<dyn FnOnce(&mut Children) + Send>;

/// Owns the processes of one network. Dropping it kills them and waits until they are gone.
#[derive(Debug)]
pub(crate) struct Processes {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    hold: RawFd,
}

/// What to send to a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

impl Processes {
    /// The processes will keep the descriptor `hold` open. The caller must keep it open longer than this value lives.
    pub(crate) fn new(hold: RawFd) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("testnet-process".into()).spawn(move || {
            let mut children = Children::new();
            for job in inbox {
                job(&mut children);
            }
            end(children);
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), hold })
    }

    /// Starts `command` under `name`, in a process group of its own so that Ctrl-C does not reach it.
    pub(crate) async fn spawn(&self, name: &str, mut command: Command) -> anyhow::Result<()> {
        command.process_group(0);
        raw::bind_to_parent(&mut command, self.hold);
        let key = name.to_owned();
        self.run(move |children| {
            let child = command.spawn()?;
            children.insert(key, child);
            io::Result::Ok(())
        })
        .await?
        .with_context(|| format!("cannot start tor for {name}"))
    }

    /// Kills `name` with SIGKILL and waits for its end. Does nothing if it is not running.
    pub(crate) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let key = name.to_owned();
        self.run(move |children| children.remove(&key).map_or(Ok(()), end_one)).await??;
        Ok(())
    }

    /// [`Processes::kill`] for destructors: blocks, and needs no runtime.
    pub(crate) fn kill_now(&self, name: &str) {
        let key = name.to_owned();
        let (reply, answer) = mpsc::channel();
        let job: Job = Box::new(move |children| {
            let _ = children.remove(&key).map(end_one);
            let _ = reply.send(());
        });
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            let _ = answer.recv(); // an error means that the thread has ended, and with it the process
        }
    }

    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let number = match signal {
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        let key = name.to_owned();
        self.run(move |children| children.get(&key).map(|child| raw::signal(child.id(), number)))
            .await?
            .with_context(|| format!("{name} is not running"))?
            .with_context(|| format!("cannot signal {name}"))
    }

    /// The process id of `name`; none if it has ended.
    pub(crate) async fn pid(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let key = name.to_owned();
        self.run(move |children| {
            let child = children.get_mut(&key)?;
            matches!(child.try_wait(), Ok(None)).then(|| child.id())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Children) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |children| {
            let _ = reply.send(work(children)); // an error means that the caller no longer waits
        });
        self.jobs
            .as_ref()
            .context("the processes are being ended")?
            .send(job)
            .ok()
            .context("the thread of the processes has ended")?;
        answer.await.context("the thread of the processes panicked")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of the thread was already printed
        }
    }
}

/// Raises the limit on open files as far as possible, and returns it.
pub(crate) fn allow_files() -> io::Result<u64> {
    raw::raise_file_limit()
}

fn end_one(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Kills all, then waits for all, so that the processes end at the same time and not one after the other.
fn end(children: Children) {
    let mut children: Vec<Child> = children.into_values().collect();
    for child in &mut children {
        let _ = child.kill(); // an error means that it has ended
    }
    for child in &mut children {
        let _ = child.wait();
    }
}
