//! What the results of all proxies show about a single result. Pure.
//!
//! A thousand proxies look dead if an echo server (a server that answers with the address it sees) is down, or if this
//! machine's own connection fails. So this code counts the share of good answers for each echo server. If nearly all
//! proxies that worked a moment ago fail at the same time, none of these failures counts.
//!
//! A canary is a page that is the same for all clients. Its true content is the content that most proxies show
//! (`check/tamper_check.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use super::super::fault::Fault;
use super::super::tamper_check::{Digest, TamperCheck};
use super::report::{Echo, Echoes};
use crate::dial::{DialError, ExitFault};
use crate::exit::{ExitId, Moment};

/// The factor by which each new answer reduces the weight of earlier answers. With this factor, about the last hundred
/// answers count.
const FADE: f32 = 0.99;

/// How many answers an echo server must have given before its share of good answers is used. Not tuned.
const ENOUGH_ANSWERS: f32 = 10.0;

/// If an echo server's share of good answers is below this fraction of the best server's share, the server is used only
/// after the other servers.
const IN_SERVICE: f32 = 0.5;

/// This machine's own connection counts as down if two conditions hold within the time [`RECENT`]. First, at least 20
/// proxies that had worked were tested again. Second, more than the share 0.9 of these proxies failed. Without such a
/// fault, at most one proxy in twenty dies within a minute.
const UPLINK: (usize, f32) = (20, 0.9);
const RECENT: Duration = Duration::from_secs(60);

/// The answers of one echo server, weighted by age.
#[derive(Clone, Copy, Debug, Default)]
struct EchoHealth {
    good: f32,
    bad: f32,
    /// The sum of the weights of those good answers that repeated the nonce of our request.
    repeated: f32,
}

impl EchoHealth {
    fn share(&self) -> Option<f32> {
        let all = self.good + self.bad;
        (all >= ENOUGH_ANSWERS).then(|| self.good / all)
    }

    fn repeats(&self) -> bool {
        self.good >= ENOUGH_ANSWERS && self.repeated > self.good * 0.8
    }
}

pub(super) struct PublicEvaluator {
    plain: Vec<EchoHealth>,
    secure: Vec<EchoHealth>,
    canaries: Vec<TamperCheck>,
    /// The latest tests of proxies that had worked before: the time of the test, and true if the proxy still worked.
    uplink: VecDeque<(Moment, bool)>,
}

impl PublicEvaluator {
    pub(super) fn new(plain: usize, secure: usize, canaries: usize) -> Self {
        let canaries = std::iter::repeat_with(TamperCheck::default).take(canaries).collect();
        Self {
            plain: vec![EchoHealth::default(); plain],
            secure: vec![EchoHealth::default(); secure],
            canaries,
            uplink: VecDeque::new(),
        }
    }

    /// Returns the echo servers in the order in which to use them: first the servers that answer well, in random order,
    /// then the others.
    pub(super) fn echoes<R: Rng + ?Sized>(&self, rng: &mut R) -> Echoes {
        Echoes { plain: order(&self.plain, rng), secure: order(&self.secure, rng) }
    }

    /// Records how an echo server answered. A request that never reached the server says nothing about the server.
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

    /// Returns true if other proxies receive the true certificates of the TLS servers. If so, a proxy that shows a
    /// wrong certificate is itself at fault.
    pub(super) fn vouches_for_tls(&self) -> bool {
        self.secure.iter().any(|health| health.share().is_some_and(|share| share > 0.2))
    }

    /// Records whether a proxy that worked still works. Returns true if our own connection seems to be down.
    pub(super) fn uplink_fails(&mut self, works: bool, now: Moment) -> bool {
        self.uplink.push_back((now, works));
        while self.uplink.front().is_some_and(|(at, _)| now.since(*at) > RECENT) {
            self.uplink.pop_front();
        }
        let failing = self.uplink.iter().filter(|(_, works)| !works).count();
        self.uplink.len() >= UPLINK.0 && failing as f32 > self.uplink.len() as f32 * UPLINK.1
    }

    /// Returns the digest of the true content of a canary (a page that is the same for all clients). `canary` is its
    /// index. Returns `None` if the digest is not known yet.
    pub(super) fn truth(&self, canary: usize) -> Option<Digest> {
        self.canaries[canary].truth()
    }

    /// Records what a proxy showed for a canary (a page that is the same for all clients). Returns the proxies that
    /// must be checked again.
    pub(super) fn note_canary(
        &mut self,
        exit: &ExitId,
        (canary, seen, changed): (usize, Digest, bool),
        now: Moment,
    ) -> Vec<ExitId> {
        self.canaries[canary].note(exit, seen, changed, now)
    }

    /// Returns two lists: the proxies that certainly change pages, and the proxies that must be checked again because
    /// more evidence is needed.
    pub(super) fn settle(&mut self, now: Moment) -> (Vec<ExitId>, Vec<ExitId>) {
        let (mut confirmed, mut again) = (Vec::new(), Vec::new());
        for canary in self.canaries.iter_mut().filter(|canary| canary.pending.is_undecided()) {
            let decided = canary.pending.decide(now);
            confirmed.extend(decided.confirmed.into_iter().map(|(exit, _)| exit));
            again.extend(decided.again);
        }
        (confirmed, again)
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.canaries.iter().any(|canary| canary.pending.is_undecided())
    }

    /// Deletes the results of all proxies that are not in `exits`.
    pub(super) fn keep(&mut self, exits: &std::collections::HashSet<ExitId>) {
        self.canaries.iter_mut().for_each(|canary| canary.pending.keep(exits));
    }
}

fn order<R: Rng + ?Sized>(all: &[EchoHealth], rng: &mut R) -> Vec<(usize, bool)> {
    let best = all.iter().filter_map(EchoHealth::share).fold(0.0, f32::max);
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
    fn a_server_that_answers_no_proxy_is_asked_last() {
        let (mut evaluator, mut rng) = (PublicEvaluator::new(2, 1, 0), SmallRng::seed_from_u64(1));
        let first = |evaluator: &PublicEvaluator, rng: &mut SmallRng| evaluator.echoes(rng).plain[0].0;
        let firsts: usize = (0..50).map(|_| first(&evaluator, &mut rng)).sum();
        assert!((10..40).contains(&firsts), "no server is preferred yet");
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
    fn wrong_certificates_count_only_while_others_see_the_true_ones() {
        let mut evaluator = PublicEvaluator::new(0, 1, 0);
        let echo = Echo { secure: true, at: 0 };
        (0..20).for_each(|_| evaluator.note_echo(echo, Err(Fault::Forged)));
        assert!(!evaluator.vouches_for_tls());
        (0..20).for_each(|_| evaluator.note_echo(echo, Ok(false)));
        assert!(evaluator.vouches_for_tls());
    }

    #[test]
    fn when_all_proxies_that_worked_fail_at_once_our_connection_is_down() {
        let mut evaluator = PublicEvaluator::new(0, 0, 0);
        let now = |n: u64| Moment(n * 1_000_000);
        assert!((0..19).all(|n| !evaluator.uplink_fails(false, now(n))));
        assert!(evaluator.uplink_fails(false, now(19)));
        assert!((20..30).all(|n| !evaluator.uplink_fails(true, now(n)) || n < 23));
        assert!(!evaluator.uplink_fails(false, now(30)), "one of many");
        assert!(!evaluator.uplink_fails(false, now(500)), "long ago");
    }
}
