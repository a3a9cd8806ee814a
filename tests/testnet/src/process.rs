//! Starts tor processes and sees that none outlives us; the limits of our own process.
//!
//! Three nets, because each alone has a hole. [`Keeper`] kills on drop, which covers a test that fails or panics.
//! `PR_SET_PDEATHSIG` covers a test process that is killed; it fires when the *thread* that forked dies, and test
//! threads die early, so every fork happens on the keeper's own thread, which lives as long as the keeper. Tor's
//! `__OwningControllerProcess` (see `torrc.rs`) covers what neither foresaw.

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
type Order = Box<dyn FnOnce(&mut Children) + Send>;

/// Owns the processes of one network. Dropping it kills them and waits until they are gone.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    hold: RawFd,
}

/// What to send to a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

impl Keeper {
    /// A keeper whose processes keep the descriptor `hold` open. The caller keeps it open longer than the keeper.
    pub(crate) fn new(hold: RawFd) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new().name("testnet-keeper".into()).spawn(move || {
            let mut children = Children::new();
            for order in inbox {
                order(&mut children);
            }
            end(children);
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread), hold })
    }

    /// Starts `command` under `name`, in a process group of its own (a Ctrl-C is for us, not for it).
    pub(crate) async fn spawn(&self, name: &str, mut command: Command) -> anyhow::Result<()> {
        command.process_group(0);
        raw::bind_to_parent(&mut command, self.hold);
        let key = name.to_owned();
        self.order(move |children| {
            let child = command.spawn()?;
            children.insert(key, child);
            io::Result::Ok(())
        })
        .await?
        .with_context(|| format!("cannot start tor for {name}"))
    }

    /// Kills `name` with SIGKILL and waits for its end. Nothing happens when it is not running.
    pub(crate) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let key = name.to_owned();
        self.order(move |children| children.remove(&key).map_or(Ok(()), end_one)).await??;
        Ok(())
    }

    /// As [`Keeper::kill`], for destructors: waits without a runtime.
    pub(crate) fn kill_now(&self, name: &str) {
        let key = name.to_owned();
        let (reply, answer) = mpsc::channel();
        let order: Order = Box::new(move |children| {
            let _ = children.remove(&key).map(end_one);
            let _ = reply.send(());
        });
        if self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok()) {
            let _ = answer.recv(); // an error is the end of the keeper, and with it of the process
        }
    }

    /// Sends a signal to `name`.
    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let number = match signal {
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        let key = name.to_owned();
        self.order(move |children| children.get(&key).map(|child| raw::signal(child.id(), number)))
            .await?
            .with_context(|| format!("{name} is not running"))?
            .with_context(|| format!("cannot signal {name}"))
    }

    /// The process id of `name`, or nothing when it has ended.
    pub(crate) async fn pid(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let key = name.to_owned();
        self.order(move |children| {
            let child = children.get_mut(&key)?;
            matches!(child.try_wait(), Ok(None)).then(|| child.id())
        })
        .await
    }

    async fn order<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Children) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (reply, answer) = oneshot::channel();
        let order: Order = Box::new(move |children| {
            let _ = reply.send(job(children)); // the asker may have given up
        });
        self.orders.as_ref().context("the keeper is gone")?.send(order).ok().context("the keeper's thread is gone")?;
        answer.await.context("the keeper's thread died")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was already printed
        }
    }
}

/// Lets us open as many files as we may, and says how many that are.
pub(crate) fn allow_files() -> io::Result<u64> {
    raw::raise_file_limit()
}

fn end_one(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Kills all, then waits for all: a network ends in the time of its slowest process, not in the sum.
fn end(children: Children) {
    let mut children: Vec<Child> = children.into_values().collect();
    for child in &mut children {
        let _ = child.kill(); // already gone is as good
    }
    for child in &mut children {
        let _ = child.wait();
    }
}
