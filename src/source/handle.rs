//! The status of each source, which the API path `/sources` shows, and a function that refreshes a source immediately.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::exit::AccountFault;
use crate::store::Source;
use crate::telemetry::metrics as names;

/// A handle on one source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) status: watch::Receiver<Source>,
    pub(super) refresh: Arc<Notify>,
}

impl Handle {
    /// Returns a handle, and the sender with which the source's worker updates the status. `known` is the status of the
    /// source at the end of the last run of the gateway.
    pub(super) fn new(name: &str, known: Option<Source>) -> (Self, watch::Sender<Source>) {
        let fresh = || Source { name: name.to_owned(), outcome: "never".to_owned(), ..Source::default() };
        let (sender, status) = watch::channel(known.unwrap_or_else(fresh));
        (Self { status, refresh: Arc::default() }, sender)
    }

    /// Returns a receiver of the source's status, which is updated after each change.
    pub fn status(&self) -> watch::Receiver<Source> {
        self.status.clone()
    }

    /// Triggers the next request of this source: now, or one minute after the last request if that is later.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }
}

/// The handles of all sources that are in use.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Handle>);

impl Sources {
    pub fn statuses(&self) -> Vec<Source> {
        self.0.iter().map(|handle| handle.status.borrow().clone()).collect()
    }

    /// Returns the source with this name.
    pub fn get(&self, name: &str) -> Option<&Handle> {
        self.0.iter().find(|handle| handle.status.borrow().name == name)
    }
}

impl FromIterator<Handle> for Sources {
    fn from_iter<I: IntoIterator<Item = Handle>>(handles: I) -> Self {
        Self(handles.into_iter().collect())
    }
}

impl IntoIterator for Sources {
    type Item = Handle;
    type IntoIter = std::vec::IntoIter<Handle>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<Handle> for Sources {
    fn extend<I: IntoIterator<Item = Handle>>(&mut self, handles: I) {
        self.0.extend(handles);
    }
}

/// Counts the outcome of a request in a metric. Logs the outcome if it differs from the outcome of the request before.
pub(super) fn report(before: &Source, now: &Source) {
    let label = || now.name.clone();
    metrics::counter!(names::SOURCE_REQUESTS, "source" => label(), "outcome" => now.outcome.clone()).increment(1);
    metrics::gauge!(names::SOURCE_RECORDS, "source" => label()).set(now.records);
    for (name, at) in [(names::SOURCE_GOOD, now.good), (names::SOURCE_PUBLISHED, now.published)] {
        if let Some(at) = at {
            metrics::gauge!(name, "source" => label()).set(at.0 as f64 / 1e6);
        }
    }
    let Source { name: source, outcome, why, records, skipped, .. } = now;
    let bad = |status: &Source| status.failures > 0 || status.outcome == "stale";
    match (bad(now), before.outcome == *outcome && before.why == *why) {
        (true, false) if [AccountFault::Login, AccountFault::Quota].iter().any(|fault| fault.as_str() == outcome) => {
            tracing::warn!(source, outcome, why, "the provider of a source refuses the account")
        }
        (true, false) => {
            tracing::warn!(source, outcome, why, "a source gives no good answer; its last good one is still used")
        }
        (true, true) => tracing::debug!(source, outcome, why, "a source still gives no good answer"),
        (false, _) if bad(before) || before.good.is_none() => {
            tracing::info!(source, outcome, records, skipped, why, "a source answers")
        }
        (false, _) => tracing::debug!(source, outcome, records, skipped, why, "a source answered"),
    }
}
