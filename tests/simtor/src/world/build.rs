//! Circuits: each relay is asked in turn, takes its time, and may refuse, fail to reach the next one, or say nothing.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::choose::lognormal;
use super::settings::Settings;
use super::{BRIDGE, Circuit, Key, NOBODY, State, World};
use crate::fault::Manner;
use crate::link::{Gone, Tell};

/// What comes of asking for one more hop.
enum Step {
    Done,
    Fails(Gone),
    Nothing,
}

/// Words for a DESTROY that a relay sends by chance, with how often each is met; general knowledge, not measured.
const CHANCE_REASONS: &[(&str, u32)] = &[("CHANNEL_CLOSED", 6), ("RESOURCELIMIT", 2), ("TIMEOUT", 1), ("INTERNAL", 1)];

/// How much more seldom the first relay fails by chance than the others: it is connected already and has nobody to reach.
/// A guess.
const AT_GUARD: f64 = 0.05;

/// What a relay takes to find out that it cannot reach the next, in the median.
const UNREACHED_MS: f64 = 300.0;

impl World {
    /// Begins a circuit.
    pub(super) fn extend(self: &Arc<Self>, key: Key, path: &[String]) {
        let mut state = self.state();
        let places = match path {
            [] => self.any_path(&mut state.rng),
            _ => path.iter().map(|name| self.place(&state, key.0, name)).collect(),
        };
        state.stats.circuits += 1;
        let circuit = Circuit {
            path: places.clone(),
            reached: 0,
            build: None,
            streams: Default::default(),
            next_stream: 0,
            lost: false,
        };
        state.circuits.insert(key, circuit);
        let world = self.clone();
        let build = tokio::spawn(async move {
            if let Err(gone) = world.build(key, &places).await {
                let mut state = world.state();
                // Whoever closes a circuit ends its task, which this is.
                if let Some(circuit) = state.circuits.get_mut(&key) {
                    circuit.build = None;
                }
                state.stats.circuits_failed += 1;
                state.end(key, &gone);
            }
        });
        if let Some(circuit) = state.circuits.get_mut(&key) {
            circuit.build = Some(build.abort_handle());
        }
    }

    /// The place of a relay of this name. An engine may know one of another world's directory.
    fn place(&self, state: &State, engine: u32, name: &str) -> usize {
        if state.engines.get(&engine).is_some_and(|engine| engine.bridges.contains(name)) {
            return BRIDGE;
        }
        crate::hex::fingerprint(name).and_then(|id| self.model.find(&id)).unwrap_or(NOBODY)
    }

    async fn build(self: &Arc<Self>, key: Key, path: &[usize]) -> Result<(), Gone> {
        let begun = Instant::now();
        self.channel(key.0, path[0]).await?;
        for at in 0..path.len() {
            match self.step(key, path, at).await {
                Step::Done => self.reached(key, path, at + 1, begun),
                Step::Fails(gone) => return Err(gone),
                Step::Nothing => pending().await,
            }
        }
        Ok(())
    }

    /// Asks for the relay at `at`: the request travels to the one before it, is answered, and the answer travels back.
    async fn step(self: &Arc<Self>, key: Key, path: &[usize], at: usize) -> Step {
        let (half, queue) = {
            let mut state = self.state();
            if at == 0 {
                let client = state.engines.get(&key.0).map(|engine| engine.client.clone()).unwrap_or_default();
                if self.defends(&mut state, &client, path[0]) {
                    return Step::Fails(Gone::there("RESOURCELIMIT"));
                }
            }
            if at == 1 {
                state.release(path, key);
            }
            let times = &self.settings.times;
            (self.round_trips(&path[..=at]) / 2, lognormal(&mut state.rng, times.queue_ms, times.queue_sigma))
        };
        self.passable(Some(key.0), &path[..=at]).await;
        self.wait(half + self.uplink_delay() / 2).await;
        let (step, late) = self.ask_relay(path, at);
        self.wait(half + queue + late + self.uplink_delay() / 2).await;
        self.passable(Some(key.0), &path[..at]).await;
        step
    }

    /// What the relay at `at` makes of it, and how much longer than usual that takes.
    fn ask_relay(&self, path: &[usize], at: usize) -> (Step, Duration) {
        let mut state = self.state();
        let relay = path[at];
        let (draw, other): (f64, f64) = (state.rng.random(), state.rng.random());
        let by_hop = state.faults.hop(at + 1, draw);
        let manner = match (by_hop, relay) {
            (Manner::Works, BRIDGE) => Manner::Works,
            (Manner::Works, relay) => state.faults.relay(relay),
            (by_hop, _) => by_hop,
        };
        let known = self.is_there(relay);
        let link = (at > 0).then(|| (path[at - 1], relay));
        let refused = link.is_some_and(|link| state.unreached.get(&link).is_some_and(|until| *until > Instant::now()));
        match manner {
            Manner::Hangs => (Step::Nothing, Duration::ZERO),
            Manner::Refuses(reason) => (Step::Fails(Gone::there(&reason)), Duration::ZERO),
            Manner::Works if known && !refused => (self.by_chance(&mut state, at, other), Duration::ZERO),
            Manner::Works | Manner::Down => {
                let late = if refused { Duration::ZERO } else { self.unreached(&mut state, link) };
                (Step::Fails(Gone::there("CHANNEL_CLOSED")), late)
            }
        }
    }

    /// A relay could not reach the next: it does not try again for some time.
    fn unreached(&self, state: &mut State, link: Option<(usize, usize)>) -> Duration {
        if let Some(link) = link {
            let retry = self.scaled(Duration::from_secs_f64(self.settings.retry));
            state.unreached.insert(link, Instant::now() + retry);
        }
        // In a network without delays a refused connection is noticed at once.
        let calm = self.settings.times.queue_sigma == 0.0;
        if calm { Duration::ZERO } else { lognormal(&mut state.rng, UNREACHED_MS, 0.8) }
    }

    fn by_chance(&self, state: &mut State, at: usize, draw: f64) -> Step {
        let seldom = if at == 0 { AT_GUARD } else { 1.0 };
        let Settings { extend_failure, extend_silence, .. } = &self.settings;
        let (extend_failure, extend_silence) = (extend_failure * seldom, extend_silence * seldom);
        if draw < extend_failure {
            let total: u32 = CHANCE_REASONS.iter().map(|(_, weight)| weight).sum();
            let mut left = state.rng.random_range(0..total);
            let found = CHANCE_REASONS.iter().find(|(_, weight)| {
                let found = left < *weight;
                left = left.saturating_sub(*weight);
                found
            });
            return Step::Fails(Gone::there(found.map_or("INTERNAL", |(reason, _)| reason)));
        }
        if draw < extend_failure + extend_silence { Step::Nothing } else { Step::Done }
    }

    fn reached(&self, key: Key, path: &[usize], reached: usize, begun: Instant) {
        let mut state = self.state();
        let Some(circuit) = state.circuits.get_mut(&key) else { return };
        circuit.reached = reached;
        let built = reached == path.len();
        if built {
            circuit.build = None;
            state.stats.circuits_built += 1;
            state.stats.build_ms.add(begun.elapsed().mul_f64(self.settings.speed));
        }
        let name = |relay: &usize| if *relay == BRIDGE { String::new() } else { self.hex(*relay) };
        let path = path[..reached].iter().map(name).collect();
        state.tell(key.0, Tell::Extended { circuit: key.1, path, built });
    }

    /// Ends a circuit because its engine says so.
    pub(super) fn close(&self, key: Key) {
        let mut state = self.state();
        state.forget(key);
    }

    pub(super) fn uplink_delay(&self) -> Duration {
        match self.state().faults.uplink() {
            crate::fault::Uplink::Slow { delay_ms, .. } => Duration::from_millis(delay_ms),
            _ => Duration::ZERO,
        }
    }
}

impl State {
    /// Something goes over the first two relays of a path: what was held back there comes along.
    pub(super) fn release(&mut self, path: &[usize], except: Key) {
        let [first, second, ..] = path[..] else { return };
        let held: HashSet<Key> = self.held.remove(&(first, second)).unwrap_or_default().into_iter().collect();
        for key in held.into_iter().filter(|key| *key != except) {
            self.end(key, &Gone::there("CHANNEL_CLOSED"));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// `PUBLIC-NETWORK` figures: a build of three hops takes 0.4 to 0.8 s at the median and 2 to 3 s at the 95th
    /// percentile; a stream opens in 0.2 to 0.6 s.
    #[tokio::test]
    async fn times_are_those_of_the_public_network() {
        let settings = Settings { size: 400, ..Settings::default() };
        let world = World::new(settings, std::env::temp_dir()).unwrap();
        let (mut rng, times) = (StdRng::seed_from_u64(5), world.settings.times);
        let (mut builds, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            let path: Vec<usize> = (0..3).map(|_| rng.random_range(0..400)).collect();
            let travel: Duration = (0..3).map(|at| world.round_trips(&path[..=at])).sum();
            let queues: Duration = (0..3).map(|_| lognormal(&mut rng, times.queue_ms, times.queue_sigma)).sum();
            builds.push(travel + queues);
            streams.push(world.round_trips(&path) + lognormal(&mut rng, times.target_ms, times.target_sigma));
        }
        builds.sort_unstable();
        streams.sort_unstable();
        let at = |of: &[Duration], part: f64| of[(of.len() as f64 * part) as usize].as_secs_f64();
        assert!((0.4..0.8).contains(&at(&builds, 0.5)), "median of a build: {}", at(&builds, 0.5));
        assert!((2.0..3.0).contains(&at(&builds, 0.95)), "95th percentile of a build: {}", at(&builds, 0.95));
        assert!((0.2..0.6).contains(&at(&streams, 0.5)), "median of a stream: {}", at(&streams, 0.5));
    }
}
