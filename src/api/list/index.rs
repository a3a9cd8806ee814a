//! The index of working public proxies, from which `/list`, `/random` and `/stats` are answered, and the worker that
//! renews the index.
//!
//! The worker runs on a background thread, because sorting 10,000 proxies would delay requests and relayed connections.
//! Before the worker publishes a new index, it prepares the answers for the queries that the old index has received. So
//! a program that requests the same list every second never waits until the list is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use metrics::gauge;
use serde::Serialize;
use utoipa::ToSchema;

use super::form::{self, Lines};
use super::is_shown;
use super::query::{Format, Query, Row};
use crate::exit::country::Country;
use crate::exit::{Abilities, Exit, Moment, Source, Verdict};
use crate::lifecycle::{Tasks, yielding};
use crate::state::{Snapshot, State};
use crate::telemetry::metrics as names;

/// The shortest time between two indexes. Lists show ages in seconds, so a new index within the same second would
/// change nothing.
const EVERY: Duration = Duration::from_secs(1);

/// The largest number of queries whose answers an index keeps. The answer of any other query is computed each time. Not
/// tuned.
const KEPT: usize = 32;

/// Counts of public proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) struct Counts {
    /// Proxies that are on a list now.
    total_proxies: usize,
    /// Proxies that passed their last check.
    working_proxies: usize,
    /// Proxies that failed their last check.
    failed_proxies: usize,
    /// Proxies without a check so far.
    untested_proxies: usize,
    /// Proxies that were found tampering with pages or intercepting TLS.
    condemned_proxies: usize,
    /// Working proxies through which HTTPS sites can be reached.
    https_proxies: usize,
    /// Working proxies by protocol.
    #[schema(value_type = BTreeMap<String, usize>)]
    protocols: BTreeMap<&'static str, usize>,
    /// Working proxies by anonymity.
    #[schema(value_type = BTreeMap<String, usize>)]
    anonymity: BTreeMap<&'static str, usize>,
    /// Working proxies by country; `??` for an unknown country.
    countries: BTreeMap<String, usize>,
}

/// The working public proxies at one moment.
#[derive(Debug, Default)]
pub(super) struct ListIndex {
    at: Moment,
    /// The proxies, sorted by speed, the fastest first.
    exits: Vec<Arc<Exit>>,
    /// The filter fields of each proxy, in the same order as `exits`.
    rows: Vec<Row>,
    counts: Counts,
    lines: OnceLock<Lines>,
    asked: Mutex<HashMap<Box<str>, Arc<Answer>>>,
    /// True after a request has read this index.
    read: AtomicBool,
}

/// The answer to one query. It is computed when it is first needed.
#[derive(Debug)]
struct Answer {
    query: Query,
    /// The positions in `exits` of the proxies that match the query.
    matching: OnceLock<Vec<u32>>,
    written: OnceLock<Bytes>,
    /// True after a request has used this answer.
    asked: AtomicBool,
}

impl ListIndex {
    fn of(snapshot: &Snapshot, at: Moment) -> Self {
        let mut sorted = Vec::new();
        let (mut counts, mut countries) = (Counts::default(), BTreeMap::new());
        for exit in snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public) {
            yielding::yield_if_due();
            counts.add(exit, &mut countries);
            if is_shown(exit) {
                let took = exit.known().public.map_or(Duration::MAX, |able| able.took);
                sorted.push((took, exit.clone()));
            }
        }
        counts.countries = countries.into_iter().map(|(country, count)| (country.to_string(), count)).collect();
        sorted.sort_by_key(|(took, _)| *took);
        let exits: Vec<_> = sorted.into_iter().map(|(_, exit)| exit).collect();
        let rows = exits.iter().inspect(|_| yielding::yield_if_due()).map(|exit| Row::of(exit)).collect();
        Self { at, exits, rows, counts, ..Self::default() }
    }

    /// Creates an index in which the answers for the queries of the index `before` are computed already.
    fn after(before: &Self, snapshot: &Snapshot, at: Moment) -> Self {
        let index = Self::of(snapshot, at);
        if before.lines.get().is_some() {
            index.lines();
        }
        let asked = before.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (text, old) in asked.into_iter().filter(|(_, old)| old.asked.load(Ordering::Relaxed)) {
            let answer = index.answer(&text, &old.query);
            answer.asked.store(false, Ordering::Relaxed);
            if old.matching.get().is_some() {
                index.matching(&answer);
            }
            if old.written.get().is_some() {
                index.written(&answer);
            }
        }
        index
    }

    /// Returns the moment of the index. Ages of checks are computed relative to this moment.
    pub(super) fn at(&self) -> Moment {
        self.at
    }

    pub(super) fn counts(&self) -> Counts {
        self.read.store(true, Ordering::Relaxed);
        self.counts.clone()
    }

    /// Returns the list for a query. `text` is the query as the caller wrote it.
    pub(super) fn list(&self, text: &str, query: &Query) -> Bytes {
        if query.is_open() && query.format == Format::Text {
            self.read.store(true, Ordering::Relaxed);
            return self.lines().first(query.limit);
        }
        self.written(&self.answer(text, query))
    }

    /// Returns one proxy that matches a query. The function `draw` gets the number of matching proxies and picks one of
    /// them.
    pub(super) fn one(
        &self,
        text: &str,
        query: &Query,
        draw: impl FnOnce(usize) -> Option<usize>,
    ) -> Option<&Arc<Exit>> {
        if query.is_open() {
            self.read.store(true, Ordering::Relaxed);
            return self.exits.get(draw(self.exits.len())?);
        }
        let answer = self.answer(text, query);
        let matching = self.matching(&answer);
        self.exits.get(*matching.get(draw(matching.len())?)? as usize)
    }

    fn answer(&self, text: &str, query: &Query) -> Arc<Answer> {
        self.read.store(true, Ordering::Relaxed);
        let mut kept = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = kept.get(text) {
            answer.asked.store(true, Ordering::Relaxed);
            return answer.clone();
        }
        let (matching, written) = (OnceLock::new(), OnceLock::new());
        let answer = Arc::new(Answer { query: query.clone(), matching, written, asked: AtomicBool::new(true) });
        if kept.len() < KEPT {
            kept.insert(text.into(), answer.clone());
        }
        answer
    }

    fn matching<'a>(&self, answer: &'a Answer) -> &'a [u32] {
        answer.matching.get_or_init(|| {
            let wanted = (0..).zip(&self.rows).filter(|(_, row)| answer.query.matches(row, self.at));
            wanted.map(|(place, _)| place).collect()
        })
    }

    fn written(&self, answer: &Answer) -> Bytes {
        let write = || {
            let Query { format, limit, .. } = answer.query;
            let places = self.matching(answer).iter().take(limit).map(|place| *place as usize);
            match format {
                Format::Text => self.lines().of_places(places),
                _ => form::write(format, places.filter_map(|place| self.exits.get(place)), self.at),
            }
        };
        answer.written.get_or_init(write).clone()
    }

    /// Returns all proxies as lines of text.
    fn lines(&self) -> &Lines {
        self.lines.get_or_init(|| Lines::of(&self.exits))
    }
}

impl Counts {
    fn add(&mut self, exit: &Exit, countries: &mut BTreeMap<Country, usize>) {
        let marks = exit.known().marks;
        self.condemned_proxies += usize::from(marks.bad_for_good);
        if !exit.alive() {
            return;
        }
        self.total_proxies += 1;
        match exit.known().verdict {
            Verdict::Untested => self.untested_proxies += 1,
            Verdict::Bad => self.failed_proxies += 1,
            Verdict::Good => {
                self.add_working(exit);
                *countries.entry(exit.country()).or_default() += 1;
            }
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
    }

    fn set_gauges(&self) {
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

/// Holds the newest index. A clone is cheap.
#[derive(Clone, Debug)]
pub struct ListCache(Arc<ArcSwap<ListIndex>>);

impl ListCache {
    /// Creates an index of the present state. So the proxies that the last run stored are listed before they are
    /// checked again.
    pub fn new(state: &State) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(ListIndex::of(&state.load(), state.now()))))
    }

    pub(super) fn newest(&self) -> Arc<ListIndex> {
        self.0.load_full()
    }
}

/// Creates new indexes until the gateway stops.
pub(in crate::api) async fn watch(cache: ListCache, state: State, tasks: Tasks) {
    let mut revisions = state.revisions();
    let mut tick = tokio::time::interval(EVERY);
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopping() => return,
            _ = tick.tick() => {}
        }
        let changed = revisions.has_changed().unwrap_or(false);
        // An index contains how long ago each proxy was checked. These ages grow even if the state has not changed. So
        // the index is renewed every second while requests read it.
        if changed || cache.0.load().read.load(Ordering::Relaxed) {
            revisions.mark_unchanged();
            let index = ListIndex::after(&cache.newest(), &state.snapshot(), state.now());
            index.counts.set_gauges();
            cache.0.store(Arc::new(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    fn query(format: Format, country: Option<&str>) -> Query {
        let countries = country.map(|code| [Country::parse(code).unwrap()].into_iter().collect());
        Query { limit: usize::MAX, format, countries, ..Query::default() }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_index_lists_working_proxies_fastest_first_without_passwords() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10), ("", 0), ("FR", 20)]);
        let index = ListIndex::of(&snapshot, Moment(9));
        let all = index.list("", &query(Format::Text, None));
        assert_eq!(text(&all), "http://192.0.2.2:80\nhttp://192.0.2.1:80\n", "the last one needs a login");
        let counts = index.counts();
        assert_eq!((counts.total_proxies, counts.working_proxies, counts.failed_proxies), (4, 3, 1));
        assert_eq!(counts.countries.len(), 3);
    }

    #[test]
    fn a_list_is_a_part_of_all_in_every_format() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10), ("US", 20)]);
        let index = ListIndex::of(&snapshot, Moment(9));
        let us = |format| index.list(&format!("{format:?}"), &query(format, Some("US")));
        assert_eq!(text(&us(Format::Text)), "http://192.0.2.3:80\nhttp://192.0.2.1:80\n");
        assert_eq!(text(&us(Format::Proxychains)), "http 192.0.2.3 80\nhttp 192.0.2.1 80\n");
        let first = index.list("limit=1", &Query { limit: 1, ..query(Format::Text, None) });
        assert_eq!(text(&first), "http://192.0.2.2:80\n");
        let first = index.list("limit=1&country=us", &Query { limit: 1, ..query(Format::Text, Some("US")) });
        assert_eq!(text(&first), "http://192.0.2.3:80\n");
        let one = |country, place| {
            let found = index.one("one", &query(Format::Text, country), |_| Some(place));
            found.map(|exit| exit.id().to_string())
        };
        assert_eq!(one(None, 2).as_deref(), Some("http://192.0.2.1:80"));
        assert_eq!(one(Some("US"), 0).as_deref(), Some("http://192.0.2.3:80"));
        assert_eq!(one(Some("US"), 2), None, "there are two");
    }

    #[test]
    fn the_answer_of_a_repeated_query_is_prepared() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10), ("US", 20)]);
        let first = ListIndex::of(&snapshot, Moment(9));
        first.list("a", &query(Format::Csv, Some("US")));
        first.one("b", &query(Format::Text, Some("DE")), |_| None);
        first.list("c", &query(Format::Text, Some("DE")));
        let ready = |index: &ListIndex, text: &str| {
            let asked = index.asked.lock().unwrap();
            asked.get(text).map(|answer| (answer.matching.get().is_some(), answer.written.get().is_some()))
        };
        let second = ListIndex::after(&first, &snapshot, Moment(10));
        assert_eq!(ready(&second, "a"), Some((true, true)));
        assert_eq!(ready(&second, "b"), Some((true, false)));
        assert!(second.lines.get().is_some());
        second.list("a", &query(Format::Csv, Some("US")));
        let third = ListIndex::after(&second, &snapshot, Moment(11));
        assert_eq!((ready(&third, "a"), ready(&third, "b")), (Some((true, true)), None), "an unused answer is dropped");
        (0..1000).for_each(|n| _ = third.list(&n.to_string(), &query(Format::Csv, Some("US"))));
        assert!(third.asked.lock().unwrap().len() <= KEPT);
    }
}
