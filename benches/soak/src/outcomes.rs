//! How all requests ended, and whether that meets the marks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::gateway::Footprint;

/// The share of requests on flexible routes that must succeed. Requests during an injected fault are excused.
const SUCCESS: f64 = 0.999;
/// How much more memory and descriptors there may be than before, as a share of what there was.
const GROWTH: f64 = 0.05;
/// Descriptors that may be open by chance: a connection to a source, files of the store.
const SLACK: u64 = 8;
/// How many wrong requests are printed in full; the rest are counted.
const PRINTED: usize = 20;

/// How a request may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The right bytes by an exit that was asked for.
    Good,
    /// A refusal, or a connection that ended early.
    Failed,
    /// Neither an answer nor an error within the client's patience.
    Hung,
}

#[derive(Debug, Default)]
struct Counts {
    begun: Option<Instant>,
    /// By kind of client: good, failed while nothing was broken, failed while something was, hung.
    kinds: BTreeMap<&'static str, [u64; 4]>,
    /// Each fault: from when to when it excuses requests; without an end while it lasts.
    faults: Vec<(&'static str, Instant, Option<Instant>)>,
    wrongs: Vec<String>,
    wrong: u64,
    reasons: BTreeMap<String, u64>,
}

/// The outcomes of all requests since [`Outcomes::begin`].
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<Counts>);

impl Outcomes {
    /// Forgets the outcomes of the warm-up, except wrong requests.
    pub fn begin(&self) {
        let mut counts = self.lock();
        let (wrong, wrongs) = (counts.wrong, std::mem::take(&mut counts.wrongs));
        *counts = Counts { begun: Some(Instant::now()), wrong, wrongs, ..Counts::default() };
    }

    /// Counts a request that began at `since` and ends now.
    pub fn ended(&self, kind: &'static str, since: Instant, end: End, reason: impl FnOnce() -> String) {
        let mut counts = self.lock();
        let now = Instant::now();
        let excused = counts.faults.iter().any(|(_, from, to)| *from <= now && to.is_none_or(|to| since <= to));
        let column = match end {
            End::Good => 0,
            End::Failed if excused => 2,
            End::Failed => 1,
            End::Hung => 3,
        };
        counts.kinds.entry(kind).or_default()[column] += 1;
        if matches!(column, 1 | 3) {
            *counts.reasons.entry(format!("{kind}: {}", reason())).or_default() += 1;
        }
    }

    /// Counts something that must never happen.
    pub fn wrong(&self, what: String) {
        let mut counts = self.lock();
        counts.wrong += 1;
        if counts.wrongs.len() < PRINTED {
            counts.wrongs.push(what);
        }
    }

    /// A fault begins now.
    pub fn fault_begins(&self, what: &'static str) {
        self.lock().faults.push((what, Instant::now(), None));
    }

    /// The last fault has ended; requests that begin within `grace` are still excused.
    pub fn fault_ends(&self, grace: Duration) {
        if let Some((_, _, to)) = self.lock().faults.last_mut() {
            *to = Some(Instant::now() + grace);
        }
    }

    /// Prints all outcomes, and returns whether every mark is met.
    pub fn report(&self, before: &Footprint, after: &Footprint) -> bool {
        let counts = self.lock();
        let took = counts.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        println!("\n{:<12} {:>8} {:>8} {:>8} {:>6}", "client", "good", "failed", "excused", "hung");
        for (kind, [good, failed, excused, hung]) in &counts.kinds {
            println!("{kind:<12} {good:>8} {failed:>8} {excused:>8} {hung:>6}");
        }
        for (reason, count) in &counts.reasons {
            println!("  {count:>5} × {reason}");
        }
        let mut kinds: BTreeMap<&str, (u32, Duration)> = BTreeMap::new();
        for (what, from, to) in &counts.faults {
            let entry = kinds.entry(what).or_default();
            entry.0 += 1;
            entry.1 += to.map_or(Duration::ZERO, |to| to - *from);
        }
        let faults: Vec<_> =
            kinds.iter().map(|(what, (count, long))| format!("{count} × {what} ({} s)", long.as_secs())).collect();
        println!("faults in {} s: {}", took.as_secs(), faults.join(", "));
        for wrong in &counts.wrongs {
            println!("WRONG: {wrong}");
        }
        let flexible = counts.kinds.iter().filter(|(kind, _)| !kind.contains("strict"));
        let (good, failed) =
            flexible.fold((0, 0), |(good, failed), (_, [more, bad, _, _])| (good + more, failed + bad));
        let hung: u64 = counts.kinds.values().map(|of| of[3]).sum();
        let rate = good as f64 / (good + failed).max(1) as f64;
        let within = |now: u64, then: u64, slack: u64| now as f64 <= then as f64 * (1.0 + GROWTH) + slack as f64;
        let marks = [
            (
                good > 0 && rate >= SUCCESS,
                format!("success on flexible routes {:.3} %, of {}", 100.0 * rate, good + failed),
            ),
            (
                counts.wrong == 0,
                format!("{} requests by a wrong exit, or other errors that must never happen", counts.wrong),
            ),
            (hung == 0, format!("{hung} hung clients")),
            (within(after.kib, before.kib, 0), format!("memory {} KiB, before {} KiB", after.kib, before.kib)),
            (
                within(after.descriptors, before.descriptors, SLACK),
                format!("descriptors {}, before {}", after.descriptors, before.descriptors),
            ),
            (after.engines == before.engines, format!("engines {}, before {}", after.engines, before.engines)),
            (after.connections == 0, format!("{} connections left open", after.connections)),
        ];
        for (holds, mark) in &marks {
            println!("{} {mark}", if *holds { "ok  " } else { "FAIL" });
        }
        marks.iter().all(|(holds, _)| *holds)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
