//! How relays defend themselves against a client that asks for too many circuits.
//!
//! As tor's DoS subsystem does it: a guard counts per client address, and only while that address holds at least
//! `DoSCircuitCreationMinConnections` connections to it. Circuits beyond a rate and a burst mark the address, and every
//! circuit from it is refused for an hour after that. The numbers are consensus parameters; those that the consensus does
//! not set are tor's defaults.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{State, World};
use crate::model;

/// tor's defaults: whether it is on at all is for the consensus to say, and the public one says so.
const DEFAULTS: &[(&str, i32)] = &[
    ("DoSCircuitCreationEnabled", 1),
    ("DoSCircuitCreationMinConnections", 3),
    ("DoSCircuitCreationRate", 3),
    ("DoSCircuitCreationBurst", 90),
    ("DoSCircuitCreationDefenseTimePeriod", 3600),
];

/// What guards know of clients.
#[derive(Debug, Default)]
pub(super) struct Defence {
    clients: HashMap<(String, usize), Client>,
}

#[derive(Debug)]
struct Client {
    /// Circuits that it may still ask for at once.
    left: f64,
    counted: Instant,
    refused_until: Option<Instant>,
}

/// What came of counting a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// It is refused.
    refused: bool,
    /// It is more than the rate and the burst allow, whether or not that has consequences.
    over: bool,
    /// The client was marked for it.
    marked: bool,
}

/// The rules of one guard.
#[derive(Clone, Copy, Debug)]
struct Rules {
    rate: f64,
    burst: f64,
    period: Duration,
    /// The client holds as many connections as are needed to be counted.
    assessed: bool,
}

impl Defence {
    fn count(&mut self, client: &str, guard: usize, rules: Rules, now: Instant) -> Counted {
        let key = (client.to_owned(), guard);
        let fresh = Client { left: rules.burst, counted: now, refused_until: None };
        let known = self.clients.entry(key).or_insert(fresh);
        known.left = (known.left + rules.rate * (now - known.counted).as_secs_f64()).min(rules.burst);
        known.counted = now;
        let over = known.left < 1.0;
        known.left = (known.left - 1.0).max(0.0);
        if known.refused_until.is_some_and(|until| until > now) {
            return Counted { refused: true, over, marked: false };
        }
        let marked = over && rules.assessed;
        if marked {
            known.refused_until = Some(now + rules.period);
        }
        Counted { refused: marked, over, marked }
    }
}

impl World {
    /// A consensus parameter, in times of the model.
    pub(super) fn param(&self, name: &str) -> i32 {
        let default = || DEFAULTS.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
        self.settings.params.get(name).copied().or_else(|| model::param(name)).unwrap_or_else(default)
    }

    /// Whether a guard refuses this circuit of a client; counts it.
    pub(super) fn defends(&self, state: &mut State, client: &str, guard: usize) -> bool {
        let is_same = |id: &u32| state.engines.get(id).is_some_and(|engine| engine.client == client);
        let own = state.channels.keys().filter(|(id, relay)| *relay == guard && is_same(id)).count();
        let connections = own as i32 + self.settings.neighbours as i32;
        let speed = self.settings.speed;
        let rules = Rules {
            rate: f64::from(self.param("DoSCircuitCreationRate")) * speed,
            burst: f64::from(self.param("DoSCircuitCreationBurst")),
            period: self.scaled(Duration::from_secs(self.param("DoSCircuitCreationDefenseTimePeriod") as u64)),
            assessed: self.param("DoSCircuitCreationEnabled") == 1
                && connections >= self.param("DoSCircuitCreationMinConnections"),
        };
        let counted = state.defence.count(client, guard, rules, Instant::now());
        state.stats.over_rate += u64::from(counted.over);
        state.stats.refused_by_defence += u64::from(counted.refused);
        state.stats.marked_as_flooding += u64::from(counted.marked);
        counted.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { rate: 3.0, burst: 90.0, period: Duration::from_secs(3600), assessed: true };

    #[tokio::test(start_paused = true)]
    async fn whoever_floods_is_refused_for_an_hour() {
        let (mut defence, start) = (Defence::default(), Instant::now());
        let refused = |defence: &mut Defence, count: usize, at: u64| {
            let now = start + Duration::from_secs(at);
            (0..count).filter(|_| defence.count("us", 1, RULES, now).refused).count()
        };
        assert_eq!((refused(&mut defence, 90, 0), refused(&mut defence, 2, 0)), (0, 2));
        assert_eq!((refused(&mut defence, 1, 3599), refused(&mut defence, 1, 3601)), (1, 0));
        assert!(!defence.count("others", 1, RULES, start).refused && !defence.count("us", 2, RULES, start).refused);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_keeps_to_the_rate_is_served_for_ever_and_few_connections_are_not_counted() {
        let (mut defence, start) = (Defence::default(), Instant::now());
        for second in 0..1000 {
            for _ in 0..3 {
                assert!(!defence.count("us", 1, RULES, start + Duration::from_secs(second)).refused, "{second}");
            }
        }
        let lenient = Rules { assessed: false, ..RULES };
        let counted: Vec<_> = (0..200).map(|_| defence.count("few", 1, lenient, start)).collect();
        assert!(counted.iter().all(|counted| !counted.refused) && counted[150].over);
    }
}
