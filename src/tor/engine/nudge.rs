//! Nudges: test circuits that show which circuits are dead although tor does not know it yet.
//!
//! A *nudge* is a test circuit over the first two relays of circuits that may be dead. A nudge is closed as soon as it
//! is built.
//!
//! Nudges are needed because tor learns of the death of a circuit only when a DESTROY cell arrives, and this cell may
//! come late. A relay that loses a neighbour writes one DESTROY cell for each circuit. The relay sends the first cell
//! immediately, but holds back the others until something else is sent over the same connection. A nudge is something
//! else, so it makes the other cells arrive.
//!
//! This was measured with 24 circuits to an exit that was killed. tor 0.4.9.11 learned of 6 dead circuits within 10 ms.
//! It did not learn of the other 18 within 10 s, and streams on these circuits hung. Building one circuit through the
//! same guard made all of the DESTROY cells arrive.
//!
//! A nudge also finds relays that hang. tor waits 10 s for the answer to a stream, because the target may be slow. A
//! nudge involves only the first two relays. So if a nudge gets no answer within some seconds (`SharedState::answer_time`),
//! one of these relays hangs, and the streams change to other circuits.
//!
//! If the guard itself gave no answer to a nudge, this alone does not prove that the guard hangs: `engine/first_hop.rs`
//! waits for a second sign.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::first_hop::Source;
use crate::exit::Fingerprint;
use crate::tor::control::Command;
use crate::tor::event::{Circ, CircuitId};
use crate::tor::fault::StreamFault;
use crate::tor::path::Link;

/// The first tag for the commands that build nudges (test circuits over two relays). The tags of ordinary builds count
/// from 1, and those of trials (tests of guards) from 1 << 63.
const TAGS: u64 = 1 << 62;

/// If streams on circuits over a link (two relays) wait long for answers, a nudge (test circuit) over the link is sent,
/// but at most one within this time. This time is longer than tor waits for the answer to a stream, so there is one
/// nudge for each silence.
const AGAIN: Duration = Duration::from_secs(15);

/// If a relay closed circuits, a nudge (test circuit) over each link (two relays) with this relay is sent, but at most
/// one per link within this time. The time is short: a nudge shows nothing about circuits that were closed after it was
/// sent, so another nudge must follow soon.
const AGAIN_AFTER_CUT: Duration = Duration::from_secs(3);

/// The largest number of links over which a nudge (test circuit) is built at the same time. Guards count the circuits
/// of a client, so there is a limit. Further links get their nudges in the next batch.
const AT_ONCE: usize = 8;

#[derive(Debug)]
struct Running {
    link: Link,
    sent: Instant,
    /// True once the first of the two relays of the test circuit has answered.
    reached: bool,
}

/// The nudges (test circuits) that have no result yet.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    next: u64,
    /// The tag of the command → the link, and the time when the command was sent.
    asked: HashMap<u64, (Link, Instant)>,
    running: HashMap<CircuitId, Running>,
    /// The link (two relays) → the time of its last nudge (test circuit).
    last: HashMap<Link, Instant>,
}

/// A nudge (test circuit) that got no answer in time.
#[derive(Debug, PartialEq, Eq)]
struct Silent {
    link: Link,
    circuit: Option<CircuitId>,
    reached: bool,
    /// The time when the nudge (test circuit) was sent.
    sent: Instant,
}

impl Nudges {
    fn is_due(&self, link: Link, again: Duration, now: Instant) -> bool {
        self.last.get(&link).is_none_or(|last| now.saturating_duration_since(*last) >= again)
    }

    /// Returns true if no nudge (test circuit) was sent over the link since the time `cut`.
    fn is_older(&self, link: Link, cut: Instant) -> bool {
        self.last.get(&link).is_none_or(|last| *last < cut)
    }

    fn begin(&mut self, link: Link, now: Instant) -> u64 {
        self.next += 1;
        let tag = TAGS | self.next;
        self.last.insert(link, now);
        self.asked.insert(tag, (link, now));
        tag
    }

    fn answered(&mut self, tag: u64, circuit: Option<CircuitId>) {
        if let (Some((link, sent)), Some(circuit)) = (self.asked.remove(&tag), circuit) {
            self.running.insert(circuit, Running { link, sent, reached: false });
        }
    }

    /// Removes and returns the nudges (test circuits) that got no answer within the time `answer`.
    fn silent(&mut self, answer: Duration, now: Instant) -> Vec<Silent> {
        let late = |sent: Instant| now.saturating_duration_since(sent) >= answer;
        let asked = self.asked.extract_if(|_, (_, sent)| late(*sent));
        let asked = asked.map(|(_, (link, sent))| Silent { link, circuit: None, reached: false, sent });
        let running = self.running.extract_if(|_, running| late(running.sent));
        let running =
            running.map(|(id, Running { link, sent, reached })| Silent { link, circuit: Some(id), reached, sent });
        let silent = asked.chain(running).collect();
        self.last.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        silent
    }

    /// Returns when the oldest nudge (test circuit) that the guard has not answered was sent. `None` if there is no
    /// such nudge.
    pub(super) fn oldest_unanswered(&self) -> Option<Instant> {
        let running = self.running.values().filter(|running| !running.reached).map(|running| running.sent);
        self.asked.values().map(|(_, sent)| *sent).chain(running).min()
    }

    /// Returns how many more nudges (test circuits) may be sent now.
    fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.asked.len() + self.running.len())
    }
}

impl Engine {
    /// Sends a nudge (test circuit) over the first link of a circuit on which a stream has waited long for its answer.
    /// Returns when the latest nudge over this link was sent: now, or a moment ago. Returns `None` if no nudge was
    /// sent.
    pub(in crate::tor) fn doubt(self: &Arc<Self>, run: u64, circuit: CircuitId) -> Option<Instant> {
        let link = self.act(|circuits, _| circuits.pool.link(circuit).filter(|_| circuits.run == run))?;
        self.nudge(link, AGAIN);
        self.act(|circuits, _| circuits.nudges.last.get(&link).copied())
    }

    /// Called after relays closed circuits, because other circuits through the same relays may be dead too. `cut`:
    /// relay of closed circuits → time when the last of them was closed.
    ///
    /// For each relay in `cut`, the links (first two relays) of all open circuits through this relay are tested: a
    /// nudge (test circuit) is sent over each link, unless one was sent since that time. A nudge must wait for a later
    /// call if another one was sent over its link a moment ago, or if too many nudges are under way. A relay is removed
    /// from `cut` once all its nudges were sent.
    pub(super) fn suspect(self: &Arc<Self>, cut: &mut HashMap<Fingerprint, Instant>) {
        cut.retain(|relay, at| {
            let (links, room) = self.act(|circuits, _| {
                let mut links = circuits.pool.links_over(*relay);
                links.retain(|link| circuits.nudges.is_older(*link, *at));
                (links, circuits.nudges.room())
            });
            let sent = links.iter().take(room).filter(|link| self.nudge(**link, AGAIN_AFTER_CUT)).count();
            sent < links.len()
        });
    }

    /// Builds a test circuit over a link. Returns false if the test circuit must wait: the last one over this link was
    /// sent less than `again` ago, or the limit on the rate of builds does not allow another one.
    fn nudge(self: &Arc<Self>, link: Link, again: Duration) -> bool {
        let Some(live) = self.live() else { return true };
        let tag = self.act(|circuits, now| {
            let may = circuits.nudges.is_due(link, again, now) && circuits.pool.may_build(now);
            may.then(|| circuits.nudges.begin(link, now))
        });
        if let Some(tag) = tag {
            tracing::debug!(engine = self.id.0, over = %link[1], "nudge");
            drop(live.control.extend_circuit(&link, tag)); // if the connection is closed, the session ends too
        }
        tag.is_some()
    }

    /// Handles tor's answer to the command that built a nudge (test circuit). Returns false if the tag does not belong
    /// to a nudge.
    pub(super) fn nudge_answered(self: &Arc<Self>, tag: u64, circuit: Option<CircuitId>) -> bool {
        let is_one = tag & TAGS != 0;
        if is_one {
            self.act(|circuits, _| circuits.nudges.answered(tag, circuit));
        }
        is_one
    }

    /// Records that a circuit was extended by one relay, so its guard has answered. If the circuit is a nudge (test
    /// circuit), the nudge records this too.
    pub(super) fn nudge_extended(self: &Arc<Self>, circ: &Circ) {
        self.act(|circuits, now| {
            circ.path.first().into_iter().for_each(|first| circuits.first_hop_answers(*first, now));
            if let Some(running) = circuits.nudges.running.get_mut(&circ.id) {
                running.reached = true;
            }
        });
    }

    /// Records that a circuit was built or closed. Returns true if the circuit was a nudge (test circuit). The nudge
    /// then has its result and is removed.
    pub(super) fn nudge_done(self: &Arc<Self>, circuit: CircuitId) -> bool {
        let was_one = self.act(|circuits, _| circuits.nudges.running.remove(&circuit).is_some());
        if was_one {
            self.close(circuit);
        }
        was_one
    }

    /// Looks for nudges (test circuits over two relays) that got no answer in time, and ends the dials that wait on
    /// circuits over the same two relays. If the guard (the first relay) answered the nudge and the second relay did
    /// not, these circuits get no new streams.
    ///
    /// Returns the nudges that the guard did not answer, each with the time when it was sent. `engine/first_hop.rs`
    /// then decides whether the guard is silent.
    pub(super) fn end_silent(self: &Arc<Self>) -> Vec<(Source, Instant)> {
        let (mut unanswered, answer) = (Vec::new(), self.shared.answer_time());
        for Silent { link, circuit, reached, sent } in self.act(|circuits, now| circuits.nudges.silent(answer, now)) {
            circuit.into_iter().for_each(|circuit| self.close(circuit));
            let is_entry = self.circuits().entry.is_some_and(|entry| entry.id() == link[0]);
            let (over, fault) = if reached {
                self.shared.avoid(link[1]);
                (self.act(|circuits, now| circuits.pool.hang_over(link, now)), StreamFault::Middle)
            } else if !is_entry {
                // These circuits begin at the guard that the engine used before. Its silence says nothing about the
                // present guard.
                self.shared.avoid(link[0]);
                (self.act(|circuits, now| circuits.pool.hang_through(link[0], now)), StreamFault::FirstHop)
            } else {
                // `circuit` is `None` if tor itself has not answered the command to build the nudge. This says nothing
                // about the guard.
                unanswered.extend(circuit.map(|_| (Source::Nudge(link[1]), sent)));
                (self.act(|circuits, _| circuits.pool.over(link)), StreamFault::FirstHop)
            };
            tracing::debug!(engine = self.id.0, over = %link[1], reached, circuits = over.len(), "a nudge was not answered");
            over.into_iter().for_each(|circuit| self.streams().unanswered(circuit, fault));
        }
        unanswered
    }

    /// Returns true if the circuit belongs to the pool, is a nudge (test circuit over two relays), or is a trial (test
    /// of a guard).
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
        assert!(nudges.is_due(link(1), AGAIN, start));
        let tag = nudges.begin(link(1), start);
        assert!(tag & TAGS != 0 && !nudges.is_due(link(1), AGAIN, start) && nudges.is_due(link(2), AGAIN, start));
        nudges.answered(tag, Some(CircuitId(5)));
        nudges.running.remove(&CircuitId(5));
        assert_eq!(nudges.silent(AGAIN, start + AGAIN), []);
        assert!(nudges.is_due(link(1), AGAIN, start + AGAIN));
    }

    #[test]
    fn a_nudge_that_was_sent_before_a_cut_does_not_count() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        assert!(nudges.is_older(link(1), start));
        nudges.begin(link(1), start);
        assert!(!nudges.is_older(link(1), start) && nudges.is_older(link(1), start + Duration::from_millis(1)));
        assert!(!nudges.is_due(link(1), AGAIN_AFTER_CUT, start));
        assert!(nudges.is_due(link(1), AGAIN_AFTER_CUT, start + AGAIN_AFTER_CUT));
        assert!(!nudges.is_due(link(1), AGAIN, start + AGAIN_AFTER_CUT));
    }

    #[test]
    fn silence_is_noticed_wherever_it_begins() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        let answer = Duration::from_secs(3);
        let tags = [1, 2, 3].map(|n| nudges.begin(link(n), start));
        nudges.answered(tags[0], Some(CircuitId(1)));
        nudges.answered(tags[1], Some(CircuitId(2)));
        nudges.running.get_mut(&CircuitId(2)).unwrap().reached = true;
        assert_eq!(nudges.silent(answer, start + answer / 2), []);
        let mut silent = nudges.silent(answer, start + answer);
        silent.sort_by_key(|silent| silent.link);
        let of = |n: u8, circuit, reached| Silent { link: link(n), circuit, reached, sent: start };
        assert_eq!(silent, [of(1, Some(CircuitId(1)), false), of(2, Some(CircuitId(2)), true), of(3, None, false)]);
        assert_eq!(nudges.silent(answer, start + answer), []);
    }

    #[test]
    fn a_second_nudge_over_a_link_makes_the_first_no_younger() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        let tag = nudges.begin(link(1), start);
        nudges.answered(tag, Some(CircuitId(1)));
        nudges.begin(link(1), start + AGAIN_AFTER_CUT);
        assert_eq!(nudges.oldest_unanswered(), Some(start));
        let silent = nudges.silent(AGAIN_AFTER_CUT, start + AGAIN_AFTER_CUT);
        assert_eq!(silent, [Silent { link: link(1), circuit: Some(CircuitId(1)), reached: false, sent: start }]);
    }

    #[test]
    fn the_oldest_nudge_without_an_answer_of_the_guard_is_known() {
        let (mut nudges, start) = (Nudges::default(), Instant::now());
        assert_eq!((nudges.oldest_unanswered(), nudges.room()), (None, AT_ONCE));
        let later = |seconds| start + Duration::from_secs(seconds);
        let tag = nudges.begin(link(1), start);
        nudges.begin(link(2), later(2));
        assert_eq!((nudges.oldest_unanswered(), nudges.room()), (Some(start), AT_ONCE - 2));
        nudges.answered(tag, Some(CircuitId(1)));
        assert_eq!(nudges.oldest_unanswered(), Some(start));
        nudges.running.get_mut(&CircuitId(1)).unwrap().reached = true;
        assert_eq!((nudges.oldest_unanswered(), nudges.room()), (Some(later(2)), AT_ONCE - 2));
        for n in 3..20 {
            nudges.begin(link(n), start);
        }
        assert_eq!(nudges.room(), 0);
    }
}
