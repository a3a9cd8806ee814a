//! `/events`: a stream of events (server-sent events) for people who watch the gateway and programs that wait for
//! something.
//!
//! A worker writes each event into a journal of limited length, and every reader reads the journal. Each entry of the
//! journal has a number. The numbers begin with the time at which the process started, so entries of an earlier process
//! always have smaller numbers.
//!
//! A reader whose connection was lost connects again and sends the number of the last entry that it got as
//! `Last-Event-ID`. It then gets the entries after that number. If the journal has dropped some of these entries, the
//! reader first gets the event `missed`, and should read the complete lists of the API again. A reader that sends the
//! number 0 gets everything that the journal has, without `missed`: it has no older state that could be wrong.
//!
//! Events about pins and bans are frequent on a busy gateway. They are kept apart from the others, so that a thousand
//! moved pins do not displace the event that an engine stopped.
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
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch as latest};
use utoipa::IntoParams;

use self::feed::Reader;
use super::Wiring;
use super::error::{ApiError, Problem};
use super::extract::Params;
use super::timestamp::Timestamp;
use crate::exit::Moment;

pub(super) use self::watch::watch;

/// The number of frequent entries (events about pins and bans) that the journal keeps, and the number of other entries.
/// Not tuned: on a busy gateway, the frequent ones are the events of some minutes, and the others those of some days.
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
    kept: Mutex<Kept>,
    latest: latest::Sender<u64>,
    readers: Arc<Semaphore>,
}

/// The entries of the journal, each list in ascending order of the numbers.
#[derive(Default)]
struct Kept {
    /// Entries about pins and bans.
    frequent: VecDeque<Entry>,
    other: VecDeque<Entry>,
    /// The number of the newest entry that was dropped. 0 if none was dropped yet.
    dropped: u64,
}

impl Kept {
    fn push(&mut self, entry: Entry) {
        let frequent = entry.kind.starts_with("pin.") || entry.kind.starts_with("ban.");
        let list = if frequent { &mut self.frequent } else { &mut self.other };
        if list.len() == KEPT {
            let oldest = list.pop_front().map_or(0, |oldest| oldest.id);
            self.dropped = self.dropped.max(oldest);
        }
        list.push_back(entry);
    }

    fn after(&self, id: u64) -> Vec<Entry> {
        let newer = |list: &VecDeque<Entry>| list.iter().filter(|entry| entry.id > id).cloned().collect::<Vec<_>>();
        let mut found = newer(&self.frequent);
        found.extend(newer(&self.other));
        found.sort_unstable_by_key(|entry| entry.id);
        found
    }
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
        kept.push(Entry { id, kind, data });
        drop(kept);
        self.latest.send_replace(id);
    }

    /// Returns the entries after the entry `id`. The flag is true if some entries after `id` have been dropped already,
    /// unless `id` is 0.
    fn after(&self, id: u64) -> (Vec<Entry>, bool) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.after(id), id > 0 && id < kept.dropped)
    }
}

/// The query of `GET /events`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SinceQuery {
    /// Begin after the event with this number, as `Last-Event-ID` does; 0 begins with the oldest event that is kept. `Last-Event-ID` comes first if both are given.
    since: Option<u64>,
}

/// Follows events as they happen (server-sent events): from now on, or after `Last-Event-ID` or `since`.
#[utoipa::path(get, path = "/events", tag = "traffic",
    params(SinceQuery, ("Last-Event-ID" = Option<String>, Header, description = "The number of the last event that the reader has")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn events(
    State(wiring): State<Wiring>,
    Params(query): Params<SinceQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let journal = wiring.journal;
    let permit = journal.readers.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{READERS} readers follow the events already; close one, or try again later");
        ApiError::too_much("too_many_readers", message, RETRY)
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    Ok(Reader::new(journal, last.or(query.since), wiring.tasks, permit).into_response())
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
        assert_eq!(ids(&journal, 1003), (left.clone(), false));
        assert_eq!(ids(&journal, 0), (left, false), "a reader that knows nothing missed nothing");
    }

    #[test]
    fn many_pins_and_bans_do_not_displace_other_events() {
        let journal = Journal::new(Moment(10));
        journal.write(Moment(1), "engine", json!({}));
        (0..KEPT).for_each(|_| journal.write(Moment(1), "pin.moved", json!({})));
        journal.write(Moment(1), "ban.made", json!({}));
        journal.write(Moment(1), "source", json!({}));
        let (entries, missed) = journal.after(11);
        assert_eq!((entries.len(), missed), (KEPT + 1, true), "the first pin is gone");
        let (entries, _) = journal.after(0);
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        assert!(ids.is_sorted() && ids[0] == 11, "{ids:?}");
        assert_eq!((entries[0].kind, entries.last().unwrap().kind), ("engine", "source"));
    }
}
