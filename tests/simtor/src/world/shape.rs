//! How fast bytes go: each relay and the uplink carry so many a second, and those who share one wait in turn.
//!
//! Pieces are small and every stream asks for one at a time, so that streams through one relay get equal shares of what
//! it carries without anybody dividing it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{BRIDGE, World};
use crate::fault::Uplink;

/// Less than this is not waited for: timers are no finer.
const GRAIN: Duration = Duration::from_millis(2);

/// Who bounds what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    Uplink,
    Relay(usize),
}

/// Until when each of them is busy with what was given to it.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    busy: HashMap<Bound, Instant>,
}

impl Buckets {
    /// Gives bytes to one that carries so many a second; when they have passed.
    fn take(&mut self, bound: Bound, bytes: usize, rate: f64, now: Instant) -> Instant {
        let busy = self.busy.entry(bound).or_insert(now);
        *busy = (*busy).max(now) + Duration::from_secs_f64(bytes as f64 / rate);
        *busy
    }
}

impl World {
    /// Waits until bytes have passed the uplink, the guard and the exit; `exit_rate` is what a fault leaves of the exit.
    pub(super) async fn carry(&self, path: &[usize], bytes: usize, exit_rate: Option<u64>) {
        let passed = self.passed(path, bytes, exit_rate);
        if passed.is_some_and(|passed| passed > Instant::now() + GRAIN) {
            tokio::time::sleep_until(passed.unwrap_or_else(Instant::now)).await;
        }
    }

    fn passed(&self, path: &[usize], bytes: usize, exit_rate: Option<u64>) -> Option<Instant> {
        let (now, speed) = (Instant::now(), self.settings.speed);
        let mut state = self.state();
        let mut latest = None;
        let mut take = |state: &mut super::State, bound, rate: f64| {
            let passed = state.buckets.take(bound, bytes, (rate * speed).max(1.0), now);
            latest = latest.max(Some(passed));
        };
        if let Uplink::Slow { bytes_per_second, .. } = state.faults.uplink() {
            take(&mut state, Bound::Uplink, bytes_per_second as f64);
        }
        let ends = [path.first(), path.last().filter(|_| path.len() > 1)];
        let exit = path.last().copied();
        for relay in ends.into_iter().flatten().copied().filter(|relay| *relay != BRIDGE) {
            let free = self.model.relays()[relay].capacity as f64 * (1.0 - self.settings.load);
            match exit_rate.filter(|_| Some(relay) == exit) {
                Some(rate) => take(&mut state, Bound::Relay(relay), rate as f64),
                None if self.settings.shaped => take(&mut state, Bound::Relay(relay), free),
                None => {}
            }
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_share_a_relay_wait_for_one_another_and_rest_is_not_saved_up() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut take = |relay, bytes, at| buckets.take(Bound::Relay(relay), bytes, 1000.0, at) - start;
        assert_eq!((take(1, 1000, start), take(1, 1000, start), take(2, 1000, start)), (second, second * 2, second));
        assert_eq!(take(1, 1000, start + second * 10), second * 11);
    }
}
