//! Refuses requests for a circuit that would wait in vain.
//!
//! Each engine builds about one circuit a second. If clients want far more for some time, and every request waited in
//! the queue, all of them would time out together. So a request is refused immediately if its build could not begin
//! early enough, and the others are served.
//!
//! A request that could be served in time must never be refused. So the decision assumes the best case: no further
//! builds come before the builds that are in the queue now, and the build of the request takes only as long as the
//! quickest of the recent builds. A refused client also gets a time after which it should try again. This time assumes
//! the worst case.

use super::*;

/// The number of builds that [`BuildTimes`] remembers: enough for a 95th percentile, few enough to follow a change of
/// the guard or the uplink within a minute.
const REMEMBERED: usize = 40;

/// The build time that counts as slow before any build was measured: the 95th percentile of the public network.
const SLOW: Duration = Duration::from_secs(3);

/// How long the latest builds took, from the command to the complete circuit.
#[derive(Clone, Debug, Default)]
pub(super) struct BuildTimes {
    latest: VecDeque<Duration>,
}

impl BuildTimes {
    pub(super) fn add(&mut self, took: Duration) {
        if self.latest.len() == REMEMBERED {
            self.latest.pop_front();
        }
        self.latest.push_back(took);
    }

    /// Returns the time of the quickest build. Zero if no build was measured.
    pub(super) fn quickest(&self) -> Duration {
        self.latest.iter().min().copied().unwrap_or_default()
    }

    /// Returns the 95th percentile of the build times: one build in twenty takes longer.
    pub(super) fn p95(&self) -> Duration {
        let mut sorted: Vec<_> = self.latest.iter().copied().collect();
        sorted.sort_unstable();
        let at = (sorted.len() * 19).div_ceil(20).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(SLOW)
    }
}

impl Pool {
    /// Returns how long a client's request waits, in the best case, until the build of its circuit can begin. Zero if
    /// the request gets an existing circuit, or if the build has begun.
    pub fn queue_wait(&self, key: Key, isolation: Isolation, now: Instant) -> Duration {
        let is_old = |circuit: &Circuit| !circuit.doomed && circuit.is_dirty(self.limits.dirty, now);
        let usable = |circuit: &Circuit| match circuit.owner {
            _ if is_old(circuit) => false,
            Some(owner) => owner == isolation && circuit.streams < self.limits.streams && !circuit.hung,
            None => !circuit.doomed,
        };
        let ids = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        if ids.iter().filter_map(|id| self.circuits.get(id)).any(usable) {
            return Duration::ZERO;
        }
        self.pace.at_best(self.builds_until(key, isolation), now)
    }

    /// Returns how long a refused client should wait before it tries again: until all builds that are queued now are
    /// done, even if spares and checks take their shares of the rate.
    pub fn retry_after(&self, now: Instant) -> Duration {
        self.pace.at_worst(self.live_queue().count() + 1, now) + self.times.p95()
    }

    /// Returns true if a client's request certainly gets no circuit before its deadline.
    pub(super) fn is_too_late(&self, key: Key, isolation: Isolation, deadline: Instant, now: Instant) -> bool {
        let earliest = now + self.pace.at_best(self.builds_until(key, isolation), now) + self.times.quickest();
        // If no other client's build is queued, the request is accepted even if it seems too late: its build may be
        // quicker than earlier builds, and it delays no other client.
        earliest > deadline && self.live_queue().next().is_some()
    }

    /// Returns the number of builds that must begin until the build for this request has begun.
    fn builds_until(&self, key: Key, isolation: Isolation) -> usize {
        let mut mine = false;
        for build in self.builds.values().filter(|build| build.key == key) {
            let has_begun = build.state != BuildState::Queued;
            let is_mine = build.owner.is_none_or(|owner| owner == isolation && self.has_room(key, isolation));
            if is_mine && has_begun {
                return 0;
            }
            mine |= build.owner == Some(isolation) && is_mine;
        }
        let of_mine = |id: &BuildId| self.builds.get(id).is_some_and(|b| b.key == key && b.owner == Some(isolation));
        let before = if mine { self.live_queue().position(|id| of_mine(&id)) } else { None };
        before.unwrap_or_else(|| self.live_queue().count()) + 1
    }

    /// Returns true if the next circuit for this exit and isolation key will have room for one more request.
    fn has_room(&self, key: Key, isolation: Isolation) -> bool {
        let waiting = self.groups.get(&(key, isolation)).map_or(0, |group| group.waiters.len());
        let builds = self.builds.values().filter(|build| build.key == key && build.owner == Some(isolation)).count();
        waiting < builds * usize::from(self.limits.streams)
    }

    /// Returns the queued builds for which a client still waits.
    fn live_queue(&self) -> impl Iterator<Item = BuildId> + '_ {
        self.queues.live.iter().copied().filter(|id| self.is_needed(*id))
    }
}
