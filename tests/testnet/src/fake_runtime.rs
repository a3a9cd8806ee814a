//! Where the fakes run: a runtime of their own.
//!
//! A test has its own runtime and takes it down at its end. A fake that is shared by the tests of a process must
//! outlive the test that started it first, so fakes run here, and what ends one is the drop of its [`Task`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{AbortHandle, JoinSet};

/// Two threads: fakes share the machine with what is tested, and one alone would wait behind a busy handler.
const THREADS: usize = 2;

/// How long an accept loop rests after an error (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long fakes run before they offer their processor to others.
const TURN: Duration = Duration::from_micros(100);

/// How often a port that is in use is tried again, for two seconds, or as often with no file left.
const RELEASES: usize = 40;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("testnet-stage").enable_all();
    builder.build().expect("a runtime needs two threads and an epoll")
});

thread_local! {
    /// When this thread last offered its processor.
    static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Offers the processor now and then: fakes stand for machines elsewhere, which what is tested need not wait for.
fn give_way() {
    if OFFERED.get().is_none_or(|at| at.elapsed() > TURN) {
        std::thread::yield_now();
        OFFERED.set(Some(Instant::now()));
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` on the stage.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(RUNTIME.spawn(work).abort_handle())
}

/// Runs `work` on the stage and waits for what it comes to: sockets belong to the runtime that they are made on.
pub(crate) async fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
    Ok(RUNTIME.spawn(work).await?)
}

/// Listens on `address`.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut listener = run(TcpListener::bind(address)).await?;
    // Fakes that were dropped a moment ago let go of their ports and files when their thread comes to it.
    let passes =
        |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse || error.raw_os_error() == Some(libc::EMFILE);
    for _ in 0..RELEASES {
        match &listener {
            Err(error) if passes(error) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                listener = run(TcpListener::bind(address)).await?;
            }
            _ => break,
        }
    }
    listener.map_err(|error| anyhow::Error::new(error).context(format!("cannot listen on {address}")))
}

/// Accepts for ever and runs `serve` for each connection; all of them end with the task.
pub(crate) fn accept<F>(
    listener: TcpListener,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> F + Send + 'static,
) -> Task
where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let _ = stream.set_nodelay(true); // fails only on a socket that is dead already
                        let mut work = Box::pin(serve(stream, peer));
                        connections.spawn(poll_fn(move |cx| {
                            give_way();
                            work.as_mut().poll(cx)
                        }));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    })
}
