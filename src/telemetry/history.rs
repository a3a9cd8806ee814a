//! The figures of the last 24 hours, one entry per minute: requests, failures by who was at fault, the time to open a
//! stream, and usable exits. The console draws its charts from these figures, so the charts exist without Prometheus
//! and survive a reload of the page.
//!
//! The counts of all requests are in [`TOTALS`]. A worker of the API takes a reading of them every [`EVERY`] and adds
//! the difference from the previous reading to the present minute of the [`History`].
//!
//! The history is in memory only. It needs the same memory on every gateway, because it holds at most [`MINUTES`]
//! entries and has no labels. A restart of the gateway loses it: a gateway whose figures must outlive a restart is read
//! by Prometheus anyway, and a write to the disk every minute would serve no other reader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics::SECONDS;

/// The time between two readings of the totals. Not tuned: six readings make a minute, so the newest values of a chart
/// are at most ten seconds old.
pub const EVERY: Duration = Duration::from_secs(10);

/// The number of minutes that are kept: 24 hours.
pub const MINUTES: usize = 24 * 60;

/// The number of buckets for durations: one for each upper bound in [`SECONDS`], and one for longer durations.
const BUCKETS: usize = SECONDS.len() + 1;

/// Who was at fault when a request failed. Each failure of the gateway belongs to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFault {
    /// The client: a wrong request, a wrong key, a limit, or a target that the configuration forbids.
    Client,
    /// No exit matched the selector or was usable.
    NoExit,
    /// The gateway or its engines (tor processes).
    Gateway,
    Exit,
    Target,
    /// The deadline passed before the gateway knew who was at fault.
    Unknown,
}

impl AtFault {
    pub const ALL: [Self; 6] = [Self::Client, Self::NoExit, Self::Gateway, Self::Exit, Self::Target, Self::Unknown];

    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::NoExit => "no_exit",
            Self::Gateway => "gateway",
            Self::Exit => "exit",
            Self::Target => "target",
            Self::Unknown => "unknown",
        }
    }
}

/// The counts of all requests of this process since its start. The room `gateway` increases them.
pub static TOTALS: Totals = Totals::new();

/// Counts of requests that many threads may increase.
#[derive(Debug)]
pub struct Totals {
    succeeded: AtomicU64,
    /// The failed requests, in the order of [`AtFault::ALL`].
    failed: [AtomicU64; AtFault::ALL.len()],
    /// The streams that were opened, by the duration from the request to the open stream.
    opened: [AtomicU64; BUCKETS],
}

impl Default for Totals {
    fn default() -> Self {
        Self::new()
    }
}

impl Totals {
    pub const fn new() -> Self {
        Self {
            succeeded: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; AtFault::ALL.len()],
            opened: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Counts a request that ended. `failed` is `None` if the request succeeded.
    pub fn ended(&self, failed: Option<AtFault>) {
        failed.map_or(&self.succeeded, |fault| &self.failed[fault as usize]).fetch_add(1, Relaxed);
    }

    /// Counts a stream that was opened this long after its request.
    pub fn opened(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        self.opened[SECONDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
    }

    /// Returns the present counts.
    pub fn read(&self) -> Reading {
        let each = |counts: &AtomicU64| counts.load(Relaxed);
        Reading {
            succeeded: each(&self.succeeded),
            failed: self.failed.each_ref().map(each),
            opened: self.opened.each_ref().map(each),
        }
    }
}

/// The counts of [`Totals`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    succeeded: u64,
    failed: [u64; AtFault::ALL.len()],
    opened: [u64; BUCKETS],
}

/// The figures of one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// The number of this minute since 1970.
    pub number: u32,
    /// All requests that ended in this minute, with the failed requests.
    pub requests: u32,
    /// The failed requests, in the order of [`AtFault::ALL`].
    pub failed: [u32; AtFault::ALL.len()],
    /// The smallest number of usable exits that a reading of this minute found.
    pub usable: u32,
    /// The median time in milliseconds from a request to its open stream. `None` if no stream was opened.
    pub open_p50: Option<u32>,
    /// The time in milliseconds below which 95 % of the streams were opened.
    pub open_p95: Option<u32>,
}

/// The minutes of the last 24 hours.
#[derive(Debug)]
pub struct History(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// The minutes in ascending order. Minutes without a reading are absent.
    minutes: VecDeque<Minute>,
    previous: Reading,
    /// The streams that were opened in the present minute, by duration.
    opened: [u64; BUCKETS],
}

impl History {
    /// Creates an empty history. Its first minute begins with the counts in `now`.
    pub fn new(now: Reading) -> Self {
        let minutes = VecDeque::with_capacity(MINUTES);
        Self(Mutex::new(Kept { minutes, previous: now, opened: [0; BUCKETS] }))
    }

    /// Adds what changed since the previous reading to the minute `number`. `usable` is the number of exits that are
    /// usable now. A reading whose minute is older than the newest one (the clock of the machine was set back) counts
    /// for the newest one.
    pub fn add(&self, number: u32, reading: Reading, usable: u32) {
        let mut kept = self.open();
        let Kept { minutes, previous, opened } = &mut *kept;
        if minutes.back().is_none_or(|newest| newest.number < number) {
            while minutes.front().is_some_and(|oldest| u64::from(oldest.number) + MINUTES as u64 <= u64::from(number)) {
                minutes.pop_front();
            }
            *opened = [0; BUCKETS];
            let failed = [0; AtFault::ALL.len()];
            minutes.push_back(Minute { number, requests: 0, failed, usable, open_p50: None, open_p95: None });
        }
        let Some(minute) = minutes.back_mut() else { return };
        let more = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        for (at, (now, before)) in reading.failed.iter().zip(previous.failed).enumerate() {
            minute.failed[at] = minute.failed[at].saturating_add(more(*now, before));
            minute.requests = minute.requests.saturating_add(more(*now, before));
        }
        minute.requests = minute.requests.saturating_add(more(reading.succeeded, previous.succeeded));
        for (at, (now, before)) in reading.opened.iter().zip(previous.opened).enumerate() {
            opened[at] += now.saturating_sub(before);
        }
        minute.usable = minute.usable.min(usable);
        (minute.open_p50, minute.open_p95) = (quantile(opened, 0.5), quantile(opened, 0.95));
        *previous = reading;
    }

    /// Returns the last `count` minutes up to the newest one, the oldest first. A minute without a reading is `None`.
    /// The list begins with the first minute that is known, so it is shorter if the gateway is younger.
    pub fn last(&self, count: usize) -> Vec<Option<Minute>> {
        let kept = self.open();
        let (Some(oldest), Some(newest)) = (kept.minutes.front(), kept.minutes.back()) else { return Vec::new() };
        let count = u32::try_from(count.min(MINUTES)).unwrap_or(u32::MAX);
        let begin = oldest.number.max((newest.number + 1).saturating_sub(count));
        let mut found = kept.minutes.iter().skip_while(|minute| minute.number < begin).peekable();
        (begin..=newest.number).map(|number| found.next_if(|minute| minute.number == number).copied()).collect()
    }

    fn open(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the duration in milliseconds below which the share `share` of the counted durations lies. Interpolates within
/// a bucket. Returns `None` if nothing was counted.
fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<u32> {
    let total: u64 = counts.iter().sum();
    let wanted = total as f64 * share;
    let mut below = 0.0;
    for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= wanted {
            let low = if at == 0 { 0.0 } else { SECONDS[at - 1] };
            let high = SECONDS.get(at).copied().unwrap_or(low);
            return Some((1000.0 * (low + (high - low) * (wanted - below) / count)).round() as u32);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> (Totals, History) {
        let totals = Totals::new();
        let history = History::new(totals.read());
        (totals, history)
    }

    #[test]
    fn each_minute_has_what_was_counted_since_the_reading_before() {
        let (totals, history) = history();
        totals.ended(None);
        totals.ended(Some(AtFault::Exit));
        history.add(100, totals.read(), 7);
        totals.ended(Some(AtFault::Unknown));
        history.add(100, totals.read(), 4);
        totals.ended(None);
        history.add(101, totals.read(), 9);
        let minutes = history.last(10);
        let [Some(first), Some(second)] = minutes[..] else { panic!("{minutes:?}") };
        assert_eq!((first.requests, first.failed, first.usable), (3, [0, 0, 0, 1, 0, 1], 4));
        assert_eq!((second.requests, second.failed, second.usable), (1, [0; 6], 9));
    }

    #[test]
    fn counts_from_before_the_first_reading_belong_to_no_minute() {
        let totals = Totals::new();
        totals.ended(None);
        let history = History::new(totals.read());
        history.add(5, totals.read(), 0);
        assert_eq!(history.last(1)[0].unwrap().requests, 0);
    }

    #[test]
    fn the_time_to_open_is_of_one_minute_alone() {
        let (totals, history) = history();
        (0..10).for_each(|_| totals.opened(Duration::from_millis(300)));
        history.add(1, totals.read(), 0);
        history.add(2, totals.read(), 0);
        (0..10).for_each(|_| totals.opened(Duration::from_secs(90)));
        history.add(3, totals.read(), 0);
        let of = |minute: &Option<Minute>| minute.map(|minute| (minute.open_p50, minute.open_p95)).unwrap();
        let found: Vec<_> = history.last(3).iter().map(of).collect();
        assert_eq!(found[0], (Some(375), Some(488)), "between the bounds 250 ms and 500 ms");
        assert_eq!(found[1], (None, None));
        assert_eq!(found[2], (Some(60_000), Some(60_000)), "the largest bound stands for everything above it");
    }

    #[test]
    fn a_duration_equal_to_a_bound_is_in_the_bucket_of_the_bound() {
        let totals = Totals::new();
        totals.opened(Duration::ZERO);
        totals.opened(Duration::from_millis(1));
        totals.opened(Duration::from_micros(1001));
        assert_eq!(totals.read().opened[..4], [1, 1, 1, 0]);
    }

    #[test]
    fn memory_is_bounded_to_a_day_of_minutes() {
        let (totals, history) = history();
        let days = 3 * MINUTES as u32;
        (0..days).for_each(|number| history.add(number, totals.read(), 1));
        let kept = history.open();
        assert_eq!((kept.minutes.len(), kept.minutes.front().unwrap().number), (MINUTES, days - MINUTES as u32));
        assert_eq!(kept.minutes.capacity(), MINUTES, "the list never grows beyond its first size");
        assert!(MINUTES * size_of::<Minute>() < 100_000, "{} bytes per minute", size_of::<Minute>());
    }

    #[test]
    fn minutes_without_a_reading_are_gaps_and_a_long_gap_empties_the_history() {
        let (totals, history) = history();
        [10, 13].into_iter().for_each(|number| history.add(number, totals.read(), 1));
        let numbers = |count| history.last(count).iter().map(|one| one.map(|one| one.number)).collect::<Vec<_>>();
        assert_eq!(numbers(100), [Some(10), None, None, Some(13)]);
        assert_eq!(numbers(2), [None, Some(13)]);
        history.add(9, totals.read(), 0);
        assert_eq!(numbers(1), [Some(13)], "the clock was set back");
        history.add(13 + MINUTES as u32 - 1, totals.read(), 1);
        assert_eq!(history.last(usize::MAX).len(), MINUTES);
        assert_eq!(history.last(usize::MAX)[0].unwrap().number, 13);
        history.add(90_000, totals.read(), 1);
        assert_eq!(numbers(usize::MAX), [Some(90_000)]);
    }

    #[test]
    fn nothing_known_is_an_empty_list() {
        assert!(history().1.last(5).is_empty());
    }
}
