//! What the pool of circuits does when the first hop (the guard or bridge) is silent.

use super::*;

impl Pool {
    /// Answers all waiting requests with an error, so the requests can ask another engine. Builds that were started
    /// continue: their circuits become spares if the first hop answers after all.
    pub fn refuse_all(&mut self, fault: LeaseFault) {
        for waiter in self.groups.drain().flat_map(|(_, group)| group.waiters) {
            self.effects.push(Effect::Refuse { waiter, fault });
        }
    }

    /// Returns the start time of the oldest build that tor has started and that no relay has answered yet. `None` if
    /// there is no such build.
    pub fn oldest_unanswered(&self) -> Option<Instant> {
        let began = |build: &Build| match build.state {
            BuildState::Launched(at, _) if build.reached.0 == 0 => Some(at),
            _ => None,
        };
        self.builds.values().filter_map(began).min()
    }

    /// Returns the time at which the oldest command to build a circuit was sent, among the commands that tor has not
    /// answered yet. `None` if tor has answered all of them.
    pub fn oldest_command(&self) -> Option<Instant> {
        let sent = |build: &Build| match build.state {
            BuildState::Started(at) => Some(at),
            _ => None,
        };
        self.builds.values().filter_map(sent).min()
    }

    /// Called when this guard is found to be down. Calls [`Self::hang`] for all circuits through the guard, and closes
    /// those of them that have no streams. Returns the circuits that were not marked as hung before.
    pub fn hang_through(&mut self, guard: Fingerprint, now: Instant) -> Vec<CircuitId> {
        let links: BTreeSet<Link> = self.circuits.values().filter_map(|c| c.path.first_chunk().copied()).collect();
        links.into_iter().filter(|link| link[0] == guard).flat_map(|link| self.hang_over(link, now)).collect()
    }
}
