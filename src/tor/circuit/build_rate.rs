//! Limits how fast circuits are built through one guard, with a token bucket, and divides the builds among classes.
//! Pure: no I/O.
//!
//! Relays count the circuits that each client address builds, and refuse an address that builds too many. tor does not
//! limit circuits that a controller builds, so this gateway must limit them. In any period of the length `t`, all
//! classes together start at most `burst + rate * t` builds.
//!
//! - A *live* build has a waiting client. It may take the last token, so the first builds after a quiet time start
//!   immediately.
//! - A *spare* is built only while at least half of the burst is left for live builds.
//! - A *check* (a build for the tester of exits) takes only tokens that would be lost because the bucket is nearly
//!   full. So checks may use all of an idle engine's rate, and the clients that come next still find the whole burst.
//! - A *nudge* is a short test circuit, which shows whether circuits with clients' streams are dead. It may take the
//!   last token, but nudges have a smaller bucket of their own, so they cannot use up the burst.
//!
//! While clients want more builds than the rate allows, spares and checks would wait for ever. Therefore each of these
//! two classes has a small [`SHARE`] of the rate. If a class has waited so long that its share alone would have brought
//! one token, the class gets the next token before the clients.

use std::time::Duration;

use tokio::time::Instant;

/// The purposes for which a circuit is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BuildClass {
    /// A client waits for the circuit.
    #[default]
    Live,
    /// The circuit is kept ready for later clients.
    Spare,
    /// The tester of exits waits for the circuit.
    Check,
    /// The engine tests a link between two relays.
    Nudge,
}

/// The part of the rate that spares get, and that checks get, while clients want more than the whole rate. Any value
/// from 1/20 to 1/5 works: clients keep most of the rate, and a check waits some seconds and not minutes.
const SHARE: f64 = 1.0 / 8.0;

/// Checks may take only this number of tokens of a full bucket, and the rest stays for clients. The value is not 1.0,
/// because the bucket would then often be full before the next check starts. A full bucket gains no tokens, so a part
/// of the rate would be lost.
const CHECK_ROOM: f64 = 2.0;

/// The part of the rate and of the burst that nudges (test circuits) may use. A nudge costs less than a circuit for
/// clients, because it is one hop shorter. Not tuned: two nudges in three find no fault, so they should not take more
/// than half.
const NUDGE_SHARE: f64 = 1.0 / 2.0;

/// A token bucket: one token per circuit build.
#[derive(Clone, Debug)]
pub struct BuildRate {
    rate: f64,
    burst: f64,
    tokens: f64,
    /// The tokens in the bucket of the nudges (test circuits). Each nudge takes a token here and one of the main
    /// bucket.
    nudges: f64,
    at: Instant,
    /// Since when a spare waits for a token. `None` if no spare waits.
    spare_waits: Option<Instant>,
    /// Since when a check waits for a token. `None` if no check waits.
    check_waits: Option<Instant>,
}

impl BuildRate {
    /// Returns a full bucket. `rate` is in builds per second. The rate is at least one build a minute, because with a
    /// rate of 0 no circuit would ever be built.
    pub fn new(rate: f64, burst: u32, now: Instant) -> Self {
        let (rate, burst) = (rate.max(1.0 / 60.0), f64::from(burst.max(1)));
        let nudges = nudge_burst(burst);
        Self { rate, burst, tokens: burst, nudges, at: now, spare_waits: None, check_waits: None }
    }

    /// Changes the rate (builds per second) and the burst (the most tokens in the bucket). Tokens beyond the new burst
    /// are dropped.
    pub fn set(&mut self, rate: f64, burst: u32) {
        self.rate = rate.max(1.0 / 60.0);
        self.burst = f64::from(burst.max(1));
        self.tokens = self.tokens.min(self.burst);
        self.nudges = self.nudges.min(nudge_burst(self.burst));
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.nudges = (self.nudges + passed * self.rate * NUDGE_SHARE).min(nudge_burst(self.burst));
        self.at = self.at.max(now);
    }

    /// Returns how many tokens a build of this class must leave in the bucket for live builds.
    fn floor(&self, class: BuildClass) -> f64 {
        match class {
            BuildClass::Live | BuildClass::Nudge => 0.0,
            BuildClass::Spare => (self.burst / 2.0).floor(),
            BuildClass::Check => (self.burst - CHECK_ROOM).max((self.burst / 2.0).floor()),
        }
    }

    /// Returns the field with the time since when a build of this class waits. `None` for classes without a guaranteed
    /// share.
    fn waits(&mut self, class: BuildClass) -> Option<&mut Option<Instant>> {
        match class {
            BuildClass::Spare => Some(&mut self.spare_waits),
            BuildClass::Check => Some(&mut self.check_waits),
            BuildClass::Live | BuildClass::Nudge => None,
        }
    }

    /// Returns the time from which the next build of this class goes before the builds for clients. At that time, the
    /// class has waited so long that its share of the rate alone would have allowed one build. `None` if no build of
    /// the class waits, or if the class has no share.
    fn share_due(&self, class: BuildClass) -> Option<Instant> {
        let since = match class {
            BuildClass::Spare => self.spare_waits,
            BuildClass::Check => self.check_waits,
            BuildClass::Live | BuildClass::Nudge => None,
        };
        Some(since? + Duration::from_secs_f64(1.0 / (self.rate * SHARE)))
    }

    /// Returns true if a build of this class goes before live builds now, because its class has waited for its share.
    pub fn is_overdue(&self, class: BuildClass, now: Instant) -> bool {
        self.share_due(class).is_some_and(|due| due <= now)
    }

    /// Records that no build of this class waits any more.
    pub fn nobody_waits(&mut self, class: BuildClass) {
        if let Some(since) = self.waits(class) {
            *since = None;
        }
    }

    /// Takes a token for one build and returns true. Returns false if a build of this class may take no token now.
    pub fn take(&mut self, class: BuildClass, now: Instant) -> bool {
        self.refill(now);
        let floor = if self.is_overdue(class, now) { 0.0 } else { self.floor(class) };
        let allowed = class != BuildClass::Nudge || self.nudges >= 1.0;
        let taken = allowed && self.tokens >= floor + 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        if taken && class == BuildClass::Nudge {
            self.nudges -= 1.0;
        }
        if let Some(since) = self.waits(class) {
            *since = if taken { None } else { Some(since.unwrap_or(now)) };
        }
        taken
    }

    /// Returns how long the caller must wait until [`BuildRate::take`] may succeed for a live build, a spare or a check.
    pub fn wait(&self, class: BuildClass, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let until = |tokens: f64| (tokens - self.tokens) / self.rate - passed;
        let by_floor = until(self.floor(class) + 1.0);
        let by_share =
            self.share_due(class).map(|due| until(1.0).max(due.saturating_duration_since(now).as_secs_f64()));
        Duration::from_secs_f64(by_share.map_or(by_floor, |share| by_floor.min(share)).max(0.0))
    }

    /// Returns how long it takes until `builds` live builds have a token, if no other class takes any.
    pub fn at_best(&self, builds: usize, now: Instant) -> Duration {
        self.until(builds, self.rate, now)
    }

    /// Returns how long it takes until `builds` live builds have a token while spares and checks take their shares.
    pub fn at_worst(&self, builds: usize, now: Instant) -> Duration {
        self.until(builds, self.rate * (1.0 - 2.0 * SHARE), now)
    }

    fn until(&self, builds: usize, rate: f64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let tokens = (self.tokens + passed * self.rate).min(self.burst);
        Duration::from_secs_f64(((builds as f64 - tokens) / rate).max(0.0))
    }
}

fn nudge_burst(burst: f64) -> f64 {
    (burst * NUDGE_SHARE).max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::BuildClass::{Check, Live, Nudge, Spare};
    use super::*;

    const ALL: [BuildClass; 4] = [Live, Spare, Check, Nudge];

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// The number of builds of a class that start at the time `now`.
    fn at_once(rate: &mut BuildRate, class: BuildClass, now: Instant) -> usize {
        (0..100).filter(|_| rate.take(class, now)).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut pace = BuildRate::new(2.0, 4, start);
        assert_eq!(at_once(&mut pace, Live, start), 4);
        assert_eq!(pace.wait(Live, start), Duration::from_millis(500));
        assert_eq!(pace.wait(Live, start + seconds(0.2)), Duration::from_millis(300));
        let mut later = 0;
        for step in 1..=100 {
            later += usize::from(pace.take(Live, start + Duration::from_millis(100 * step)));
        }
        assert_eq!(later, 20, "two a second for ten seconds");
    }

    #[test]
    fn each_class_leaves_its_part_of_the_burst_to_clients() {
        let start = Instant::now();
        for (class, taken, left) in [(Live, 20, 0), (Spare, 10, 10), (Check, 2, 18), (Nudge, 10, 10)] {
            let mut pace = BuildRate::new(1.0, 20, start);
            assert_eq!(at_once(&mut pace, class, start), taken, "{class:?}");
            assert_eq!(at_once(&mut pace, Live, start), left, "{class:?}");
        }
        let mut small = BuildRate::new(1.0, 3, start);
        assert_eq!(at_once(&mut small, Check, start), 2, "a small burst is shared by halves");
        assert_eq!(at_once(&mut BuildRate::new(1.0, 1, start), Check, start), 1, "the only token");
    }

    #[test]
    fn checks_alone_use_the_whole_rate_and_the_burst_stays() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 20, start);
        let mut checks = 0;
        let mut now = start;
        while now < start + seconds(600.0) {
            checks += usize::from(pace.take(Check, now));
            now += pace.wait(Check, now).max(Duration::from_millis(20));
            assert!(pace.at_best(18, now).is_zero(), "clients find at least 18 tokens");
        }
        assert!((598..=603).contains(&checks), "{checks}");
    }

    #[test]
    fn a_class_that_waits_gets_its_share_while_clients_want_everything() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 20, start);
        assert_eq!(at_once(&mut pace, Live, start), 20);
        let mut counts = [0; 4];
        for step in 0..8000 {
            let now = start + seconds(f64::from(step) * 0.1);
            let first = [Spare, Check].into_iter().filter(|class| pace.is_overdue(*class, now));
            for class in first.collect::<Vec<_>>().into_iter().chain([Live, Spare, Check]) {
                counts[class as usize] += usize::from(pace.take(class, now));
            }
        }
        assert_eq!(counts.iter().sum::<usize>(), 799, "{counts:?}");
        assert!(counts[Spare as usize].abs_diff(99) <= 1, "one in eight: {counts:?}");
        assert!(counts[Check as usize].abs_diff(99) <= 1, "{counts:?}");
    }

    #[test]
    fn a_share_is_due_only_after_a_wait() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 20, start);
        assert!(!pace.is_overdue(Check, start + seconds(1000.0)), "nobody waits");
        assert_eq!(at_once(&mut pace, Check, start), 2);
        let due = start + seconds(8.0);
        assert!(!pace.is_overdue(Check, due - seconds(0.1)) && pace.is_overdue(Check, due));
        assert!(!pace.is_overdue(Live, due) && !pace.is_overdue(Spare, due) && !pace.is_overdue(Nudge, due));
        pace.nobody_waits(Check);
        assert!(!pace.is_overdue(Check, due));
    }

    #[test]
    fn the_wait_is_as_long_as_the_class_must_wait() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 20, start);
        assert_eq!((pace.wait(Live, start), pace.wait(Check, start)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(at_once(&mut pace, Live, start), 20);
        assert!(!pace.take(Check, start) && !pace.take(Spare, start));
        assert_eq!(pace.wait(Live, start), seconds(1.0));
        assert_eq!(pace.wait(Spare, start), seconds(8.0), "its share comes before half of the burst is there");
        assert_eq!(pace.wait(Check, start + seconds(2.0)), seconds(6.0));
        pace.nobody_waits(Check);
        assert_eq!(pace.wait(Check, start), seconds(19.0));
    }

    #[test]
    fn the_time_until_a_number_of_builds() {
        let start = Instant::now();
        let mut pace = BuildRate::new(2.0, 4, start);
        assert_eq!((pace.at_best(4, start), pace.at_best(10, start)), (Duration::ZERO, seconds(3.0)));
        assert_eq!(pace.at_worst(10, start), seconds(4.0));
        assert_eq!(at_once(&mut pace, Live, start), 4);
        assert_eq!(pace.at_best(1, start), seconds(0.5));
        assert_eq!(pace.at_best(3, start + seconds(0.5)), seconds(1.0));
        assert_eq!(pace.at_best(4, start + seconds(100.0)), Duration::ZERO, "no more than the burst");
        assert_eq!(pace.at_best(6, start + seconds(100.0)), seconds(1.0));
    }

    #[test]
    fn nudges_have_half_of_the_rate() {
        let start = Instant::now();
        let mut pace = BuildRate::new(2.0, 20, start);
        let nudges = (0..600).filter(|step| pace.take(Nudge, start + seconds(f64::from(*step) * 0.1))).count();
        assert_eq!(nudges, 69, "ten, and one a second");
        let mut empty = BuildRate::new(1.0, 20, start);
        assert_eq!(at_once(&mut empty, Live, start), 20);
        assert!(!empty.take(Nudge, start));
    }

    #[test]
    fn new_limits_bound_what_is_there() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 20, start);
        pace.set(2.0, 6);
        assert_eq!(at_once(&mut pace, Nudge, start), 3);
        assert_eq!(at_once(&mut pace, Live, start), 3);
        assert_eq!(pace.wait(Live, start), seconds(0.5));
    }

    #[test]
    fn no_rate_at_all_still_builds_now_and_then() {
        let start = Instant::now();
        let mut pace = BuildRate::new(0.0, 0, start);
        assert!(pace.take(Live, start) && !pace.take(Live, start));
        assert!(pace.take(Live, start + Duration::from_secs(60)));
        pace.set(0.0, 0);
        assert_eq!(pace.wait(Live, start + Duration::from_secs(60)), Duration::from_secs(60), "one build a minute");
        assert!(!pace.take(Live, start + Duration::from_secs(60)));
        assert!(pace.take(Live, start + Duration::from_secs(120)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Relays count the builds of every period, so the builds of every period must be limited, not only their sum
        /// since the start.
        #[test]
        fn no_mix_of_classes_is_taken_for_a_flood(
            rate in 0.1f64..5.0,
            burst in 1u32..40,
            steps in prop::collection::vec((0usize..4, 0u32..8, 0u32..30_000), 1..400),
        ) {
            let start = Instant::now();
            let mut pace = BuildRate::new(rate, burst, start);
            let (mut now, mut taken) = (start, Vec::new());
            for (class, count, pause) in steps.into_iter().cycle() {
                for _ in 0..count {
                    if pace.take(ALL[class], now) {
                        taken.push(now);
                    }
                }
                now += Duration::from_millis(u64::from(pause)) + Duration::from_millis(1);
                if now > start + seconds(3600.0) {
                    break;
                }
            }
            // A guard limits circuits with a token bucket of its own. The test simulates this bucket, with the same
            // rate and burst as the gateway's bucket.
            let (mut bucket, mut last) = (f64::from(burst), start);
            for at in taken {
                bucket = (bucket + (at - last).as_secs_f64() * rate).min(f64::from(burst)) - 1.0;
                last = at;
                prop_assert!(bucket > -1e-6, "{bucket}");
            }
        }
    }
}
