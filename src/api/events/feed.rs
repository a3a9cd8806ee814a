//! The body of an answer that does not end: the journal, read to its end, and again when it goes on.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Entry, Journal};
use crate::lifecycle::Tasks;

/// How long nothing may be said. Below the minute after which load balancers cut silent connections.
const SILENCE: Duration = Duration::from_secs(15);

/// When a reader whose connection broke should come back, in its own words.
const OPENING: &str = "retry: 2000\n\n";

/// One reader's place in the journal.
pub(super) struct Reader {
    journal: Arc<Journal>,
    latest: watch::Receiver<u64>,
    read: u64,
    opened: bool,
    tasks: Tasks,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// A reader of all after `last`; of all from now on without it.
    pub(super) fn new(journal: Arc<Journal>, last: Option<u64>, tasks: Tasks, place: OwnedSemaphorePermit) -> Self {
        let latest = journal.latest.subscribe();
        let now = *latest.borrow();
        let read = last.map_or(now, |last| last.min(now));
        Self { journal, latest, read, opened: false, tasks, _place: place }
    }

    /// What to send next; `None` at shutdown.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !self.opened {
            self.opened = true;
            return Some((OPENING.into(), self));
        }
        let silence = tokio::time::sleep(SILENCE);
        tokio::pin!(silence);
        loop {
            self.latest.borrow_and_update();
            let (entries, missed) = self.journal.after(self.read);
            if let Some(last) = entries.last() {
                self.read = last.id;
                return Some((lines(&entries, missed).into(), self));
            }
            tokio::select! {
                () = self.tasks.stopping() => return None,
                () = &mut silence => return Some((": still here\n\n".into(), self)),
                changed = self.latest.changed() => changed.ok()?,
            }
        }
    }
}

fn lines(entries: &[Entry], missed: bool) -> String {
    let mut text = String::new();
    if missed {
        text.push_str("event: missed\ndata: {}\n\n");
    }
    for Entry { id, kind, data } in entries {
        let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
    }
    text
}

/// The body.
pub(super) struct Feed {
    next: Pin<Box<dyn Future<Output = Option<(Bytes, Reader)>> + Send>>,
}

impl Feed {
    pub(super) fn new(reader: Reader) -> Self {
        Self { next: Box::pin(reader.next()) }
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((bytes, reader)) = ready!(self.next.as_mut().poll(cx)) else { return Poll::Ready(None) };
        self.next = Box::pin(reader.next());
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;
    use crate::exit::Moment;
    use crate::lifecycle::Lifecycle;

    async fn frame(feed: &mut Feed) -> Option<String> {
        let frame = feed.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_goes_on_where_its_reader_left_and_ends_with_the_gateway() {
        let lifecycle = Lifecycle::new();
        let journal = Arc::new(Journal::new(Moment(10)));
        journal.write(Moment(0), "a", json!({}));
        let place = || journal.readers.clone().try_acquire_owned().unwrap();
        let mut live = Feed::new(Reader::new(journal.clone(), None, lifecycle.tasks(), place()));
        let mut back = Feed::new(Reader::new(journal.clone(), Some(10), lifecycle.tasks(), place()));
        assert_eq!(frame(&mut live).await.as_deref(), Some(OPENING));
        assert_eq!(frame(&mut back).await.as_deref(), Some(OPENING));
        assert_eq!(frame(&mut live).await.as_deref(), Some(": still here\n\n"));
        let first = "id: 11\nevent: a\ndata: {\"at\":\"1970-01-01T00:00:00.000Z\"}\n\n";
        assert_eq!(frame(&mut back).await.as_deref(), Some(first));
        journal.write(Moment(0), "b", json!({}));
        assert_eq!(frame(&mut live).await, frame(&mut back).await);
        let _ = lifecycle.stop(Duration::ZERO, std::future::pending()).await;
        assert_eq!(frame(&mut live).await, None);
        assert_eq!(journal.readers.available_permits(), super::super::READERS - 1);
    }
}
