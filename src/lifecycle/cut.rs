//! The way to end one connection from outside of it.
//!
//! A token of a tree would do, but every clone and every drop of a child takes its parent's lock, and a gateway opens
//! thousands of connections a second. A [`Cut`] belongs to one connection: whoever may end it (its listener, a row of
//! the table of connections, shutdown through the listener) holds a clone, and the connection's own task waits.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// A handle on one connection: [`Cut::cut`] ends it, wherever it is. Clones are the same cut.
///
/// One task waits on it at a time, the connection's own: the last one that polled is the one that is woken.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cut: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Cut {
    /// A cut that has not happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the connection. Doing it twice is doing it once.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// True once it was cut.
    pub fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::SeqCst)
    }

    /// Ready once it was cut; until then the polling task is woken when it is.
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
        // Cut between the first look and the store: `cut` found nobody to wake.
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves once it was cut.
    pub async fn happened(&self) {
        poll_fn(|cx| self.poll_cut(cx)).await;
    }

    /// Runs `work` unless the cut comes first; `None` = cut, and nothing of `work` runs any more.
    pub fn race<F: Future>(&self, work: F) -> Race<'_, F> {
        Race { cut: self, work }
    }
}

pin_project! {
    /// What [`Cut::race`] returns. A type and not an `async fn`, which would hold `work` twice: once as it was passed
    /// and once as it is polled, and a connection's whole life goes through here.
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
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn work_that_is_done_first_wins() {
        assert_eq!(Cut::new().race(ready(7)).await, Some(7));
    }

    #[tokio::test]
    async fn a_cut_before_the_wait_is_seen() {
        let cut = Cut::new();
        cut.cut();
        assert_eq!(cut.race(pending::<()>()).await, None);
        cut.happened().await;
    }

    #[tokio::test]
    async fn a_cut_from_another_task_wakes_the_one_that_waits() {
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
        assert_eq!(polls, 1, "the work is not polled again once it was cut");
    }
}
