//! What the pool of circuits does when the first hop (the guard or bridge) is silent.

use super::*;

impl Pool {
    /// Answers all waiting requests with an error, because then they can ask another engine. Builds that were started
    /// continue: their circuits become spares if the first hop answers after all.
    pub fn refuse_all(&mut self, fault: LeaseFault) {
        for waiter in self.groups.drain().flat_map(|(_, group)| group.waiters) {
            self.effects.push(Effect::Refuse { waiter, fault });
        }
    }

    /// Returns when the oldest of the builds began that tor has started and that no relay has answered yet.
    pub fn oldest_unanswered(&self) -> Option<Instant> {
        let began = |build: &Build| match build.state {
            BuildState::Launched(at, _) if build.reached.0 == 0 => Some(at),
            _ => None,
        };
        self.builds.values().filter_map(began).min()
    }

    /// Returns when the oldest of the commands was sent that build a circuit and that tor has not answered yet.
    pub fn oldest_command(&self) -> Option<Instant> {
        let sent = |build: &Build| match build.state {
            BuildState::Started(at) => Some(at),
            _ => None,
        };
        self.builds.values().filter_map(sent).min()
    }

    /// Calls [`Self::hang`] for all circuits through this guard, because the guard was found to be down. Closes those
    /// of these circuits that have no streams. Returns the circuits that were not marked as hung before.
    pub fn hang_through(&mut self, guard: Fingerprint, now: Instant) -> Vec<CircuitId> {
        let links: BTreeSet<Link> = self.circuits.values().filter_map(|c| c.path.first_chunk().copied()).collect();
        links.into_iter().filter(|link| link[0] == guard).flat_map(|link| self.hang_over(link, now)).collect()
    }
}
