//! The answer of `/events` for one reader: a stream of server-sent events. First it sends entries that the journal has
//! already, then each new entry.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Entry, Journal};
use crate::lifecycle::Tasks;

/// How long the stream may be silent before a comment is sent. Load balancers often close connections that are silent
/// for a minute.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a reader should wait before it connects again. The stream tells this to the reader. Not tuned.
const RECONNECT: Duration = Duration::from_secs(2);

/// One reader of the journal. Its stream ends when the gateway stops.
pub(super) struct Reader {
    journal: Arc<Journal>,
    latest: watch::Receiver<u64>,
    /// The number of the last entry that `next` has taken from the journal.
    read: u64,
    /// Events that were taken from the journal but not sent yet.
    pending: VecDeque<Event>,
    tasks: Tasks,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Creates a reader of all entries after the number `last`. Without `last`, it reads only new entries.
    pub(super) fn new(journal: Arc<Journal>, last: Option<u64>, tasks: Tasks, permit: OwnedSemaphorePermit) -> Self {
        let latest = journal.latest.subscribe();
        let now = *latest.borrow();
        let read = last.map_or(now, |last| last.min(now));
        let pending = VecDeque::from([Event::default().retry(RECONNECT)]);
        Self { journal, latest, read, pending, tasks, _permit: permit }
    }

    pub(super) fn into_response(self) -> Response {
        let keep_alive = KeepAlive::new().interval(SILENCE).text("still here");
        let mut response = Sse::new(stream::unfold(self, Self::next)).keep_alive(keep_alive).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Returns the next event, and the reader for the events after it. Returns `None` if the gateway stops.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some((Ok(event), self));
            }
            self.latest.borrow_and_update();
            let (entries, missed) = self.journal.after(self.read);
            if let Some(last) = entries.last() {
                self.read = last.id;
                let missed = missed.then(|| Event::default().event("missed").data("{}"));
                self.pending.extend(missed);
                self.pending.extend(entries.iter().map(event));
                continue;
            }
            tokio::select! {
                () = self.tasks.stopping() => return None,
                changed = self.latest.changed() => changed.ok()?,
            }
        }
    }
}

fn event(Entry { id, kind, data }: &Entry) -> Event {
    Event::default().id(id.to_string()).event(kind).data(data)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;
    use crate::exit::Moment;
    use crate::lifecycle::Lifecycle;

    async fn frame(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_continues_where_it_stopped_and_ends_with_the_gateway() {
        let lifecycle = Lifecycle::new();
        let journal = Arc::new(Journal::new(Moment(10)));
        journal.write(Moment(0), "a", json!({}));
        let permit = || journal.readers.clone().try_acquire_owned().unwrap();
        let body = |last| Reader::new(journal.clone(), last, lifecycle.tasks(), permit()).into_response().into_body();
        let (mut live, mut back) = (body(None), body(Some(10)));
        assert_eq!(frame(&mut live).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(frame(&mut back).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(frame(&mut live).await.as_deref(), Some(": still here\n\n"));
        let first = "id: 11\nevent: a\ndata: {\"at\":\"1970-01-01T00:00:00.000Z\"}\n\n";
        assert_eq!(frame(&mut back).await.as_deref(), Some(first));
        journal.write(Moment(0), "b", json!({}));
        assert_eq!(frame(&mut live).await, frame(&mut back).await);
        let _ = lifecycle.stop(Duration::ZERO, std::future::pending()).await;
        assert_eq!(frame(&mut live).await, None);
        drop((live, back));
        assert_eq!(journal.readers.available_permits(), super::super::READERS, "a reader that is gone frees its place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_was_away_too_long_is_told() {
        let lifecycle = Lifecycle::new();
        let journal = Arc::new(Journal::new(Moment(10)));
        (0..=super::super::KEPT).for_each(|n| journal.write(Moment(0), "a", json!({ "n": n })));
        let permit = journal.readers.clone().try_acquire_owned().unwrap();
        let mut body = Reader::new(journal, Some(10), lifecycle.tasks(), permit).into_response().into_body();
        assert_eq!(frame(&mut body).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(frame(&mut body).await.as_deref(), Some("event: missed\ndata: {}\n\n"));
        let next = frame(&mut body).await.unwrap();
        assert!(next.starts_with("id: 12\nevent: a\n"), "{next}");
    }
}
