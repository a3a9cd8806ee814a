//! How many checks run at once: as many as allowed, and fewer while circuits are slow to come.
//!
//! Engines build circuits at a limited rate, for live requests and for checks alike. If the tester asks for more, all
//! circuits queue, and checks time out through no fault of their exits. So the limit is adjusted as TCP adjusts its
//! window: it grows by one when as many checks as the limit allows got their circuits in time, and shrinks by a tenth
//! with every check that waited too long. Many late circuits reduce it quickly; a single one leaves no engine idle.

use std::time::Duration;

/// A circuit that took longer has waited for others: building one takes about a second on the public network. Not tuned.
const SOON: Duration = Duration::from_secs(3);

/// The smallest limit: one check that waits must not stop all others.
const LEAST: f64 = 2.0;

/// What a check that waited leaves of the limit. With 0.5, a tenth of the engines' rate was unused in the simulation below.
const SHRINK: f64 = 0.9;

#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    size: f64,
    most: f64,
}

impl ConcurrencyLimit {
    /// Begins with the highest limit: engines can build many circuits at the start.
    pub(super) fn new(most: usize) -> Self {
        Self { size: most as f64, most: most as f64 }
    }

    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// Notes how long a check waited for its circuit.
    pub(super) fn waited(&mut self, wait: Duration) {
        let next = if wait <= SOON { self.size + 1.0 / self.size } else { self.size * SHRINK };
        self.size = next.clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinks_while_circuits_are_late_and_grows_back() {
        let mut concurrency = ConcurrencyLimit::new(50);
        (0..10).for_each(|_| concurrency.waited(Duration::from_secs(9)));
        assert_eq!(concurrency.size(), 17);
        (0..100).for_each(|_| concurrency.waited(Duration::MAX));
        assert_eq!(concurrency.size(), 2);
        (0..2).for_each(|_| concurrency.waited(SOON));
        assert_eq!(concurrency.size(), 2, "growing by one takes as many checks as the limit");
        concurrency.waited(SOON);
        assert_eq!(concurrency.size(), 3);
        (0..2000).for_each(|_| concurrency.waited(Duration::ZERO));
        assert_eq!(concurrency.size(), 50);
        let mut one = ConcurrencyLimit::new(1);
        one.waited(Duration::MAX);
        assert_eq!(one.size(), 1);
    }

    /// Two circuits a second are built, in the order of the requests, and a check takes three seconds after its circuit.
    /// The limit must settle where no check waits for long, and no engine is idle.
    #[test]
    fn the_limit_settles_where_engines_keep_up() {
        let mut concurrency = ConcurrencyLimit::new(50);
        let (mut running, mut queue, mut waits, mut built) = (Vec::<u64>::new(), Vec::<u64>::new(), Vec::new(), 0);
        for half in 0..2_000u64 {
            running.retain(|end| *end > half);
            while running.len() + queue.len() < concurrency.size() {
                queue.push(half);
            }
            if !queue.is_empty() {
                let wait = half - queue.remove(0);
                (built, running) = (built + 1, {
                    running.push(half + 6);
                    running
                });
                concurrency.waited(Duration::from_millis(500 * wait));
                waits.push(wait);
            }
        }
        let late = waits[200..].iter().filter(|wait| **wait > 10).count();
        assert!(late == 0, "{late} of {} waited more than five seconds", waits.len());
        assert!(built > 1_900, "only {built} of 2000 turns were used");
    }
}
