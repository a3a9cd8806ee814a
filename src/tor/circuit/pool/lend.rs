//! Lends places on circuits to requests, and takes the places back.

use super::*;

impl Pool {
    /// Returns a place on a complete circuit that is not busy, if there is one. The caller tries this on every engine
    /// before any engine starts a build.
    pub fn lend(&mut self, key: Key, who: Requester, now: Instant) -> Option<LeaseAnswer> {
        let own = self.best_own(key, who.isolation, now);
        let busy = own.is_none_or(|id| self.circuits.get(&id).is_none_or(|circuit| circuit.is_busy(now)));
        let may_grow = who.class == BuildClass::Live && busy && self.own_count(key, who.isolation) < PARALLEL;
        let fresh = if may_grow { self.spare(key) } else { None };
        self.take(fresh.or(own)?, who, now)
    }

    /// Returns a place on a circuit. If no circuit is free, returns the id under which the request waits for one.
    /// Refuses a client's request if the circuit would certainly come after the deadline.
    pub fn ask(&mut self, key: Key, who: Requester, deadline: Instant, now: Instant) -> LeaseAnswer {
        if let Some(lent) = self.lend(key, who, now) {
            return lent;
        }
        let Requester { isolation, class } = who;
        if let Some(doomed) = self.doomed_own(key, isolation) {
            // A circuit to replace the doomed one is built now. It is built as a spare, without an owner. So if no
            // further request with this isolation key comes, a request with another key can use the new circuit.
            if class == BuildClass::Live && !self.builds.values().any(|build| build.key == key) {
                self.enqueue(key, None, BuildClass::Spare);
            }
            if let Some(lent) = self.take(doomed, who, now) {
                self.start_builds(now);
                return lent;
            }
        }
        if class == BuildClass::Live && self.is_too_late(key, isolation, deadline, now) {
            return LeaseAnswer::Busy;
        }
        let waiter = WaiterId(self.id());
        let new = || Group { class, waiters: VecDeque::new(), failures: 0 };
        self.groups.entry((key, isolation)).or_insert_with(new).waiters.push_back(waiter);
        self.supply(key, isolation);
        self.start_builds(now);
        LeaseAnswer::Wait(waiter)
    }

    /// Removes a waiting request whose client has given up.
    pub fn forget(&mut self, waiter: WaiterId) {
        for group in self.groups.values_mut() {
            group.waiters.retain(|other| *other != waiter);
        }
        self.groups.retain(|_, group| !group.waiters.is_empty());
    }

    /// Frees a place on a circuit. The engine calls this when the stream in that place has ended or was never opened.
    pub fn release(&mut self, id: CircuitId, now: Instant) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        circuit.streams = circuit.streams.saturating_sub(1);
        circuit.last_use = now;
        if circuit.streams == 0 && (circuit.doomed || circuit.is_dirty(self.limits.dirty, now)) {
            self.close(id);
        }
    }

    /// Records that a stream on the circuit reached its target. Returns true only the first time for each circuit.
    pub fn prove(&mut self, id: CircuitId) -> bool {
        self.circuits.get_mut(&id).is_some_and(|circuit| !std::mem::replace(&mut circuit.proven, true))
    }

    /// Records that tor will close the circuit soon. From now on the circuit is lent only if there is no other circuit.
    /// If spare circuits of this kind are wanted, a replacement is built.
    pub fn doom(&mut self, id: CircuitId, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.doomed = true;
            let key = circuit.key;
            self.restock_one(key, now);
            self.start_builds(now);
        }
    }

    /// Records that the circuit did not answer a stream within tor's time-out. The circuit gets no more streams.
    pub fn hang(&mut self, id: CircuitId, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.hung = true;
            self.doom(id, now);
        }
    }

    /// Calls [`Self::hang`] for all circuits that begin with this link (the first two relays of a path). Closes those
    /// of these circuits that have no streams. Returns the circuits that were not marked as hung before.
    pub fn hang_over(&mut self, link: Link, now: Instant) -> Vec<CircuitId> {
        let over = self.circuits.iter().filter(|(_, circuit)| !circuit.hung && circuit.path.starts_with(&link));
        let ids: Vec<_> = over.map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.hang(*id, now));
        // A circuit with streams is closed when its streams end. A circuit without streams must be closed here.
        let idle = |id: &&CircuitId| self.circuits.get(id).is_some_and(|circuit| circuit.streams == 0);
        ids.iter().filter(idle).copied().collect::<Vec<_>>().into_iter().for_each(|id| self.close(id));
        ids
    }

    /// Takes one more place on a circuit, even if all places are taken or the circuit is doomed. A dial that gets no
    /// answer on a circuit calls this to test the exit on the same circuit. Returns the relays of the circuit, or
    /// `None` if the circuit does not exist.
    pub fn lend_again(&mut self, id: CircuitId, now: Instant) -> Option<Arc<[Fingerprint]>> {
        let circuit = self.circuits.get_mut(&id)?;
        circuit.last_use = now;
        circuit.streams += 1;
        Some(circuit.path.clone())
    }

    /// Returns the circuits whose first two relays are this link.
    pub fn over(&self, link: Link) -> Vec<CircuitId> {
        let over = self.circuits.iter().filter(|(_, circuit)| circuit.path.starts_with(&link));
        over.map(|(id, _)| *id).collect()
    }

    /// Returns the first two relays of a circuit. Returns `None` if the circuit does not exist.
    pub fn link(&self, id: CircuitId) -> Option<Link> {
        self.circuits.get(&id)?.path.first_chunk().copied()
    }

    /// Returns the first two relays of every circuit that contains `relay` after its guard. Each pair of relays is
    /// returned only once.
    pub fn links_over(&self, relay: Fingerprint) -> Vec<Link> {
        let over =
            self.circuits.values().filter(|circuit| !circuit.hung && circuit.path.iter().skip(1).any(|r| *r == relay));
        let links: BTreeSet<Link> = over.filter_map(|circuit| circuit.path.first_chunk().copied()).collect();
        links.into_iter().collect()
    }

    /// Returns true if the circuit exists and its build is complete.
    pub fn has(&self, id: CircuitId) -> bool {
        self.circuits.contains_key(&id)
    }

    /// Records the number of bytes that tor reported for this circuit for the last second.
    pub fn carried(&mut self, id: CircuitId, bytes: u64, now: Instant) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.carried = (bytes, now);
        }
    }

    /// Returns the least loaded circuit of this isolation key that may take another stream. `None` if there is none.
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

    /// Returns the oldest spare circuit, because it would be the first to be closed for its age. `None` if there is
    /// none.
    fn spare(&self, key: Key) -> Option<CircuitId> {
        let ids = self.by_key.get(&key)?;
        let good = |id: &&CircuitId| self.circuits.get(id).is_some_and(|c| c.owner.is_none() && !c.doomed);
        ids.iter().filter(good).min_by_key(|id| self.circuits.get(id).map(|circuit| circuit.built)).copied()
    }

    fn take(&mut self, id: CircuitId, who: Requester, now: Instant) -> Option<LeaseAnswer> {
        let circuit = self.circuits.get_mut(&id)?;
        let was = circuit.owner.replace(who.isolation);
        debug_assert!(was.is_none_or(|owner| owner == who.isolation), "two keys never share a circuit");
        circuit.check = who.class == BuildClass::Check;
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

    /// Queues builds until there are enough for all waiting requests of this key.
    pub(super) fn supply(&mut self, key: Key, isolation: Isolation) {
        let Some(group) = self.groups.get(&(key, isolation)) else { return };
        let (waiting, class) = (group.waiters.len(), group.class);
        let needed = waiting.div_ceil(usize::from(self.limits.streams).max(1)).min(PARALLEL);
        let under_way = |build: &&Build| build.key == key && build.owner == Some(isolation);
        let mut have = self.builds.values().filter(under_way).count();
        while have < needed {
            // A spare circuit that is already being built is ready sooner than a new build would be.
            let is_spare = |build: &Build| build.key == key && build.owner.is_none();
            let spare = self.builds.iter().find(|(_, build)| class == BuildClass::Live && is_spare(build));
            match spare.map(|(id, _)| *id) {
                Some(id) => self.claim(id, isolation),
                None => self.enqueue(key, Some(isolation), class),
            }
            have += 1;
        }
    }

    fn claim(&mut self, id: BuildId, isolation: Isolation) {
        let Some(build) = self.builds.get_mut(&id) else { return };
        (build.owner, build.class) = (Some(isolation), BuildClass::Live);
        if build.state == BuildState::Queued {
            self.queues.remove(id);
            self.queues.live.push_back(id);
        }
    }

    pub(super) fn enqueue(&mut self, key: Key, owner: Option<Isolation>, class: BuildClass) {
        let id = BuildId(self.id());
        self.builds.insert(id, Build { key, class, owner, state: BuildState::Queued, reached: (0, None) });
        self.queues.of(class).push_back(id);
    }

    /// Gives places on a new circuit to the requests that wait for a circuit of this kind and isolation key.
    pub(super) fn hand_out(&mut self, id: CircuitId, isolation: Isolation, now: Instant) {
        let Some(key) = self.circuits.get(&id).map(|circuit| circuit.key) else { return };
        let Some(group) = self.groups.get_mut(&(key, isolation)) else { return };
        group.failures = 0;
        let who = Requester { isolation, class: group.class };
        let count = group.waiters.len().min(usize::from(self.limits.streams));
        let served: Vec<_> = group.waiters.drain(..count).collect();
        if group.waiters.is_empty() {
            self.groups.remove(&(key, isolation));
        }
        for waiter in served {
            if let Some(LeaseAnswer::Lent(circuit, path)) = self.take(id, who, now) {
                self.effects.push(Effect::Grant { waiter, circuit, path });
            }
        }
        self.supply(key, isolation);
    }
}
