//! The runtime of the fakes.
//!
//! A test has a runtime of its own, which ends with the test. A fake that the tests of a process share must live longer than the test
//! that started it. So fakes run on this runtime, and a fake ends when its [`Task`] is dropped.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{AbortHandle, JoinSet};

/// Fakes share the machine with the gateway, so there are few threads; with a single one, all fakes would wait for a busy handler.
const THREADS: usize = 2;

/// How long an accept loop pauses after an error, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long fakes run before they yield their processor.
const YIELD_EVERY: Duration = Duration::from_micros(100);

/// How often listening is tried again when a port is in use or no descriptor is free: for two seconds.
const LISTEN_ATTEMPTS: usize = 40;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("testnet-fakes").enable_all();
    builder.build().expect("a runtime needs two threads and an epoll")
});

thread_local! {
    /// When this thread last yielded.
    static YIELDED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Yields the processor now and then. Fakes stand for machines elsewhere, so a gateway must not wait for them here.
fn yield_sometimes() {
    if YIELDED.get().is_none_or(|at| at.elapsed() > YIELD_EVERY) {
        std::thread::yield_now();
        YIELDED.set(Some(Instant::now()));
    }
}

/// A task; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` on the runtime of the fakes.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(RUNTIME.spawn(work).abort_handle())
}

/// Runs `work` on the runtime of the fakes and waits for its result. Sockets belong to the runtime on which they are created.
pub(crate) async fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
    Ok(RUNTIME.spawn(work).await?)
}

pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut listener = run(TcpListener::bind(address)).await?;
    // Fakes that were just dropped close their ports and files a little later.
    let temporary =
        |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse || error.raw_os_error() == Some(libc::EMFILE);
    for _ in 0..LISTEN_ATTEMPTS {
        match &listener {
            Err(error) if temporary(error) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                listener = run(TcpListener::bind(address)).await?;
            }
            _ => break,
        }
    }
    listener.map_err(|error| anyhow::Error::new(error).context(format!("cannot listen on {address}")))
}

/// Accepts connections and runs `serve` for each. All of them end with the task.
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
                        let _ = stream.set_nodelay(true); // fails only if the socket is closed
                        let mut work = Box::pin(serve(stream, peer));
                        connections.spawn(poll_fn(move |cx| {
                            yield_sometimes();
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
