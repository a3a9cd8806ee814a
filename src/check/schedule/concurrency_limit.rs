//! Limits how many checks run at the same time. The limit is lower while circuits are slow.
//!
//! Tor engines build circuits at a limited rate, for live requests and for checks. If the tester requests circuits
//! faster than this rate, all circuits wait in a queue, and checks time out although their exits are not at fault. So
//! the number of checks at the same time has a limit that changes, as TCP changes its window.
//!
//! If the limit is 20, it grows to 21 after 20 checks got their circuits in time. Every check that waited too long for
//! its circuit makes the limit a tenth smaller. So many late circuits reduce the limit quickly, but a single late
//! circuit does not leave the engines idle.

use std::time::Duration;

/// If a circuit took longer than this, the circuit has waited for other circuits. On the public network, the build of a
/// circuit takes about one second. Not tuned.
const SOON: Duration = Duration::from_secs(3);

/// The smallest limit of running checks. The value is above one, because one check that waits must not stop all other
/// checks.
const LEAST: f64 = 2.0;

/// The factor by which the limit shrinks when a check waited too long. With a factor of 0.5, a tenth of the engines'
/// rate was unused in the simulation in this file's tests.
const SHRINK: f64 = 0.9;

#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    size: f64,
    most: f64,
}

impl ConcurrencyLimit {
    /// Returns a limit that begins with its highest value `most`, because engines can build many circuits at the start.
    pub(super) fn new(most: usize) -> Self {
        Self { size: most as f64, most: most as f64 }
    }

    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// Records how long a check waited for its circuit.
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

    /// Simulates engines that build two circuits per second, in the order of the requests. A check takes three seconds
    /// after it got its circuit. The limit must reach a value at which no check waits long and no engine is idle.
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
