//! Finds exits that change pages, with canaries: plain-HTTP pages that are the same for all clients. Pure.
//!
//! The content of a canary is not configured, because a configured content would become wrong one day. The true content
//! of a canary is the content that most exits show, and an exit that tampers shows something else.
//!
//! If the owner of a page changes the page, all exits show the new content, and the new content becomes the known
//! content. The owner's change condemns no exit, because a condemnation waits for evidence like a ban
//! (`check/site.rs`).
//!
//! Exits that tamper often show the same changed page, and they are checked more often than exits that passed. So each
//! exit has one vote on the true content, even if the exit is checked many times. The known content is replaced in two
//! cases only: exits that showed the old content themselves now show the new content, or more exits show the new
//! content than ever showed the old one.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

use super::probe::Answer;
use super::site::{PendingBans, SiteFailure};
use crate::exit::{ExitId, Moment};

/// How many of the latest votes count. This is enough to outvote a few exits that tamper. Not tuned.
const VOTES: usize = 32;

/// How many exits must show the same page until the page counts as the true page.
const QUORUM: usize = 3;

/// The SHA-256 hash of a page.
pub(super) type Digest = [u8; 32];

/// Returns the digest of a page. Returns `None` if the page did not arrive completely, or has a status other than 200.
pub(super) fn digest(answer: &Answer) -> Option<Digest> {
    (answer.status == 200 && answer.whole).then(|| Sha256::digest(&answer.body).into())
}

/// What exits showed for one canary (a page that is the same for all clients), and its true content.
#[derive(Default)]
pub(super) struct TamperCheck {
    /// The latest votes, oldest first. A vote is the digest of the page that an exit returned.
    votes: VecDeque<(ExitId, Digest)>,
    /// The digest of the true page; `None` until enough exits agree.
    truth: Option<Digest>,
    /// Exits that showed another page, and may be condemned for it.
    pub(super) pending: PendingBans,
}

impl TamperCheck {
    /// Returns the digest of the true page, if the digest is known.
    pub(super) fn truth(&self) -> Option<Digest> {
        self.truth
    }

    /// Records what an exit showed. `changed` is true if the page differed from the known page twice. Returns the exits
    /// to check again, because what they showed before differs from the page that is known now.
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
            self.pending.note(exit, Err(SiteFailure::Changed), false, now);
        } else {
            // this check began before the true page was known, so it fetched the page only once
            return vec![exit.clone()];
        }
        Vec::new()
    }

    fn vote(&mut self, exit: &ExitId, shown: Digest) {
        let earlier = self.votes.iter().position(|(voter, _)| voter == exit);
        if self.truth.is_some_and(|truth| truth != shown) {
            let voted_so = earlier.is_some_and(|at| self.votes[at].1 == shown);
            if voted_so || earlier.is_none() && self.pending.failed_last(exit) {
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

    /// Returns true if `page`, which most exits show, may replace the known page.
    fn may_become(&self, page: &Digest, now: Moment) -> bool {
        if self.truth.is_none_or(|truth| truth == *page) {
            return true;
        }
        let votes = || self.votes.iter().filter(|(_, shown)| shown == page);
        let turned = votes().filter(|(voter, _)| self.pending.passed(voter).is_some()).count();
        turned >= QUORUM || votes().count() > self.pending.passing(now)
    }

    /// Returns the page that has more than half of the votes, and at least [`QUORUM`] votes. Returns `None` if no page
    /// has that many votes.
    fn majority(&self) -> Option<Digest> {
        let votes = |shown: &Digest| self.votes.iter().filter(|(_, other)| other == shown).count();
        let most = self.votes.iter().map(|(_, shown)| (votes(shown), *shown)).max()?;
        (most.0 >= QUORUM && most.0 * 2 > self.votes.len()).then_some(most.1)
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
    fn most_exits_decide_what_the_page_is_and_the_others_are_checked_again() {
        let mut canary = TamperCheck::default();
        assert!(canary.note(&exit(9), OTHER, false, START).is_empty());
        (1..=2).for_each(|n| assert!(canary.note(&exit(n), PAGE, false, START).is_empty()));
        assert_eq!(canary.truth(), None, "two exits may tamper in the same way");
        assert_eq!(canary.note(&exit(3), PAGE, false, START), [exit(9)]);
        assert_eq!(canary.truth(), Some(PAGE));
        assert!(canary.pending.decide(START).confirmed.is_empty(), "once is not enough");
        assert_eq!(canary.note(&exit(8), OTHER, false, START), [exit(8)], "nor is it for one that comes late");
        canary.note(&exit(9), OTHER, true, START.after(Duration::from_secs(1)));
        (1..=2).for_each(|n| _ = canary.note(&exit(n), PAGE, false, START.after(Duration::from_secs(2))));
        let confirmed = canary.pending.decide(START.after(Duration::from_secs(2))).confirmed;
        assert_eq!(confirmed, [(exit(9), SiteFailure::Changed)]);
    }

    #[test]
    fn a_page_that_its_owner_changes_condemns_no_exit() {
        let mut canary = known();
        let mut now = START.after(TOGETHER);
        for round in 0..3 {
            for n in 1..=6 {
                let changed = canary.truth() != Some(OTHER);
                canary.note(&exit(n), OTHER, changed, now);
                assert!(canary.pending.decide(now).confirmed.is_empty(), "{n} in round {round}");
                now = now.after(Duration::from_secs(3));
            }
        }
        assert_eq!(canary.truth(), Some(OTHER));
        assert!(canary.pending.decide(now.after(TOGETHER)).confirmed.is_empty());
    }

    #[test]
    fn tampering_exits_that_are_checked_often_do_not_outvote_exits_that_passed() {
        let mut canary = TamperCheck::default();
        (1..=100).for_each(|n| assert!(canary.note(&exit(n), PAGE, false, START).is_empty()));
        let mut now = START;
        for _ in 0..5 {
            now = now.after(Duration::from_secs(30));
            (101..=200).for_each(|n| assert!(canary.note(&exit(n), OTHER, true, now).is_empty()));
            assert_eq!(canary.truth(), Some(PAGE));
            canary.note(&exit(1), PAGE, false, now);
        }
        let confirmed = canary.pending.decide(now.after(TOGETHER)).confirmed;
        assert_eq!(confirmed.len(), 100, "every one of them, and no other");
        assert!(confirmed.iter().all(|(id, _)| (101..=200).any(|n| *id == exit(n))));
    }

    #[test]
    fn tampering_exits_that_come_first_are_outvoted_by_those_that_follow() {
        let mut canary = TamperCheck::default();
        (101..=103).for_each(|n| _ = canary.note(&exit(n), OTHER, false, START));
        assert_eq!(canary.truth(), Some(OTHER));
        (1..=5).for_each(|n| _ = canary.note(&exit(n), PAGE, true, START));
        assert_eq!(canary.truth(), Some(PAGE));
    }

    #[test]
    fn a_cut_page_and_an_error_page_have_no_digest() {
        let answer = |status, whole| Answer { status, headers: Default::default(), body: "x".into(), whole };
        assert!(digest(&answer(200, true)).is_some());
        assert!(digest(&answer(200, false)).or(digest(&answer(404, true))).is_none());
    }
}
