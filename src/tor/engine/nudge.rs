//! Nudges: test circuits that show which circuits are dead although tor does not know it yet.
//!
//! tor reports the death of a circuit when a DESTROY cell arrives. A relay that loses a neighbour writes one DESTROY for
//! each circuit, sends the first at once, and holds the others back until something else goes over the same connection.
//! On a quiet connection that may take very long. In a test with 24 circuits to an exit that was killed, tor 0.4.9.11
//! learned of 6 within 10 ms, and of the other 18 not within 10 s, while streams on them hung. Building one circuit
//! through the same guard brought all of the reports. That is a *nudge*: a two-hop circuit over the first link of the
//! circuits in doubt, closed as soon as it is built.
//!
//! A nudge also finds relays that hang. tor waits 10 s for the answer to a stream, because the target may be slow. A
//! nudge involves only the first two relays, so if it gets no answer within [`ANSWER`], one of them hangs, and streams
//! move to other circuits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::exit::Fingerprint;
use crate::tor::control::Command;
use crate::tor::event::CircuitId;
use crate::tor::path::Link;

/// Tags of nudges begin here; tags of builds count from 1, tags of trials from 1 << 63.
const TAGS: u64 = 1 << 62;

/// How long a nudge may take. Two hops of the public network take a second or less. A link that is wrongly taken for
/// dead gets no new streams, but keeps those that it has.
const ANSWER: Duration = Duration::from_secs(3);

/// Least time between two nudges of the same link: longer than tor's own wait for a stream.
const AGAIN: Duration = Duration::from_secs(15);

/// The most links that are nudged at once, because guards count circuits.
const AT_ONCE: usize = 8;

#[derive(Debug)]
struct Running {
    link: Link,
    /// The first of the two relays answered.
    reached: bool,
}

/// Nudges that are under way.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    next: u64,
    asked: HashMap<u64, Link>,
    running: HashMap<CircuitId, Running>,
    /// When each link was nudged last.
    last: HashMap<Link, Instant>,
}

/// A nudge that got no answer.
#[derive(Debug, PartialEq, Eq)]
struct Silent {
    link: Link,
    circuit: Option<CircuitId>,
    reached: bool,
}

impl Nudges {
    fn is_due(&self, link: Link, now: Instant) -> bool {
        self.last.get(&link).is_none_or(|last| now.saturating_duration_since(*last) >= AGAIN)
    }

    fn begin(&mut self, link: Link, now: Instant) -> u64 {
        self.next += 1;
        let tag = TAGS | self.next;
        self.last.insert(link, now);
        self.asked.insert(tag, link);
        tag
    }

    fn answered(&mut self, tag: u64, circuit: Option<CircuitId>) {
        if let (Some(link), Some(circuit)) = (self.asked.remove(&tag), circuit) {
            self.running.insert(circuit, Running { link, reached: false });
        }
    }

    /// Takes the nudges that got no answer in time.
    fn silent(&mut self, now: Instant) -> Vec<Silent> {
        let late = |link: &Link| self.last.get(link).is_none_or(|at| now.saturating_duration_since(*at) >= ANSWER);
        let asked = self.asked.extract_if(|_, link| late(link));
        let asked = asked.map(|(_, link)| Silent { link, circuit: None, reached: false });
        let running = self.running.extract_if(|_, running| late(&running.link));
        let running = running.map(|(id, Running { link, reached })| Silent { link, circuit: Some(id), reached });
        let silent = asked.chain(running).collect();
        self.last.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        silent
    }
}

impl Engine {
    /// Nudges the first link of a circuit on which a stream waits for its answer.
    pub(in crate::tor) fn doubt(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        let link = self.act(|circuits, _| circuits.pool.link(circuit).filter(|_| circuits.run == run));
        if let Some(link) = link {
            self.nudge(link);
        }
    }

    /// Nudges the links of circuits that use these relays, after some of those circuits were cut. False if there are more
    /// links than may be nudged at once.
    pub(super) fn suspect(self: &Arc<Self>, relays: &HashSet<Fingerprint>) -> bool {
        let links = self.act(|circuits, now| {
            let mut links = circuits.pool.links_over(relays);
            links.retain(|link| circuits.nudges.is_due(*link, now));
            links
        });
        links.len() <= AT_ONCE && links.into_iter().all(|link| self.nudge(link))
    }

    /// Builds a circuit over a link. False if the pace of builds does not allow it.
    fn nudge(self: &Arc<Self>, link: Link) -> bool {
        let Some(live) = self.live() else { return true };
        let tag = self.act(|circuits, now| match circuits.nudges.is_due(link, now) {
            true if circuits.pool.may_build(now) => Ok(Some(circuits.nudges.begin(link, now))),
            true => Err(()),
            false => Ok(None), // nudged a moment ago
        });
        if let Ok(Some(tag)) = tag {
            tracing::debug!(engine = self.id.0, over = %link[1], "nudge");
            drop(live.control.extend_circuit(&link, tag)); // if the connection is gone, the session ends too
        }
        tag.is_ok()
    }

    /// Takes tor's answer to a nudge. False if the tag is not a nudge's.
    pub(super) fn nudge_answered(self: &Arc<Self>, tag: u64, circuit: Option<CircuitId>) -> bool {
        let is_one = tag & TAGS != 0;
        if is_one {
            self.act(|circuits, _| circuits.nudges.answered(tag, circuit));
        }
        is_one
    }

    /// Notes that a circuit was extended by one relay.
    pub(super) fn nudge_extended(self: &Arc<Self>, circuit: CircuitId) {
        self.act(|circuits, _| {
            if let Some(running) = circuits.nudges.running.get_mut(&circuit) {
                running.reached = true;
            }
        });
    }

    /// Notes that a circuit was built or closed. True if it was a nudge, which is then over.
    pub(super) fn nudge_done(self: &Arc<Self>, circuit: CircuitId) -> bool {
        let was_one = self.act(|circuits, _| circuits.nudges.running.remove(&circuit).is_some());
        if was_one {
            self.close(circuit);
        }
        was_one
    }

    /// Gives up circuits whose nudge got no answer, and ends the dials on them. True if the guard itself did not answer.
    pub(super) fn end_silent(self: &Arc<Self>) -> bool {
        let mut guard_is_silent = false;
        for Silent { link, circuit, reached } in self.act(|circuits, now| circuits.nudges.silent(now)) {
            guard_is_silent |= !reached;
            self.fleet.avoid(link[usize::from(reached)]); // a guard that hangs must not be a middle for other engines
            circuit.into_iter().for_each(|circuit| self.close(circuit));
            let hung = self.act(|circuits, now| circuits.pool.hang_over(link, now));
            tracing::debug!(engine = self.id.0, over = %link[1], reached, circuits = hung.len(), "a nudge was not answered");
            hung.into_iter().for_each(|circuit| self.streams().unanswered(circuit));
        }
        guard_is_silent
    }

    /// True if the circuit belongs to the pool, to a nudge or to a trial.
    pub(super) fn owns(self: &Arc<Self>, circuit: CircuitId) -> bool {
        self.act(|circuits, _| circuits.pool.knows(circuit) || circuits.nudges.running.contains_key(&circuit))
    }

    fn close(&self, circuit: CircuitId) {
        if let Some(live) = self.live() {
            drop(live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit))); // the circuit may be gone already
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(n: u8) -> Link {
        [Fingerprint([0; 20]), Fingerprint([n; 20])]
    }

    #[test]
    fn a_link_is_asked_once_in_a_while() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        assert!(nudges.is_due(link(1), start));
        let tag = nudges.begin(link(1), start);
        assert!(tag & TAGS != 0 && !nudges.is_due(link(1), start) && nudges.is_due(link(2), start));
        nudges.answered(tag, Some(CircuitId(5)));
        nudges.running.remove(&CircuitId(5));
        assert_eq!(nudges.silent(start + AGAIN), []);
        assert!(nudges.is_due(link(1), start + AGAIN));
    }

    #[test]
    fn silence_is_noticed_wherever_it_begins() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        let tags = [1, 2, 3].map(|n| nudges.begin(link(n), start));
        nudges.answered(tags[0], Some(CircuitId(1)));
        nudges.answered(tags[1], Some(CircuitId(2)));
        nudges.running.get_mut(&CircuitId(2)).unwrap().reached = true;
        assert_eq!(nudges.silent(start + ANSWER / 2), []);
        let mut silent = nudges.silent(start + ANSWER);
        silent.sort_by_key(|silent| silent.link);
        let of = |n: u8, circuit, reached| Silent { link: link(n), circuit, reached };
        assert_eq!(silent, [of(1, Some(CircuitId(1)), false), of(2, Some(CircuitId(2)), true), of(3, None, false)]);
        assert_eq!(nudges.silent(start + ANSWER), []);
    }
}
