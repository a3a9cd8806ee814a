//! Limits how often something begins, for example checks per second or requests per hour. After a pause, several may
//! begin at the same time.

use std::time::Duration;

use crate::exit::Moment;

/// After a pause without checks, all checks that the rate allows within this time may begin at the same moment. Not
/// tuned: any busy client makes a guard build as many circuits in one second.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct CheckRate {
    each: Duration,
    /// After a pause, as many events may begin at the same time as the rate allows within this time.
    burst: Duration,
    /// Each event uses up the time `each`, one event after the other. This is the end of the time that is used up so
    /// far.
    paid_until: Moment,
}

impl CheckRate {
    pub(super) fn per_second(rate: f64) -> Self {
        Self::new(Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX), BURST)
    }

    /// Returns a limit of one event in the time `each`. After a pause, the events of the time `burst` may begin
    /// together.
    pub(super) fn new(each: Duration, burst: Duration) -> Self {
        Self { each, burst: burst.max(each), paid_until: Moment(0) }
    }

    /// Counts one event that begins now. If it begins before the time that [`Self::next`] returns, later events wait
    /// longer.
    pub(super) fn take(&mut self, now: Moment) {
        self.paid_until = self.paid_until.max(now).after(self.each);
    }

    /// Reverses the last call of [`Self::take`], because the event did not begin after all.
    pub(super) fn give_back(&mut self) {
        self.paid_until = before(self.paid_until, self.each);
    }

    /// Returns the time from which the next event may begin.
    pub(super) fn next(&self) -> Moment {
        before(self.paid_until, self.burst - self.each)
    }

    /// Returns the time from which at least half of the largest possible burst may begin together.
    pub(super) fn next_half(&self) -> Moment {
        before(self.paid_until, self.burst / 2)
    }

    /// Returns how many events may begin now.
    pub(super) fn left(&self, now: Moment) -> u64 {
        let left = self.burst.saturating_sub(self.paid_until.since(now));
        (left.as_micros() / self.each.as_micros().max(1)) as u64
    }
}

fn before(at: Moment, span: Duration) -> Moment {
    Moment(at.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_788_314_400_000_000);

    fn taken(per_second: f64, seconds: u64) -> usize {
        let mut rate = CheckRate::per_second(per_second);
        let millis = (0..seconds * 1000).map(|ms| START.after(Duration::from_millis(ms)));
        millis
            .map(|now| {
                let mut count = 0;
                while rate.next() <= now {
                    rate.take(now);
                    count += 1;
                }
                count
            })
            .sum()
    }

    #[test]
    fn holds_its_rate_after_the_burst() {
        assert_eq!(taken(5.0, 1), 9, "a burst of five and one every 200 ms");
        assert_eq!(taken(5.0, 60), 304);
        assert_eq!(taken(0.5, 60), 30);
        assert!((taken(1000.0, 10) as i64 - 11_000).abs() < 10);
    }

    #[test]
    fn checks_taken_early_delay_the_next() {
        let mut rate = CheckRate::per_second(1.0);
        (0..3).for_each(|_| rate.take(START));
        assert_eq!(rate.next(), START.after(Duration::from_secs(3)));
    }
}
