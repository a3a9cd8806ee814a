//! `/events`: what happens, as it happens, for people who watch and for programs that wait (server-sent events).
//!
//! A journal of bounded length stands between what happens and who reads. Each entry has a number, so that a reader
//! whose connection broke says `Last-Event-ID` and misses nothing that the journal still has; where it has no longer,
//! the reader is told so (`missed`) and asks for the lists anew. Numbers begin with the wall clock of the start, so that
//! those of an earlier run are always older.
//!
//! Promises that moved are told by the state. Routes, engines and sources are compared with how they stood a moment ago:
//! what a watcher of this page wants is how they stand, not each step on the way.
//!
//! Next: `events/watch.rs` compares; `events/feed.rs` is the body of an answer.

mod feed;
mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch as latest};

use self::feed::{Feed, Reader};
use super::Wiring;
use super::error::{ApiError, Problem};
use super::timestamp::Timestamp;
use crate::exit::Moment;
use crate::lifecycle::Tasks;

pub(super) use self::watch::watch;

/// Entries kept. Arbitrary: a reader that is back within minutes misses nothing on a busy day.
const KEPT: usize = 1024;

/// Readers at once. Arbitrary: people's consoles and a few programs; each holds one of the API's connections.
const READERS: usize = 64;

/// Seconds after which a reader that found no place may try again. Arbitrary: consoles come and go in minutes.
const RETRY: u16 = 10;

/// One thing that happened. As it will be sent: a thousand trees of it would be a megabyte.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    id: u64,
    kind: &'static str,
    data: Arc<str>,
}

/// What happened lately.
pub struct Journal {
    kept: Mutex<VecDeque<Entry>>,
    latest: latest::Sender<u64>,
    readers: Arc<Semaphore>,
}

impl Journal {
    /// An empty one; the numbers of its entries follow `began`.
    pub fn new(began: Moment) -> Self {
        let (kept, readers) = (Mutex::default(), Arc::new(Semaphore::new(READERS)));
        Self { kept, latest: latest::Sender::new(began.0), readers }
    }

    pub(super) fn write(&self, at: Moment, kind: &'static str, mut data: Value) {
        data["at"] = json!(Timestamp(at));
        let data = data.to_string().into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.latest.borrow() + 1;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Entry { id, kind, data });
        drop(kept);
        self.latest.send_replace(id);
    }

    /// Entries after this one, and whether there were others that are no longer kept.
    fn after(&self, id: u64) -> (Vec<Entry>, bool) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = kept.front().is_some_and(|oldest| kept.len() == KEPT && id + 1 < oldest.id);
        (kept.iter().filter(|entry| entry.id > id).cloned().collect(), missed)
    }
}

/// What happens, as it happens (server-sent events): from now on, or from `Last-Event-ID` on.
#[utoipa::path(get, path = "/events", tag = "traffic",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event that was read")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn events(
    State((wiring, tasks)): State<(Wiring, Tasks)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let journal = wiring.journal;
    let place = journal.readers.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{READERS} readers follow the events already; close one, or try again later");
        ApiError::too_much("too_many_readers", message, RETRY)
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let reader = Reader::new(journal, last, tasks, place);
    let types = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((types, Body::new(Feed::new(reader))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(journal: &Journal, after: u64) -> (Vec<u64>, bool) {
        let (entries, missed) = journal.after(after);
        (entries.iter().map(|entry| entry.id).collect(), missed)
    }

    #[test]
    fn the_journal_is_bounded_and_says_what_it_forgot() {
        let journal = Journal::new(Moment(1000));
        (0..3).for_each(|n| journal.write(Moment(1), "x", json!({ "n": n })));
        assert_eq!(ids(&journal, 1001), (vec![1002, 1003], false));
        assert_eq!(ids(&journal, 5), (vec![1001, 1002, 1003], false), "an id of an earlier run: all of this one");
        (0..KEPT).for_each(|n| journal.write(Moment(1), "x", json!({ "n": n })));
        let (left, missed) = ids(&journal, 1002);
        assert_eq!((left.len(), left[0], missed), (KEPT, 1004, true));
        assert_eq!(ids(&journal, 1003), (left, false));
    }
}
