//! Ends one connection from code outside of the connection's task.
//!
//! tokio's `CancellationToken` could also end a connection, but each child token takes the lock of its parent when the
//! token is made and when it is dropped, and a gateway opens thousands of connections a second. A [`Cut`] belongs to
//! one connection. The listener and the connection table hold clones of the [`Cut`] and may end the connection. The
//! connection's own task waits for the call of [`Cut::cut`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// A handle on one connection. [`Cut::cut`] ends the connection. All clones of a handle share one state.
///
/// Only the connection's own task may wait for the cut: only the task that polled last is woken.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cut: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Cut {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the connection. A second call does nothing.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    pub fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::SeqCst)
    }

    /// Returns ready after a cut. Before a cut, registers the polling task, which the cut will then wake.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_cut() {
            return Poll::Ready(());
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(waiting);
        // If the cut came between the first test and the registration of the waker, no task was woken. So the state is
        // tested again.
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Runs `work` until `work` ends or a cut comes. After a cut the future returns `None` and does not poll `work`
    /// again.
    pub fn race<F: Future>(&self, work: F) -> Race<'_, F> {
        Race { cut: self, work }
    }
}

pin_project! {
    /// The future of [`Cut::race`]. This is a type and not an `async fn`, because an `async fn` would store `work`
    /// twice (as the argument and as the polled future), and `work` is the whole state of a connection.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Race<'a, F> {
        cut: &'a Cut,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Race<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.cut.poll_cut(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => this.work.poll(cx).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use super::*;

    #[tokio::test]
    async fn work_that_ends_first_returns_its_result() {
        assert_eq!(Cut::new().race(ready(7)).await, Some(7));
    }

    #[tokio::test]
    async fn a_cut_before_the_wait_is_seen() {
        let cut = Cut::new();
        cut.cut();
        assert_eq!(cut.race(pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_cut_from_another_task_wakes_the_waiting_one() {
        let cut = Cut::new();
        let (outside, mut polls) = (cut.clone(), 0);
        let waiting = cut.race(poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        }));
        let cutting = async {
            tokio::task::yield_now().await;
            outside.cut();
            outside.cut();
        };
        assert_eq!(tokio::join!(waiting, cutting), (None, ()));
        assert_eq!(polls, 1, "the work is not polled again after a cut");
    }
}
