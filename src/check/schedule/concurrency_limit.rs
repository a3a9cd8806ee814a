//! How many checks at once: as many as allowed, and fewer while circuits are slow to come.
//!
//! Engines build circuits at a pace of their own, one after another, for live requests and for checks alike. A tester
//! that asks for more than they build makes a queue in which everybody waits, and in which checks run out of time
//! through no fault of their exits. So the room grows by one with each roomful of checks that got their circuits soon,
//! as TCP's window does, and shrinks by a tenth with every check that waited: many late ones make it small quickly, a
//! single one does not leave engines idle.

use std::time::Duration;

/// A circuit that came within this came soon. Arbitrary: a build takes about a second on the public network, so that one
/// that took three waited for others.
const SOON: Duration = Duration::from_secs(3);

/// The room never gets smaller than this. Arbitrary: one check that waits must not stop all others.
const LEAST: f64 = 2.0;

/// What a check that waited leaves of the room. In the simulation below half left a tenth of the engines' pace unused.
const SHRINK: f64 = 0.9;

#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    size: f64,
    most: f64,
}

impl ConcurrencyLimit {
    /// Begins with all of it: engines have a burst saved up at the start.
    pub(super) fn new(most: usize) -> Self {
        Self { size: most as f64, most: most as f64 }
    }

    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// A check waited so long for its circuit.
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
        assert_eq!(concurrency.size(), 2, "growing by one takes a roomful");
        concurrency.waited(SOON);
        assert_eq!(concurrency.size(), 3);
        (0..2000).for_each(|_| concurrency.waited(Duration::ZERO));
        assert_eq!(concurrency.size(), 50);
        let mut one = ConcurrencyLimit::new(1);
        one.waited(Duration::MAX);
        assert_eq!(one.size(), 1);
    }

    /// Two circuits a second are built, first come first served, and a check takes three seconds after its circuit:
    /// the room must come to where nobody waits for long, and nothing is left idle.
    #[test]
    fn settles_where_the_engines_keep_up() {
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
