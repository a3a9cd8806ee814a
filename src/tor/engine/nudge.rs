//! Is what looks well still well?
//!
//! tor tells of the death of a circuit as soon as a DESTROY arrives, and that is where the trouble is: a relay that loses
//! a neighbour writes one for each circuit that is cut, sends the first at once, and holds the others back until
//! something else goes over the same connection. On a quiet guard that is never: of 24 circuits to an exit that was
//! killed, tor 0.4.9.11 heard of 6 within 10 ms and of the other 18 not within 10 s, while streams on them hung. One
//! circuit that was built through the guard shook all of them loose. That is a *nudge*: a circuit over the first link of
//! those that are in doubt, closed as soon as it is there.
//!
//! It answers a second question on the way. A relay that hangs says nothing at all; tor itself waits 10 s for the answer
//! to a stream, because the target may be what is slow. A nudge asks nobody but the first two relays, so that its
//! silence is theirs, and streams are moved elsewhere after a third of that time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::exit::Fingerprint;
use crate::tor::control::Command;
use crate::tor::event::CircuitId;

/// Tags of nudges, apart from those of builds, which count from 1, and those of trials, which have the bit above.
const TAGS: u64 = 1 << 62;

/// How long a nudge may take. Arbitrary: two hops of the public network take a second or less; whoever is wrongly taken
/// for silent loses nothing but new streams.
const ANSWER: Duration = Duration::from_secs(3);

/// A link that was nudged is not nudged again for this long. Arbitrary: longer than tor's own wait for a stream.
const AGAIN: Duration = Duration::from_secs(15);

/// Links that are nudged at once, at most: guards count circuits. What comes loose leads to the rest.
const AT_ONCE: usize = 8;

/// The first two relays of a path.
pub(in crate::tor) type Link = [Fingerprint; 2];

#[derive(Debug)]
struct Running {
    link: Link,
    /// The first of the two answered.
    reached: bool,
}

/// Nudges that are on their way.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    next: u64,
    asked: HashMap<u64, Link>,
    running: HashMap<CircuitId, Running>,
    /// When each link was nudged last.
    last: HashMap<Link, Instant>,
}

/// A nudge that nobody answered.
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

    /// Takes those that should have been answered by now.
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
    /// A stream on this circuit waits for its answer: is the way still open as far as the second relay?
    pub(in crate::tor) fn doubt(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        let link = self.act(|circuits, _| circuits.pool.link(circuit).filter(|_| circuits.run == run));
        if let Some(link) = link {
            self.nudge(link);
        }
    }

    /// Circuits over these relays were cut: others may be, without our having been told. False if there is more to be
    /// asked than may be asked now.
    pub(super) fn suspect(self: &Arc<Self>, relays: &HashSet<Fingerprint>) -> bool {
        let links = self.act(|circuits, now| {
            let mut links = circuits.pool.links_over(relays);
            links.retain(|link| circuits.nudges.is_due(*link, now));
            links
        });
        links.len() <= AT_ONCE && links.into_iter().all(|link| self.nudge(link))
    }

    /// Builds a circuit over a link; false if that would be faster than the guard is to be asked.
    fn nudge(self: &Arc<Self>, link: Link) -> bool {
        let Some(live) = self.live() else { return true };
        let tag = self.act(|circuits, now| match circuits.nudges.is_due(link, now) {
            true if circuits.pool.may_build(now) => Ok(Some(circuits.nudges.begin(link, now))),
            true => Err(()),
            false => Ok(None), // asked a moment ago
        });
        if let Ok(Some(tag)) = tag {
            tracing::debug!(engine = self.id.0, over = %link[1], "nudge");
            drop(live.control.extend_circuit(&link, tag)); // a connection that is gone takes the session with it
        }
        tag.is_ok()
    }

    /// tor's answer to a nudge; true if it was one.
    pub(super) fn nudge_answered(self: &Arc<Self>, tag: u64, circuit: Option<CircuitId>) -> bool {
        let is_one = tag & TAGS != 0;
        if is_one {
            self.act(|circuits, _| circuits.nudges.answered(tag, circuit));
        }
        is_one
    }

    /// A circuit grew by a relay.
    pub(super) fn nudge_extended(self: &Arc<Self>, circuit: CircuitId) {
        self.act(|circuits, _| {
            if let Some(running) = circuits.nudges.running.get_mut(&circuit) {
                running.reached = true;
            }
        });
    }

    /// A circuit is built, or gone; true if it was a nudge, which has done its work then.
    pub(super) fn nudge_done(self: &Arc<Self>, circuit: CircuitId) -> bool {
        let was_one = self.act(|circuits, _| circuits.nudges.running.remove(&circuit).is_some());
        if was_one {
            self.close(circuit);
        }
        was_one
    }

    /// Gives up circuits whose nudge nobody answered, and tells the dials that wait on them. True if the guard itself
    /// said nothing.
    pub(super) fn end_silent(self: &Arc<Self>) -> bool {
        let mut guard_is_silent = false;
        for Silent { link, circuit, reached } in self.act(|circuits, now| circuits.nudges.silent(now)) {
            guard_is_silent |= !reached;
            self.fleet.avoid(link[usize::from(reached)]); // a guard that is silent is no middle for others either
            circuit.into_iter().for_each(|circuit| self.close(circuit));
            let hung = self.act(|circuits, now| circuits.pool.hang_over(link, now));
            tracing::debug!(engine = self.id.0, over = %link[1], reached, circuits = hung.len(), "a nudge was not answered");
            hung.into_iter().for_each(|circuit| self.streams().unanswered(circuit));
        }
        guard_is_silent
    }

    /// True of circuits that somebody here looks after.
    pub(super) fn owns(self: &Arc<Self>, circuit: CircuitId) -> bool {
        self.act(|circuits, _| circuits.pool.knows(circuit) || circuits.nudges.running.contains_key(&circuit))
    }

    fn close(&self, circuit: CircuitId) {
        if let Some(live) = self.live() {
            drop(live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit))); // gone already is as good
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
