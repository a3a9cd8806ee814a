//! What the checks of all exits show about one echo server: whether the server is down, repeats nonces (random numbers
//! in requests), or returns wrong addresses. Pure.
//!
//! An echo server may fail for every exit, and such failures must count against no exit. Two rules detect a server that
//! is down. First, the server is down if several exits that worked fail one after another and no exit passes in
//! between. This rule needs only a few checks. Second, the server is down if most of the good exits that were tested
//! within the last minute fail (`check/target_health.rs`).
//!
//! An echo server may also return wrong addresses. An address is confirmed if the exit announces the address, if a
//! check observed the address within the last day, or if two servers return the address. A server is not used if most
//! of the addresses that it returned were not confirmed.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::addresses::Record;
use super::target_health::{RECENT, TargetHealth};
use crate::exit::{ExitId, Moment};

/// How many answers of an echo server are needed to conclude that the server repeats nonces. One dishonest exit cannot
/// cause this many answers in one check.
const ENOUGH_ANSWERS: u32 = 4;

/// If this many good exits fail at the server one after another, the server counts as down. On the public network one
/// good exit in 50 fails a check by chance, so four in a row fail by chance only once in six million checks.
const RUN: usize = 4;

/// How long a run of failures counts. After this time, checks use the server once more, to see whether the server works
/// again.
const RUN_FOR: Duration = Duration::from_secs(300);

/// A server is judged by this number of addresses: the latest ones that it returned. Not tuned.
const COMPARED: usize = 16;

/// A server returns wrong addresses if at least this many of its latest addresses, and more than half of them, are
/// unconfirmed. On the public network, three exits in a hundred use another address than they announce, so a few
/// unconfirmed addresses are normal.
const WRONG: usize = 4;

/// The results of all exits at one echo server.
#[derive(Debug, Default)]
pub(super) struct EchoServer {
    health: TargetHealth,
    /// The latest results at this server. Only exits that worked before are included. The parts are: the exit, true if
    /// the exit passed, and the time.
    latest: VecDeque<(ExitId, bool, Moment)>,
    /// The latest addresses that this server returned. The parts are: the exit, true if the address was confirmed, and
    /// the time.
    addresses: VecDeque<(ExitId, bool, Moment)>,
    /// The time since when checks do not use the server. `None` if checks use the server.
    pub(super) suspended: Option<Moment>,
    /// How many answers repeated the nonce of our request.
    repeated: u32,
    answers: u32,
}

impl EchoServer {
    pub(super) fn passed(&mut self, exit: &ExitId, now: Moment) {
        self.health.passed(exit, now);
        put(&mut self.latest, RUN, (exit.clone(), true, now));
    }

    /// Records a failure that the server may have caused. `worked` is true if the exit worked until now, or passed
    /// another server in the same check. `works_elsewhere` is true only if the exit passed another server in the same
    /// check.
    pub(super) fn failed(&mut self, exit: &ExitId, worked: bool, works_elsewhere: bool, now: Moment) {
        self.health.failed(exit, works_elsewhere, now);
        if worked {
            put(&mut self.latest, RUN, (exit.clone(), false, now));
        }
    }

    /// Records an answer of the server. `repeated` is true if the answer repeated the nonce of its request.
    pub(super) fn answered(&mut self, repeated: bool) {
        self.answers += 1;
        self.repeated += u32::from(repeated);
    }

    /// Returns true if the server repeats nonces, which means that most of its answers repeat the nonce of their
    /// request.
    pub(super) fn repeats(&self) -> bool {
        self.answers >= ENOUGH_ANSWERS && self.repeated * 2 > self.answers
    }

    /// Records that the server returned an address for this exit. `confirmed` is true if a second source named the same
    /// address.
    pub(super) fn named(&mut self, exit: &ExitId, confirmed: bool, now: Moment) {
        put(&mut self.addresses, COMPARED, (exit.clone(), confirmed, now));
    }

    /// Returns true if most addresses that the server returned within the last hour were wrong.
    pub(super) fn names_wrong_addresses(&self, now: Moment) -> bool {
        let recent = || self.addresses.iter().filter(|(_, _, at)| now.since(*at) < RECENT);
        let wrong = recent().filter(|(_, confirmed, _)| !confirmed).count();
        wrong >= WRONG && wrong * 2 > recent().count()
    }

    /// Returns how reliable the addresses were that the server returned within the last hour.
    pub(super) fn record(&self, now: Moment) -> Record {
        let recent = || self.addresses.iter().filter(|(_, _, at)| now.since(*at) < RECENT);
        let (count, right) = (recent().count(), recent().filter(|(_, confirmed, _)| *confirmed).count());
        if self.names_wrong_addresses(now) {
            Record::Wrong
        } else if right * 8 >= count * 7 && count >= COMPARED / 2 {
            Record::Right
        } else {
            Record::Unknown
        }
    }

    /// Returns true if exits that work fail at this server.
    pub(super) fn is_down(&self, now: Moment) -> bool {
        let failing = self.latest.iter().filter(|(_, passed, at)| !passed && now.since(*at) < RUN_FOR).count();
        failing >= RUN || self.health.target_is_down(now)
    }

    /// Returns true if checks may use the server.
    pub(super) fn serves(&self, now: Moment) -> bool {
        !self.is_down(now) && !self.names_wrong_addresses(now)
    }

    /// Returns true if another exit has passed this server since the time `at`.
    pub(super) fn passed_by_another_since(&self, exit: &ExitId, at: Moment) -> bool {
        self.health.last_pass_of_another(exit).is_some_and(|pass| pass > at)
    }

    pub(super) fn passing(&self, now: Moment) -> usize {
        self.health.passing(now)
    }

    /// Returns the exits that passed most recently, at most `count`.
    pub(super) fn latest(&self, count: usize, now: Moment) -> Vec<ExitId> {
        self.health.latest(count, now)
    }

    /// Deletes the results of all exits that are not in `exits`.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.health.keep(exits);
        self.latest.retain(|(exit, ..)| exits.contains(exit));
        self.addresses.retain(|(exit, ..)| exits.contains(exit));
    }
}

/// Adds the result of an exit as the latest one. Each exit has only one result, and at most `most` results are kept.
fn put(results: &mut VecDeque<(ExitId, bool, Moment)>, most: usize, result: (ExitId, bool, Moment)) {
    results.retain(|(exit, ..)| *exit != result.0);
    results.push_back(result);
    if results.len() > most {
        results.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    #[test]
    fn a_few_good_exits_that_fail_in_a_row_show_that_the_server_is_down() {
        let mut server = EchoServer::default();
        (1..=100).for_each(|n| server.passed(&exit(n), START));
        (1..=3).for_each(|n| server.failed(&exit(n), true, false, START));
        server.failed(&exit(3), true, false, START);
        server.failed(&exit(200), false, false, START);
        assert!(server.serves(START), "one exit counts once, and an exit that never worked does not count");
        server.failed(&exit(4), true, false, START);
        assert!(server.is_down(START) && !server.serves(START));
        assert!(server.is_down(Moment(START.after(RUN_FOR).0 - 1)) && !server.is_down(START.after(RUN_FOR)));
        server.passed(&exit(5), START);
        assert!(server.serves(START), "one that passes ends the run");
    }

    #[test]
    fn a_server_whose_addresses_nobody_confirms_is_not_used() {
        let mut server = EchoServer::default();
        (1..=3).for_each(|n| server.named(&exit(n), false, START));
        (1..=9).for_each(|_| server.named(&exit(3), false, START));
        assert!(server.serves(START), "three exits are not enough");
        server.named(&exit(4), false, START);
        assert!(server.names_wrong_addresses(START) && !server.serves(START) && !server.is_down(START));
        assert_eq!(server.record(START), Record::Wrong);
        assert!(server.serves(START.after(RECENT)), "after an hour it is tried again");
        (5..=8).for_each(|n| server.named(&exit(n), true, START));
        assert!(server.serves(START), "half of them are right");
        (20..=60).for_each(|n| server.named(&exit(n), n % 20 != 0, START));
        assert!(server.serves(START) && server.record(START) == Record::Right);
        (61..=62).for_each(|n| server.named(&exit(n), false, START));
        assert_eq!(server.record(START), Record::Unknown);
        let mut new = EchoServer::default();
        (1..=7).for_each(|n| new.named(&exit(n), true, START));
        assert_eq!(new.record(START), Record::Unknown, "too few");
        new.named(&exit(8), true, START);
        assert_eq!(new.record(START), Record::Right);
    }

    #[test]
    fn answers_show_whether_nonces_are_repeated() {
        let mut server = EchoServer::default();
        (0..3).for_each(|_| server.answered(true));
        assert!(!server.repeats());
        server.answered(true);
        assert!(server.repeats());
        (0..4).for_each(|_| server.answered(false));
        assert!(!server.repeats(), "half is not most");
    }

    #[test]
    fn exits_that_leave_are_forgotten() {
        let mut server = EchoServer::default();
        (1..=4).for_each(|n| {
            server.passed(&exit(n), START);
            server.failed(&exit(n), true, false, START.after(Duration::from_secs(1)));
            server.named(&exit(n), false, START);
        });
        assert!(
            server.passed_by_another_since(&exit(1), Moment(0)) && !server.passed_by_another_since(&exit(1), START)
        );
        server.keep(&[exit(1)].into());
        assert!(server.serves(START.after(Duration::from_secs(1))) && server.passing(START) == 0);
        assert!(!server.passed_by_another_since(&exit(1), Moment(0)) && server.latest(3, START).is_empty());
    }
}
