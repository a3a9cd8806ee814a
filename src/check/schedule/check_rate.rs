//! Limits how many checks begin per second. After a pause without checks, the checks that are allowed in one second may
//! begin at the same time.

use std::time::Duration;

use crate::exit::Moment;

/// After a pause without checks, the checks that are allowed in this time may begin at the same time. Not tuned: a
/// guard sees the same number of circuits per second from any busy client.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct CheckRate {
    each: Duration,
    /// The time at which all checks so far would have begun, if they had begun exactly at the allowed rate.
    paid_until: Moment,
}

impl CheckRate {
    pub(super) fn new(per_second: f64) -> Self {
        let each = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX);
        Self { each, paid_until: Moment(0) }
    }

    /// Counts a check that begins now. If the check begins before the time that [`Self::next`] returns, later checks
    /// wait longer.
    pub(super) fn take(&mut self, now: Moment) {
        self.paid_until = self.paid_until.max(now).after(self.each);
    }

    /// Returns the time at which the next check may begin.
    pub(super) fn next(&self) -> Moment {
        let saved = BURST.max(self.each).saturating_sub(self.each).as_micros() as u64;
        Moment(self.paid_until.0.saturating_sub(saved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_788_314_400_000_000);

    fn taken(per_second: f64, seconds: u64) -> usize {
        let mut rate = CheckRate::new(per_second);
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
        let mut rate = CheckRate::new(1.0);
        (0..3).for_each(|_| rate.take(START));
        assert_eq!(rate.next(), START.after(Duration::from_secs(3)));
    }
}
