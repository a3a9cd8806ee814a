//! `/events`: a stream of events (server-sent events) for people who watch the gateway and programs that wait for
//! something.
//!
//! A worker writes each event into a journal of limited length, and every reader reads the journal. Each entry of the
//! journal has a number. The numbers begin with the time at which the process started, so entries of an earlier process
//! always have smaller numbers.
//!
//! A reader whose connection was lost connects again and sends the number of the last entry that it got as
//! `Last-Event-ID`. It then gets the entries after that number. If the journal has dropped some of these entries, the
//! reader first gets the event `missed`, and should read the complete lists of the API again.
//!
//! Events about pins, bans and checks come from the room `state`. For routes, engines and sources, the worker compares
//! their present status with the status half a second ago. Readers want to know the status, not each step between.
//!
//! Next: `events/watch.rs` (the worker), `events/feed.rs` (the answer for one reader).

mod feed;
mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch as latest};

use self::feed::Reader;
use super::Wiring;
use super::error::{ApiError, Problem};
use super::timestamp::Timestamp;
use crate::exit::Moment;

pub(super) use self::watch::watch;

/// The number of entries that the journal keeps. Not tuned: on a busy gateway these are the events of some minutes.
const KEPT: usize = 1024;

/// The largest number of readers at the same time. Not tuned: each reader occupies one of the API's connections.
const READERS: usize = 64;

/// The number of seconds after which a refused reader may try again. Not tuned.
const RETRY: u16 = 10;

/// One event. Its data is stored as text, because a thousand JSON trees would need a megabyte.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    id: u64,
    kind: &'static str,
    data: Arc<str>,
}

/// The most recent events.
pub struct Journal {
    kept: Mutex<VecDeque<Entry>>,
    latest: latest::Sender<u64>,
    readers: Arc<Semaphore>,
}

impl Journal {
    /// Creates an empty journal. The number of its first entry is `began` (in microseconds) plus one.
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

    /// Returns the entries after the entry `id`. The flag is true if some entries after `id` have been dropped already.
    fn after(&self, id: u64) -> (Vec<Entry>, bool) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = kept.front().is_some_and(|oldest| kept.len() == KEPT && id + 1 < oldest.id);
        (kept.iter().filter(|entry| entry.id > id).cloned().collect(), missed)
    }
}

/// Follows events as they happen (server-sent events): from now on, or after `Last-Event-ID`.
#[utoipa::path(get, path = "/events", tag = "traffic",
    params(("Last-Event-ID" = Option<String>, Header, description = "The number of the last event that the reader has")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn events(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let journal = wiring.journal;
    let permit = journal.readers.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{READERS} readers follow the events already; close one, or try again later");
        ApiError::too_much("too_many_readers", message, RETRY)
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    Ok(Reader::new(journal, last, wiring.tasks, permit).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(journal: &Journal, after: u64) -> (Vec<u64>, bool) {
        let (entries, missed) = journal.after(after);
        (entries.iter().map(|entry| entry.id).collect(), missed)
    }

    #[test]
    fn the_journal_is_bounded_and_says_if_entries_were_dropped() {
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
