//! What lists show, as of a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use metrics::gauge;
use serde::Serialize;
use utoipa::ToSchema;

use super::is_shown;
use crate::exit::{Abilities, Exit, Moment, Source, Verdict};
use crate::lifecycle::Tasks;
use crate::state::{Snapshot, State};
use crate::telemetry::metrics as names;

/// How often there is a new edition at most. Arbitrary: ages are told in seconds.
const EVERY: Duration = Duration::from_secs(1);

/// Answers that an edition keeps written. Arbitrary: more than programs ask for alike; whoever varies his question gets
/// it answered all the same.
const WRITTEN: usize = 32;

/// How many public proxies there are of which kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) struct Counts {
    /// That lists name now.
    total_proxies: usize,
    /// That passed their last test.
    working_proxies: usize,
    /// That did not.
    failed_proxies: usize,
    /// That nobody has tested yet.
    untested_proxies: usize,
    /// That were caught tampering or intercepting.
    condemned_proxies: usize,
    /// Working ones through which HTTPS sites can be reached.
    https_proxies: usize,
    /// Working ones by protocol.
    #[schema(value_type = BTreeMap<String, usize>)]
    protocols: BTreeMap<&'static str, usize>,
    /// Working ones by anonymity.
    #[schema(value_type = BTreeMap<String, usize>)]
    anonymity: BTreeMap<&'static str, usize>,
    /// Working ones by country; `??` for those nobody knows.
    countries: BTreeMap<String, usize>,
}

/// Working public proxies at one moment.
#[derive(Debug, Default)]
pub(super) struct Edition {
    at: Moment,
    /// The fastest first.
    exits: Vec<Arc<Exit>>,
    counts: Counts,
    written: Mutex<HashMap<Box<str>, Bytes>>,
    /// Somebody has read it.
    read: AtomicBool,
}

impl Edition {
    fn of(snapshot: &Snapshot, at: Moment) -> Self {
        let mut counts = Counts::default();
        let mut exits = Vec::new();
        for exit in snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public) {
            counts.add(exit);
            if is_shown(exit) {
                exits.push(exit.clone());
            }
        }
        let took = |exit: &Arc<Exit>| exit.known().public.map_or(Duration::MAX, |able| able.took);
        exits.sort_by_cached_key(took);
        Self { at, exits, counts, ..Self::default() }
    }

    /// The moment that ages are counted to.
    pub(super) fn at(&self) -> Moment {
        self.at
    }

    pub(super) fn exits(&self) -> &[Arc<Exit>] {
        &self.exits
    }

    pub(super) fn counts(&self) -> Counts {
        self.read.store(true, Ordering::Relaxed);
        self.counts.clone()
    }

    /// The answer to a question, written by `write` unless it is there already.
    pub(super) fn written(&self, question: &str, write: impl FnOnce() -> Bytes) -> Bytes {
        self.read.store(true, Ordering::Relaxed);
        let held = || self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = held().get(question) {
            return body.clone();
        }
        let body = write();
        let mut held = held();
        if held.len() < WRITTEN {
            held.insert(question.into(), body.clone());
        }
        body
    }
}

impl Counts {
    fn add(&mut self, exit: &Exit) {
        let marks = exit.known().marks;
        self.condemned_proxies += usize::from(marks.bad_for_good);
        if !exit.alive() {
            return;
        }
        self.total_proxies += 1;
        match exit.known().verdict {
            Verdict::Untested => self.untested_proxies += 1,
            Verdict::Bad => self.failed_proxies += 1,
            Verdict::Good => self.add_working(exit),
        }
    }

    fn add_working(&mut self, exit: &Exit) {
        self.working_proxies += 1;
        if let crate::exit::ExitId::Public(id) = exit.id() {
            *self.protocols.entry(id.protocol.as_str()).or_default() += 1;
        }
        if let Some(Abilities { anonymity, tls, .. }) = exit.known().public {
            self.https_proxies += usize::from(tls);
            *self.anonymity.entry(anonymity.as_str()).or_default() += 1;
        }
        *self.countries.entry(exit.country().to_string()).or_default() += 1;
    }

    fn tell(&self) {
        let all = [
            ("working", self.working_proxies),
            ("failed", self.failed_proxies),
            ("untested", self.untested_proxies),
            ("condemned", self.condemned_proxies),
        ];
        for (outcome, count) in all {
            gauge!(names::PUBLIC_PROXIES, "outcome" => outcome).set(count as f64);
        }
    }
}

/// Where the newest edition lies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<ArcSwap<Edition>>);

impl Shelf {
    /// With an edition of this moment: what the last run knew is served before anybody tests it again.
    pub fn new(state: &State) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Edition::of(&state.load(), state.now()))))
    }

    pub(super) fn newest(&self) -> Arc<Edition> {
        self.0.load_full()
    }
}

/// The worker that makes editions, until shutdown.
pub(in crate::api) async fn watch(shelf: Shelf, state: State, tasks: Tasks) {
    let mut revisions = state.revisions();
    let mut tick = tokio::time::interval(EVERY);
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopping() => return,
            _ = tick.tick() => {}
        }
        let changed = revisions.has_changed().unwrap_or(false);
        // Ages go on while nothing changes, for those who look at them.
        if changed || shelf.0.load().read.load(Ordering::Relaxed) {
            revisions.mark_unchanged();
            let edition = Edition::of(&state.snapshot(), state.now());
            edition.counts.tell();
            shelf.0.store(Arc::new(edition));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn an_edition_shows_what_works_the_fastest_first_and_no_passwords() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10), ("", 0), ("FR", 20)]);
        let edition = Edition::of(&snapshot, Moment(9));
        let countries: Vec<_> = edition.exits().iter().map(|exit| exit.country().to_string()).collect();
        assert_eq!(countries, ["DE", "US"], "the last one has a login");
        let counts = edition.counts();
        assert_eq!((counts.total_proxies, counts.working_proxies, counts.failed_proxies), (4, 3, 1));
        assert_eq!(counts.countries.len(), 3);
    }

    #[test]
    fn an_answer_is_written_once_an_edition() {
        let edition = Edition::default();
        let mut times = 0;
        for question in ["", "limit=5", "", "limit=5"] {
            let body = edition.written(question, || {
                times += 1;
                question.to_owned().into()
            });
            assert_eq!(body, question);
        }
        assert_eq!(times, 2);
        (0..1000).for_each(|n| _ = edition.written(&n.to_string(), Bytes::new));
        assert!(edition.written.lock().unwrap().len() <= WRITTEN);
    }
}
