//! Pages that are the same for everybody, in the clear: an exit that shows another one changes what it carries. Pure.
//!
//! What such a page is need not be written down, where it would be wrong one day: it is what most exits say it is. The
//! page of a tamperer differs from that; a page that its owner changes differs for everybody, and then the truth is
//! learned anew while nobody is sentenced (see `check/site.rs`: the docket is the same).
//!
//! Tamperers often show one and the same page, stand together in the lists, and are tested again and again while those
//! who passed have their peace. So whoever differs has one vote however often he is asked, and what is known gives way
//! only where some say so who had shown it themselves, or where it never had more on its side.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

use super::probe::Answer;
use super::site::{Miss, PendingBans};
use crate::exit::{ExitId, Moment};

/// Exits whose word on a page counts, the latest. Arbitrary: enough that a few tamperers are outvoted.
const VOTES: usize = 32;

/// Exits that must agree before a page is known.
const QUORUM: usize = 3;

/// The SHA-256 of a page.
pub(super) type Digest = [u8; 32];

/// The digest of a page that came whole and as a page.
pub(super) fn digest(answer: &Answer) -> Option<Digest> {
    (answer.status == 200 && answer.whole).then(|| Sha256::digest(&answer.body).into())
}

/// One page.
#[derive(Default)]
pub(super) struct TamperCheck {
    votes: VecDeque<(ExitId, Digest)>,
    truth: Option<Digest>,
    pub(super) pending: PendingBans,
}

impl TamperCheck {
    /// What the page is, if that is known.
    pub(super) fn truth(&self) -> Option<Digest> {
        self.truth
    }

    /// An exit showed the page; `changed` if it showed another than was known, twice. Yields exits to be tested again:
    /// what they showed before is not what the page turns out to be.
    pub(super) fn note(&mut self, exit: &ExitId, shown: Digest, changed: bool, now: Moment) -> Vec<ExitId> {
        self.vote(exit, shown);
        let before = self.truth;
        self.truth = self.majority().filter(|page| self.may_become(page, now)).or(before);
        let Some(truth) = self.truth else { return Vec::new() };
        if before != self.truth {
            let (agree, differ): (Vec<_>, Vec<_>) = self.votes.iter().cloned().partition(|(_, shown)| *shown == truth);
            agree.iter().for_each(|(voter, _)| _ = self.pending.note(voter, Ok(()), false, now));
            return differ.into_iter().map(|(voter, _)| voter).collect();
        }
        if shown == truth {
            self.pending.note(exit, Ok(()), false, now);
        } else if changed {
            self.pending.note(exit, Err(Miss::Changed), false, now);
        } else {
            return vec![exit.clone()]; // the check began before the page was known, and has looked once
        }
        Vec::new()
    }

    fn vote(&mut self, exit: &ExitId, shown: Digest) {
        let earlier = self.votes.iter().position(|(voter, _)| voter == exit);
        if self.truth.is_some_and(|truth| truth != shown) {
            let said_so = earlier.is_some_and(|at| self.votes[at].1 == shown);
            if said_so || earlier.is_none() && self.pending.failed_last(exit) {
                return;
            }
        }
        if let Some(at) = earlier {
            self.votes.remove(at);
        }
        self.votes.push_back((exit.clone(), shown));
        if self.votes.len() > VOTES {
            self.votes.pop_front();
        }
    }

    /// Whether a page that most saw may take the place of the one that is known.
    fn may_become(&self, page: &Digest, now: Moment) -> bool {
        if self.truth.is_none_or(|truth| truth == *page) {
            return true;
        }
        let votes = || self.votes.iter().filter(|(_, shown)| shown == page);
        let turned = votes().filter(|(voter, _)| self.pending.passed(voter).is_some()).count();
        turned >= QUORUM || votes().count() > self.pending.passing(now)
    }

    /// What more than half of the jury saw.
    fn majority(&self) -> Option<Digest> {
        let votes = |shown: &Digest| self.votes.iter().filter(|(_, other)| other == shown).count();
        let most = self.votes.iter().map(|(_, shown)| (votes(shown), *shown)).max()?;
        (self.votes.len() >= QUORUM && most.0 * 2 > self.votes.len()).then_some(most.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::target_health::TOGETHER;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const PAGE: Digest = [1; 32];
    const OTHER: Digest = [2; 32];

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn known() -> TamperCheck {
        let mut canary = TamperCheck::default();
        (1..=6).for_each(|n| assert!(canary.note(&exit(n), PAGE, false, START).is_empty()));
        canary
    }

    #[test]
    fn most_exits_say_what_the_page_is_and_who_said_another_is_asked_again() {
        let mut canary = TamperCheck::default();
        assert!(canary.note(&exit(9), OTHER, false, START).is_empty());
        assert!(canary.note(&exit(1), PAGE, false, START).is_empty() && canary.truth().is_none());
        assert_eq!(canary.note(&exit(2), PAGE, false, START), [exit(9)]);
        assert_eq!(canary.truth(), Some(PAGE));
        assert!(canary.pending.settle(START).confirmed.is_empty(), "once is not enough");
        assert_eq!(canary.note(&exit(8), OTHER, false, START), [exit(8)], "nor is it for one that comes late");
        canary.note(&exit(9), OTHER, true, START.after(Duration::from_secs(1)));
        canary.note(&exit(1), PAGE, false, START.after(Duration::from_secs(2)));
        let confirmed = canary.pending.settle(START.after(Duration::from_secs(2))).confirmed;
        assert_eq!(confirmed, [(exit(9), Miss::Changed)]);
    }

    #[test]
    fn a_page_that_its_owner_changes_condemns_nobody() {
        let mut canary = known();
        let mut now = START.after(TOGETHER);
        for round in 0..3 {
            for n in 1..=6 {
                let changed = canary.truth() != Some(OTHER);
                canary.note(&exit(n), OTHER, changed, now);
                assert!(canary.pending.settle(now).confirmed.is_empty(), "{n} in round {round}");
                now = now.after(Duration::from_secs(3));
            }
        }
        assert_eq!(canary.truth(), Some(OTHER));
        assert!(canary.pending.settle(now.after(TOGETHER)).confirmed.is_empty());
    }

    #[test]
    fn tamperers_that_are_asked_again_and_again_do_not_outvote_those_who_passed() {
        let mut canary = TamperCheck::default();
        (1..=100).for_each(|n| assert!(canary.note(&exit(n), PAGE, false, START).is_empty()));
        let mut now = START;
        for _ in 0..5 {
            now = now.after(Duration::from_secs(30));
            (101..=200).for_each(|n| assert!(canary.note(&exit(n), OTHER, true, now).is_empty()));
            assert_eq!(canary.truth(), Some(PAGE));
            canary.note(&exit(1), PAGE, false, now);
        }
        let confirmed = canary.pending.settle(now.after(TOGETHER)).confirmed;
        assert_eq!(confirmed.len(), 100, "every one of them, and no other");
        assert!(confirmed.iter().all(|(id, _)| (101..=200).any(|n| *id == exit(n))));
    }

    #[test]
    fn tamperers_that_come_first_are_outvoted_by_those_who_follow() {
        let mut canary = TamperCheck::default();
        (101..=103).for_each(|n| _ = canary.note(&exit(n), OTHER, false, START));
        assert_eq!(canary.truth(), Some(OTHER));
        (1..=5).for_each(|n| _ = canary.note(&exit(n), PAGE, true, START));
        assert_eq!(canary.truth(), Some(PAGE));
    }

    #[test]
    fn half_a_page_and_an_error_are_no_pages() {
        let answer = |status, whole| Answer { status, headers: Default::default(), body: "x".into(), whole };
        assert!(digest(&answer(200, true)).is_some());
        assert!(digest(&answer(200, false)).or(digest(&answer(404, true))).is_none());
    }
}
