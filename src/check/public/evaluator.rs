//! What the tests of others say about one's own. Pure.
//!
//! An echo server that is down looks like a thousand proxies that are, and so does our own line: so servers are judged
//! by how many get an answer from them, and when those that worked a moment ago fail all at once, nobody is blamed. A
//! page that must be the same for everybody is what most say that it is (see `check/tamper_check.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use super::super::fault::Fault;
use super::super::tamper_check::{Digest, TamperCheck};
use super::report::{Echo, Echoes};
use crate::dial::{DialError, ExitFault};
use crate::exit::{ExitId, Moment};

/// What an answer leaves of the weight of those before it: the last hundred or so count.
const FADE: f32 = 0.99;

/// Answers before an echo server is judged. Arbitrary: more than a streak of bad luck.
const JUDGED: f32 = 10.0;

/// An echo server whose share of good answers is less than this part of the best one's is not in service.
const IN_SERVICE: f32 = 0.5;

/// Proxies that worked, tested again in the last minute, of which so many must fail for it to be our line. Arbitrary:
/// one in twenty dies a minute in bad times.
const UPLINK: (usize, f32) = (20, 0.9);
const LATELY: Duration = Duration::from_secs(60);

/// How one echo server fares.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    good: f32,
    bad: f32,
    /// Good answers that repeated our nonce.
    repeated: f32,
}

impl Health {
    fn share(&self) -> Option<f32> {
        let all = self.good + self.bad;
        (all >= JUDGED).then(|| self.good / all)
    }

    fn repeats(&self) -> bool {
        self.good >= JUDGED && self.repeated > self.good * 0.8
    }
}

/// See above.
pub(super) struct PublicEvaluator {
    plain: Vec<Health>,
    secure: Vec<Health>,
    canaries: Vec<TamperCheck>,
    /// Whether proxies that worked still did, lately.
    uplink: VecDeque<(Moment, bool)>,
}

impl PublicEvaluator {
    pub(super) fn new(plain: usize, secure: usize, canaries: usize) -> Self {
        let canaries = std::iter::repeat_with(TamperCheck::default).take(canaries).collect();
        Self {
            plain: vec![Health::default(); plain],
            secure: vec![Health::default(); secure],
            canaries,
            uplink: VecDeque::new(),
        }
    }

    /// The servers to ask: those in service in random order, then the others.
    pub(super) fn echoes<R: Rng + ?Sized>(&self, rng: &mut R) -> Echoes {
        Echoes { plain: order(&self.plain, rng), secure: order(&self.secure, rng) }
    }

    /// How a server answered. What never came to it says nothing about it.
    pub(super) fn note_echo(&mut self, echo: Echo, answer: Result<bool, Fault>) {
        let all = if echo.secure { &mut self.secure } else { &mut self.plain };
        let health = &mut all[echo.at];
        let (good, bad, repeated) = match answer {
            Ok(repeated) => (1.0, 0.0, f32::from(u8::from(repeated))),
            Err(Fault::Dial(DialError::Exit(ExitFault::Unclear) | DialError::Target(_))) => (0.0, 1.0, 0.0),
            Err(Fault::Dial(_)) => return,
            Err(_) => (0.0, 1.0, 0.0),
        };
        health.good = health.good * FADE + good;
        health.bad = health.bad * FADE + bad;
        health.repeated = health.repeated * FADE + repeated;
    }

    /// True if servers over TLS show their own certificates to others, so that one who sees another is shown a false one.
    pub(super) fn vouches_for_tls(&self) -> bool {
        self.secure.iter().any(|health| health.share().is_some_and(|share| share > 0.2))
    }

    /// Notes what became of one that worked; true if what fails now is to be blamed on our own line.
    pub(super) fn uplink_fails(&mut self, works: bool, now: Moment) -> bool {
        self.uplink.push_back((now, works));
        while self.uplink.front().is_some_and(|(at, _)| now.since(*at) > LATELY) {
            self.uplink.pop_front();
        }
        let failing = self.uplink.iter().filter(|(_, works)| !works).count();
        self.uplink.len() >= UPLINK.0 && failing as f32 > self.uplink.len() as f32 * UPLINK.1
    }

    /// What a page is, if that is known.
    pub(super) fn truth(&self, canary: usize) -> Option<Digest> {
        self.canaries[canary].truth()
    }

    /// How a page was seen. Yields those who are to be asked again.
    pub(super) fn note_canary(
        &mut self,
        exit: &ExitId,
        (canary, seen, changed): (usize, Digest, bool),
        now: Moment,
    ) -> Vec<ExitId> {
        self.canaries[canary].note(exit, seen, changed, now)
    }

    /// Those of whom it is clear by now that they change pages, and those who are to look again so that it becomes clear.
    pub(super) fn settle(&mut self, now: Moment) -> (Vec<ExitId>, Vec<ExitId>) {
        let (mut confirmed, mut again) = (Vec::new(), Vec::new());
        for canary in self.canaries.iter_mut().filter(|canary| canary.pending.is_unsettled()) {
            let settled = canary.pending.settle(now);
            confirmed.extend(settled.confirmed.into_iter().map(|(exit, _)| exit));
            again.extend(settled.again);
        }
        (confirmed, again)
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.canaries.iter().any(|canary| canary.pending.is_unsettled())
    }

    /// Forgets proxies that are there no more.
    pub(super) fn keep(&mut self, exits: &std::collections::HashSet<ExitId>) {
        self.canaries.iter_mut().for_each(|canary| canary.pending.keep(exits));
    }
}

fn order<R: Rng + ?Sized>(all: &[Health], rng: &mut R) -> Vec<(usize, bool)> {
    let best = all.iter().filter_map(Health::share).fold(0.0, f32::max);
    let mut order: Vec<_> = (0..all.len()).collect();
    order.shuffle(rng);
    order.sort_by_key(|at| all[*at].share().is_some_and(|share| share < best * IN_SERVICE));
    order.into_iter().map(|at| (at, all[at].repeats())).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const PLAIN: Echo = Echo { secure: false, at: 0 };
    const OTHER: Echo = Echo { secure: false, at: 1 };

    #[test]
    fn a_server_that_fails_everybody_is_asked_last() {
        let (mut evaluator, mut rng) = (PublicEvaluator::new(2, 1, 0), SmallRng::seed_from_u64(1));
        let first = |evaluator: &PublicEvaluator, rng: &mut SmallRng| evaluator.echoes(rng).plain[0].0;
        let firsts: usize = (0..50).map(|_| first(&evaluator, &mut rng)).sum();
        assert!((10..40).contains(&firsts), "nobody is preferred yet");
        for _ in 0..50 {
            evaluator.note_echo(PLAIN, Err(Fault::Slow));
            evaluator.note_echo(OTHER, Ok(true));
            evaluator.note_echo(OTHER, Err(Fault::Dial(DialError::Exit(ExitFault::Unreachable))));
            evaluator.note_echo(OTHER, Err(Fault::Slow));
        }
        assert!((0..50).all(|_| first(&evaluator, &mut rng) == 1));
        assert_eq!(evaluator.echoes(&mut rng).plain, [(1, true), (0, false)], "and the other repeats nonces");
    }

    #[test]
    fn one_interceptor_is_none_while_everybody_sees_false_certificates() {
        let mut evaluator = PublicEvaluator::new(0, 1, 0);
        let echo = Echo { secure: true, at: 0 };
        (0..20).for_each(|_| evaluator.note_echo(echo, Err(Fault::Forged)));
        assert!(!evaluator.vouches_for_tls());
        (0..20).for_each(|_| evaluator.note_echo(echo, Ok(false)));
        assert!(evaluator.vouches_for_tls());
    }

    #[test]
    fn when_all_that_worked_fail_at_once_it_is_our_line() {
        let mut evaluator = PublicEvaluator::new(0, 0, 0);
        let now = |n: u64| Moment(n * 1_000_000);
        assert!((0..19).all(|n| !evaluator.uplink_fails(false, now(n))));
        assert!(evaluator.uplink_fails(false, now(19)));
        assert!((20..30).all(|n| !evaluator.uplink_fails(true, now(n)) || n < 23));
        assert!(!evaluator.uplink_fails(false, now(30)), "one of many");
        assert!(!evaluator.uplink_fails(false, now(500)), "long ago");
    }
}
