//! Builds circuits, records failures of builds, and closes old circuits.

use super::*;
use crate::telemetry::metrics::{CIRCUIT_BUILD_SECONDS, CIRCUIT_FAILURES};

impl Pool {
    /// Sets how many spare circuits to keep for each kind of circuit (key), and starts to build the missing circuits. A
    /// spare that is no longer wanted is kept as long as an idle used circuit, because its exit is often wanted again.
    pub fn want(&mut self, wanted: BTreeMap<Key, u8>, now: Instant) {
        let dropped = |key: &Key| self.wanted.contains_key(key) && !wanted.contains_key(key);
        for circuit in self.circuits.values_mut().filter(|circuit| dropped(&circuit.key)) {
            circuit.last_use = now;
        }
        self.wanted = wanted;
        let keep = &self.wanted;
        let builds = &mut self.builds;
        self.queues.spares.retain(|id| {
            let kept = builds.get(id).is_some_and(|build| keep.contains_key(&build.key));
            if !kept {
                builds.remove(id);
            }
            kept
        });
        self.restock(now);
        self.start_builds(now);
    }

    /// Records the circuit id that tor assigned to a build. The engine calls this after [`Effect::Build`].
    pub fn launched(&mut self, build: BuildId, circuit: CircuitId, now: Instant) {
        match self.builds.get_mut(&build) {
            Some(Build { state, .. }) => {
                // The wait for the relays is measured from here. The time that tor took to accept the command to build
                // the circuit does not count as slowness of the relays.
                *state = BuildState::Launched(now, circuit);
                self.launched.insert(circuit, build);
            }
            // The pool gave up this build before tor answered the command to build the circuit. So the circuit is
            // closed.
            None => self.effects.push(Effect::Close(circuit)),
        }
    }

    /// Records that the first `reached` relays of a circuit have answered. One of them is the guard.
    pub fn extended(&mut self, circuit: CircuitId, reached: usize, now: Instant) {
        self.heard = Some(now);
        let build = self.launched.get(&circuit).and_then(|build| self.builds.get_mut(build));
        if let Some(build) = build {
            build.reached = (reached, Some(now));
        }
    }

    /// Returns the fault of a build whose relays no longer answer. If the guard has answered no other build since the
    /// last answer to this build, the guard itself may be silent.
    fn fault_of_silence(&self, build: &Build) -> LeaseFault {
        let (reached, at) = build.reached;
        let alive = at.is_some_and(|at| self.heard.is_some_and(|heard| heard > at));
        let reached = if alive { reached } else { 0 };
        LeaseFault::of_build(reached, usize::from(build.key.hops), false)
    }

    /// Records that a circuit is complete. Returns false if the circuit does not belong to this pool.
    pub fn built(&mut self, id: CircuitId, path: Arc<[Fingerprint]>, now: Instant) -> bool {
        let Some(build) = self.launched.remove(&id).and_then(|build| self.builds.remove(&build)) else { return false };
        self.trouble.remove(&build.key);
        if let Some(since) = build.state.since() {
            let took = now.saturating_duration_since(since);
            self.times.add(took);
            metrics::histogram!(CIRCUIT_BUILD_SECONDS).record(took);
        }
        let circuit = Circuit {
            key: build.key,
            path,
            built: now,
            owner: None,
            check: false,
            first_use: None,
            last_use: now,
            streams: 0,
            doomed: false,
            hung: false,
            carried: (0, now),
            proven: false,
        };
        self.circuits.insert(id, circuit);
        self.by_key.entry(build.key).or_default().push(id);
        // The new circuit has no owner until it carries a stream, because the requests it was built for may have given
        // up.
        if let Some(owner) = build.owner {
            self.hand_out(id, owner, now);
        }
        self.start_builds(now);
        true
    }

    /// Records that a build failed: no path was found, a relay refused, the build broke, or the build was too slow.
    pub fn build_failed(&mut self, id: BuildId, fault: LeaseFault, now: Instant) {
        let Some(build) = self.builds.remove(&id) else { return };
        metrics::counter!(CIRCUIT_FAILURES).increment(1);
        if let BuildState::Launched(_, circuit) = build.state {
            self.launched.remove(&circuit);
        }
        self.queues.remove(id);
        let trouble = self.trouble.entry(build.key).or_insert(Trouble { failures: 0, until: now });
        let pause = SPARE_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(SPARE_PAUSE_MAX);
        *trouble = Trouble { failures: trouble.failures + 1, until: now + pause };
        let Some(owner) = build.owner else { return };
        let Some(group) = self.groups.get_mut(&(build.key, owner)) else { return };
        group.failures += 1;
        // If no path exists, another build cannot succeed. If a build broke, another build over another middle relay
        // may succeed.
        let hopeless = matches!(fault, LeaseFault::UnknownExit | LeaseFault::Policy | LeaseFault::NoPath);
        let others = self.builds.values().any(|build_| build_.key == build.key && build_.owner == Some(owner));
        if !hopeless && group.failures < group.attempts() {
            self.supply(build.key, owner);
        } else if hopeless || !others {
            for waiter in self.groups.remove(&(build.key, owner)).into_iter().flat_map(|group| group.waiters) {
                self.effects.push(Effect::Refuse { waiter, fault });
            }
        }
        self.start_builds(now);
    }

    /// Records that a circuit was closed or that its build failed. Returns the kind of the circuit, or `None` if the
    /// circuit does not belong to this pool.
    pub fn gone(&mut self, id: CircuitId, fault: LeaseFault, now: Instant) -> Option<Key> {
        if let Some(build) = self.launched.get(&id).copied() {
            let key = self.builds.get(&build).map(|build| build.key);
            self.build_failed(build, fault, now);
            return key;
        }
        let circuit = self.remove(id)?;
        if circuit.owner.is_none() {
            // A spare that died unused is replaced after a pause. The pause grows with each failure, because the exit
            // may be down.
            let trouble = self.trouble.entry(circuit.key).or_insert(Trouble { failures: 0, until: now });
            trouble.until = trouble.until.max(now + SPARE_PAUSE.saturating_mul(1 << trouble.failures.min(6)));
        }
        self.restock_one(circuit.key, now);
        self.start_builds(now);
        Some(circuit.key)
    }

    /// Removes all circuits and builds, because the engine was lost. Waiting requests get an error.
    pub fn lost(&mut self) {
        for (_, group) in self.groups.drain() {
            let refused = group.waiters.into_iter().map(|waiter| Effect::Refuse { waiter, fault: LeaseFault::Lost });
            self.effects.extend(refused);
        }
        self.effects.retain(|effect| matches!(effect, Effect::Refuse { .. }));
        self.circuits.clear();
        self.by_key.clear();
        self.builds.clear();
        self.launched.clear();
        self.queues = Queues::default();
        self.trouble.clear();
    }

    /// Does everything that is due at the time `now`: starts a second build beside each slow build, abandons builds
    /// that hang, closes old circuits, and starts queued builds.
    pub fn tick(&mut self, now: Instant) {
        let since = |build: &Build| build.state.since().map(|at| now.saturating_duration_since(at));
        let hung: Vec<_> = self
            .builds
            .iter()
            .filter(|(_, build)| since(build).is_some_and(|age| age >= self.limits.build))
            .map(|(id, build)| (*id, build.state, self.fault_of_silence(build)))
            .collect();
        for (id, state, fault) in hung {
            if let BuildState::Launched(_, circuit) = state {
                self.effects.push(Effect::Close(circuit));
            }
            self.build_failed(id, fault, now);
        }
        self.hedge(now);
        let (dirty, idle) = (self.limits.dirty, self.limits.idle);
        let old = self.circuits.iter().filter(|(_, circuit)| {
            let unused =
                now.saturating_duration_since(circuit.last_use) >= if circuit.check { CHECK_IDLE } else { idle };
            let is_kept = circuit.owner.is_none() && self.wanted.contains_key(&circuit.key);
            !is_kept && circuit.streams == 0 && (unused || circuit.is_dirty(dirty, now))
        });
        for id in old.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
        self.trouble.retain(|_, trouble| now < trouble.until + SPARE_PAUSE_MAX);
        self.restock(now);
        self.start_builds(now);
    }

    /// Starts a second build in parallel to each slow build that a client waits for.
    fn hedge(&mut self, now: Instant) {
        let patience = self.times.p95().clamp(SLOW_BUILD_MIN, SLOW_BUILD);
        let mut slow = BTreeMap::<(Key, Isolation), usize>::new();
        for build in self.builds.values() {
            let Some(owner) = build.owner.filter(|_| build.class == BuildClass::Live) else { continue };
            let age = build.state.since().map(|at| now.saturating_duration_since(at));
            let count = slow.entry((build.key, owner)).or_default();
            // A second build is started only if this count is 1 in the end. A slow build adds 1. A build that is not
            // slow, or that has not begun, adds 2. So the count is 1 only if there is exactly one build and it is slow.
            *count += if age.is_some_and(|age| age >= patience) { 1 } else { 2 };
        }
        for ((key, owner), count) in slow {
            if count == 1 && self.groups.contains_key(&(key, owner)) {
                self.enqueue(key, Some(owner), BuildClass::Live);
            }
        }
    }

    /// Returns how long the next queued build must wait for the [`BuildRate`]. `None` if no build is queued.
    pub fn next_start(&self, now: Instant) -> Option<Duration> {
        let Queues { live, spares, checks } = &self.queues;
        let queues = [(live, BuildClass::Live), (spares, BuildClass::Spare), (checks, BuildClass::Check)];
        let waiting = queues.into_iter().filter(|(queue, _)| !queue.is_empty());
        waiting.map(|(_, class)| self.pace.wait(class, now)).min()
    }

    /// Starts as many queued builds as the [`BuildRate`] allows. Builds for clients go first. But before them, one
    /// spare circuit and one check (builds without a waiting client) are started if they have waited for their share of
    /// the rate (an eighth) long enough.
    pub(super) fn start_builds(&mut self, now: Instant) {
        for class in [BuildClass::Spare, BuildClass::Check] {
            if self.pace.is_overdue(class, now) {
                self.start_one(class, now);
            }
        }
        for class in [BuildClass::Live, BuildClass::Spare, BuildClass::Check] {
            while self.start_one(class, now) {}
        }
    }

    /// Starts the first queued build of a class. Returns false if no build is queued or the [`BuildRate`] does not allow
    /// it.
    fn start_one(&mut self, class: BuildClass, now: Instant) -> bool {
        while let Some(id) = self.queues.of(class).front().copied() {
            if !self.is_needed(id) {
                self.queues.of(class).pop_front();
                self.builds.remove(&id);
                continue;
            }
            let Some(build) = self.builds.get_mut(&id).filter(|_| self.pace.take(class, now)) else { return false };
            build.state = BuildState::Started(now);
            self.effects.push(Effect::Build { build: id, key: build.key });
            self.queues.of(class).pop_front();
            return true;
        }
        self.pace.nobody_waits(class);
        false
    }

    /// Returns true if a request still waits for this queued build, and false if all such requests have given up.
    pub(super) fn is_needed(&self, id: BuildId) -> bool {
        let Some(build) = self.builds.get(&id) else { return false };
        build.owner.is_none_or(|owner| self.groups.contains_key(&(build.key, owner)))
    }

    /// Takes a token of the [`BuildRate`] for a nudge (a test circuit), which is built outside the pool. Returns false
    /// if there is no token.
    pub fn may_build(&mut self, now: Instant) -> bool {
        self.pace.take(BuildClass::Nudge, now)
    }

    /// Queues a build for every wanted spare circuit that neither exists nor is being built.
    fn restock(&mut self, now: Instant) {
        let mut coming = HashMap::<Key, usize>::new();
        for build in self.builds.values().filter(|build| build.owner.is_none()) {
            *coming.entry(build.key).or_default() += 1;
        }
        let keys: Vec<_> = self.wanted.keys().copied().collect();
        for key in keys {
            self.top_up(key, coming.get(&key).copied().unwrap_or(0), now);
        }
    }

    /// Does the same as [`Self::restock`] for one kind of circuit. Called after a spare circuit of this kind was lent.
    pub(super) fn restock_one(&mut self, key: Key, now: Instant) {
        let coming = self.builds.values().filter(|build| build.owner.is_none() && build.key == key).count();
        self.top_up(key, coming, now);
    }

    fn top_up(&mut self, key: Key, coming: usize, now: Instant) {
        let Some(spares) = self.wanted.get(&key).copied() else { return };
        if self.trouble.get(&key).is_some_and(|trouble| now < trouble.until) {
            return;
        }
        let ids = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        let good = |id: &&CircuitId| self.circuits.get(id).is_some_and(|c| c.owner.is_none() && !c.doomed);
        let there = ids.iter().filter(good).count();
        for _ in there + coming..usize::from(spares) {
            self.enqueue(key, None, BuildClass::Spare);
        }
    }

    pub(super) fn close(&mut self, id: CircuitId) {
        if self.remove(id).is_some() {
            self.effects.push(Effect::Close(id));
        }
    }

    fn remove(&mut self, id: CircuitId) -> Option<Circuit> {
        let circuit = self.circuits.remove(&id)?;
        if let Some(ids) = self.by_key.get_mut(&circuit.key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&circuit.key);
            }
        }
        Some(circuit)
    }
}
