//! Asking, lending and giving back.

use super::*;

impl Pool {
    /// A place on a circuit that is there now, if there is one that is not busy: the first question, put to every engine
    /// before any of them is made to build.
    pub fn lend(&mut self, key: Key, isolation: Isolation, now: Instant) -> Option<LeaseAnswer> {
        let own = self.best_own(key, isolation, now);
        let busy = own.is_none_or(|id| self.circuits.get(&id).is_none_or(|circuit| circuit.is_busy(now)));
        let fresh = if busy && self.own_count(key, isolation) < PARALLEL { self.spare(key) } else { None };
        self.take(fresh.or(own)?, isolation, now)
    }

    /// A place on a circuit, or a place in the queue for one.
    pub fn ask(&mut self, key: Key, isolation: Isolation, now: Instant) -> LeaseAnswer {
        if let Some(lent) = self.lend(key, isolation, now) {
            return lent;
        }
        if let Some(doomed) = self.doomed_own(key, isolation) {
            // Its replacement is a spare like any other, so that it is not lost if nobody comes back for it.
            if !self.builds.values().any(|build| build.key == key) {
                self.enqueue(key, None);
            }
            if let Some(lent) = self.take(doomed, isolation, now) {
                self.start_builds(now);
                return lent;
            }
        }
        let waiter = WaiterId(self.id());
        self.groups.entry((key, isolation)).or_default().waiters.push_back(waiter);
        self.supply(key, isolation);
        self.start_builds(now);
        LeaseAnswer::Wait(waiter)
    }

    /// Somebody who waited is gone.
    pub fn forget(&mut self, waiter: WaiterId) {
        for group in self.groups.values_mut() {
            group.waiters.retain(|other| *other != waiter);
        }
        self.groups.retain(|_, group| !group.waiters.is_empty());
    }

    /// A place is given back: the stream is gone, or never was.
    pub fn release(&mut self, id: CircuitId, now: Instant) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        circuit.streams = circuit.streams.saturating_sub(1);
        circuit.last_use = now;
        if circuit.streams == 0 && (circuit.doomed || circuit.is_dirty(self.limits.dirty, now)) {
            self.close(id);
        }
    }

    /// A stream on it reached its target; true the first time.
    pub fn prove(&mut self, id: CircuitId) -> bool {
        self.circuits.get_mut(&id).is_some_and(|circuit| !std::mem::replace(&mut circuit.proven, true))
    }

    /// tor will close it soon: it is lent only while there is nothing better, and replaced if it was wanted.
    pub fn doom(&mut self, id: CircuitId, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.doomed = true;
            let key = circuit.key;
            self.restock_one(key, now);
            self.start_builds(now);
        }
    }

    /// Nothing came back over it for as long as tor waits: nobody is put on it again.
    pub fn hang(&mut self, id: CircuitId, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.hung = true;
            self.doom(id, now);
        }
    }

    /// The same for all that begin with this link: the circuits that were not known to hang.
    pub fn hang_over(&mut self, link: Link, now: Instant) -> Vec<CircuitId> {
        let over = self.circuits.iter().filter(|(_, circuit)| !circuit.hung && circuit.path.starts_with(&link));
        let ids: Vec<_> = over.map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.hang(*id, now));
        // One that nobody is on would be closed by nobody.
        let idle = |id: &&CircuitId| self.circuits.get(id).is_some_and(|circuit| circuit.streams == 0);
        ids.iter().filter(idle).copied().collect::<Vec<_>>().into_iter().for_each(|id| self.close(id));
        ids
    }

    /// The first two relays of a circuit.
    pub fn link(&self, id: CircuitId) -> Option<Link> {
        self.circuits.get(&id)?.path.first_chunk().copied()
    }

    /// The first two relays of every circuit that goes over one of these behind its guard, each pair once.
    pub fn links_over(&self, relays: &HashSet<Fingerprint>) -> Vec<Link> {
        let over = self.circuits.values().filter(|c| !c.hung && c.path.iter().skip(1).any(|r| relays.contains(r)));
        let links: BTreeSet<Link> = over.filter_map(|circuit| circuit.path.first_chunk().copied()).collect();
        links.into_iter().collect()
    }

    /// When a circuit was completed.
    pub fn built_at(&self, id: CircuitId) -> Option<Instant> {
        self.circuits.get(&id).map(|circuit| circuit.built)
    }

    /// What it carried lately.
    pub fn carried(&mut self, id: CircuitId, bytes: u64, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.carried = (bytes, now);
        }
    }

    /// The least loaded of the circuits that are theirs and may take a stream.
    fn best_own(&self, key: Key, isolation: Isolation, now: Instant) -> Option<CircuitId> {
        let ids = self.by_key.get(&key)?;
        let own = ids.iter().filter_map(|id| Some((*id, self.circuits.get(id)?))).filter(|(_, circuit)| {
            circuit.owner == Some(isolation)
                && !circuit.doomed
                && circuit.streams < self.limits.streams
                && !circuit.is_dirty(self.limits.dirty, now)
        });
        own.min_by_key(|(id, circuit)| (circuit.is_busy(now), circuit.streams, *id)).map(|(id, _)| id)
    }

    fn doomed_own(&self, key: Key, isolation: Isolation) -> Option<CircuitId> {
        let ids = self.by_key.get(&key)?;
        let own = ids.iter().filter_map(|id| Some((*id, self.circuits.get(id)?)));
        let mut own = own.filter(|(_, circuit)| circuit.owner == Some(isolation) && circuit.doomed && !circuit.hung);
        own.find(|(_, circuit)| circuit.streams < self.limits.streams).map(|(id, _)| id)
    }

    fn own_count(&self, key: Key, isolation: Isolation) -> usize {
        let ids = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        ids.iter().filter(|id| self.circuits.get(id).is_some_and(|circuit| circuit.owner == Some(isolation))).count()
    }

    /// The oldest circuit that is nobody's: the one most likely to be about to be lost to age.
    fn spare(&self, key: Key) -> Option<CircuitId> {
        let ids = self.by_key.get(&key)?;
        let good = |id: &&CircuitId| self.circuits.get(id).is_some_and(|c| c.owner.is_none() && !c.doomed);
        ids.iter().filter(good).min_by_key(|id| self.circuits.get(id).map(|circuit| circuit.built)).copied()
    }

    fn take(&mut self, id: CircuitId, isolation: Isolation, now: Instant) -> Option<LeaseAnswer> {
        let circuit = self.circuits.get_mut(&id)?;
        let was = circuit.owner.replace(isolation);
        debug_assert!(was.is_none_or(|owner| owner == isolation), "two keys never share a circuit");
        circuit.first_use.get_or_insert(now);
        circuit.last_use = now;
        circuit.streams += 1;
        let (asked, key) = (LeaseAnswer::Lent(id, circuit.path.clone()), circuit.key);
        if was.is_none() {
            self.restock_one(key, now);
            self.start_builds(now);
        }
        Some(asked)
    }

    /// Sees to it that as many builds are wanted as those who wait will fill.
    pub(super) fn supply(&mut self, key: Key, isolation: Isolation) {
        let waiting = self.groups.get(&(key, isolation)).map_or(0, |group| group.waiters.len());
        let needed = waiting.div_ceil(usize::from(self.limits.streams).max(1)).min(PARALLEL);
        let under_way = |build: &&Build| build.key == key && build.owner == Some(isolation);
        let mut have = self.builds.values().filter(under_way).count();
        while have < needed {
            // A spare that is being built already is the fastest way to a circuit.
            let spare = self.builds.iter().find(|(_, build)| build.key == key && build.owner.is_none());
            match spare.map(|(id, _)| *id) {
                Some(id) => self.claim(id, isolation),
                None => self.enqueue(key, Some(isolation)),
            }
            have += 1;
        }
    }

    fn claim(&mut self, id: BuildId, isolation: Isolation) {
        let Some(build) = self.builds.get_mut(&id) else { return };
        build.owner = Some(isolation);
        if build.state == BuildState::Queued {
            self.spares.retain(|other| *other != id);
            self.awaited.push_back(id);
        }
    }

    pub(super) fn enqueue(&mut self, key: Key, owner: Option<Isolation>) {
        let id = BuildId(self.id());
        self.builds.insert(id, Build { key, owner, state: BuildState::Queued });
        if owner.is_some() { &mut self.awaited } else { &mut self.spares }.push_back(id);
    }

    /// Hands a circuit that was just built to those who wait for it.
    pub(super) fn hand_out(&mut self, id: CircuitId, isolation: Isolation, now: Instant) {
        let Some(key) = self.circuits.get(&id).map(|circuit| circuit.key) else { return };
        let Some(group) = self.groups.get_mut(&(key, isolation)) else { return };
        group.failures = 0;
        let count = group.waiters.len().min(usize::from(self.limits.streams));
        let served: Vec<_> = group.waiters.drain(..count).collect();
        if group.waiters.is_empty() {
            self.groups.remove(&(key, isolation));
        }
        for waiter in served {
            if let Some(LeaseAnswer::Lent(circuit, path)) = self.take(id, isolation, now) {
                self.effects.push(Effect::Grant { waiter, circuit, path });
            }
        }
        self.supply(key, isolation);
    }
}
