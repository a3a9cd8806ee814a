//! What a page must answer, and which failures lead to a ban. Pure.
//!
//! An exit that fails at a page is immediately removed from the list of exits that pass the page. This costs little,
//! because the next passed check adds the exit again.
//!
//! A ban is more serious: it excludes the exit from a site or, if the exit changed the page, from all use. So a ban
//! stays pending until it is certain that the page itself works. This is certain if two conditions hold. First, another
//! exit has passed the page since the failure. Second, one minute is over, or at least half of the exits that passed
//! recently have passed again.
//!
//! To decide pending bans soon, a few of the exits that passed recently are checked again immediately, because their
//! next regular check may be an hour away. If the page turns out to be down in the meantime, all pending bans are
//! dropped.

use std::time::Duration;

use super::fault::{Blame, Fault};
use super::probe::Answer;
use super::target_health::{RECENT, TOGETHER, TargetHealth};
use crate::config::CheckTarget;
use crate::exit::{ExitId, Moment};

/// How an answer differs from the expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SiteFailure {
    /// The status is not one of the expected ones.
    #[error("it answers {0}")]
    Status(u16),
    /// The body does not contain the expected text.
    #[error("its page lacks the expected text")]
    Body,
    /// The body does not match the expected pattern.
    #[error("its page does not match the expected pattern")]
    Pattern,
    /// The answer is as expected, but took too long. The value is the time in milliseconds.
    #[error("it takes {0} ms, which is longer than it may")]
    Late(u32),
    /// A page that is the same for all clients arrived with changes.
    #[error("it changes pages")]
    Changed,
    /// There was no answer.
    #[error("{0}")]
    Fault(Fault),
}

impl SiteFailure {
    /// The code of this failure in the store and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Body | Self::Pattern => "body",
            Self::Late(_) => "late",
            Self::Changed => "changed",
            Self::Fault(fault) => fault.as_str(),
        }
    }

    /// Returns true if the site refused the exit, or may have refused it.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Fault(fault) => matches!(fault.blame(), Blame::Target | Blame::Unclear),
            Self::Late(_) => false,
            _ => true,
        }
    }
}

/// Compares an answer, and the time that the answer took, with what the target expects.
pub fn expect(target: &CheckTarget, answer: &Answer, took: Duration) -> Result<(), SiteFailure> {
    if !target.expect_status.contains(&answer.status) {
        return Err(SiteFailure::Status(answer.status));
    }
    if let Some(text) = target.expect_body.as_deref().filter(|text| !text.is_empty()) {
        let found = answer.body.windows(text.len()).any(|piece| piece == text.as_bytes());
        found.then_some(()).ok_or(SiteFailure::Body)?;
    }
    match &target.expect_regex {
        Some(regex) if !regex.is_match(&answer.body) => return Err(SiteFailure::Pattern),
        _ => {}
    }
    match target.expect_latency {
        Some(most) if took > most => Err(SiteFailure::Late(u32::try_from(took.as_millis()).unwrap_or(u32::MAX))),
        _ => Ok(()),
    }
}

/// The immediate result of one exit's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteEffect {
    Passes,
    /// The exit fails, and a ban may follow.
    Fails,
    /// The site is down, so the failure does not count.
    Suspended,
}

/// The decisions for which enough evidence was found since the last call of [`PendingBans::decide`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageDecisions {
    /// The exits to ban, each with its failure.
    pub confirmed: Vec<(ExitId, SiteFailure)>,
    /// Exits that passed before they failed, and failed only because the page was down.
    pub cleared: Vec<ExitId>,
    /// True if the page has gone down, false if it works again, `None` if neither happened.
    pub went_down: Option<bool>,
    /// Exits to check again, because they passed recently.
    pub again: Vec<ExitId>,
}

/// After an exit failed at a page, this many exits that passed recently are checked again. If all of them fail too,
/// they are enough to show that the page is down.
const CHECKED_AGAIN: usize = 3;

/// When an exit fails at the page, other exits are checked again, but not more often than once within this time. Not
/// tuned: while a site refuses one exit after another, these additional checks are about one per second.
const AGAIN_PAUSE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
struct PendingBan {
    exit: ExitId,
    failure: SiteFailure,
    since: Moment,
    /// True if the exit passed the page before the exit failed.
    passed_before: bool,
}

/// The results of one page, and the exits that may be banned for their results.
#[derive(Clone, Debug, Default)]
pub struct PendingBans {
    health: TargetHealth,
    pending: Vec<PendingBan>,
    /// When exits were last marked to be checked again because another exit failed.
    asked_again: Moment,
    /// The time since when the page is down; `None` if the page works.
    down_since: Option<Moment>,
}

impl PendingBans {
    /// Records an exit's result. `passed_before` is true if the exit passed until now. Returns what follows from the
    /// result, and how many results in a row were the same (positive for passes, negative for failures).
    pub fn note(
        &mut self,
        exit: &ExitId,
        result: Result<(), SiteFailure>,
        passed_before: bool,
        now: Moment,
    ) -> (SiteEffect, i32) {
        let Err(failure) = result else {
            self.pending.retain(|ban| ban.exit != *exit);
            return (SiteEffect::Passes, self.health.passed(exit, now));
        };
        let streak = self.health.failed(exit, false, now);
        if self.health.target_is_down(now) {
            // This failure may be the first result that shows that the page is down. The exit then gets a pending ban,
            // although a failure at a page that is down does not count. The next call of [`Self::decide`] drops this
            // ban, and the exit counts as passing again if it passed before.
            if self.down_since.is_none() {
                self.add(exit, failure, passed_before, now);
            }
            return (SiteEffect::Suspended, streak);
        }
        if failure.is_refusal() {
            self.add(exit, failure, passed_before, now);
        }
        (SiteEffect::Fails, streak)
    }

    fn add(&mut self, exit: &ExitId, failure: SiteFailure, passed_before: bool, now: Moment) {
        if !self.pending.iter().any(|ban| ban.exit == *exit) {
            self.pending.push(PendingBan { exit: exit.clone(), failure, since: now, passed_before });
        }
    }

    /// Decides on the pending bans for which there is enough evidence.
    pub fn decide(&mut self, now: Moment) -> PageDecisions {
        let is_down = self.health.target_is_down(now);
        let went_down = (is_down != self.down_since.is_some()).then_some(is_down);
        self.down_since = is_down.then(|| self.down_since.unwrap_or(now));
        if is_down {
            let cleared = self.pending.drain(..).filter(|ban| ban.passed_before).map(|ban| ban.exit).collect();
            return PageDecisions { cleared, went_down, ..PageDecisions::default() };
        }
        let passes = if self.pending.is_empty() { Vec::new() } else { self.health.passes(now) };
        let mut confirmed = Vec::new();
        self.pending.retain(|ban| {
            let since = passes.len() - passes.partition_point(|at| *at <= ban.since);
            let certain = since > 0 && (since * 2 >= passes.len() || now.since(ban.since) >= TOGETHER);
            if certain {
                confirmed.push((ban.exit.clone(), ban.failure));
            }
            !certain && now.since(ban.since) < RECENT
        });
        PageDecisions { confirmed, went_down, again: self.exits_to_check_again(now), ..PageDecisions::default() }
    }

    fn exits_to_check_again(&mut self, now: Moment) -> Vec<ExitId> {
        let none_is_new = self.pending.iter().all(|ban| ban.since < self.asked_again);
        if none_is_new || now.since(self.asked_again) < AGAIN_PAUSE {
            return Vec::new();
        }
        let again = self.health.latest(CHECKED_AGAIN, now);
        if !again.is_empty() {
            self.asked_again = now;
        }
        again
    }

    /// Returns when an exit last passed the page. Returns `None` if no pass is recorded.
    pub fn passed(&self, exit: &ExitId) -> Option<Moment> {
        self.health.last_pass(exit)
    }

    /// Returns how many exits passed the page within the last hour and did not fail since.
    pub fn passing(&self, now: Moment) -> usize {
        self.health.passing(now)
    }

    /// Returns true if the latest result of an exit at this page is a failure.
    pub fn failed_last(&self, exit: &ExitId) -> bool {
        self.health.failed_last(exit)
    }

    /// Returns true while a ban is pending, or while the page is down.
    pub fn is_undecided(&self) -> bool {
        self.down_since.is_some() || !self.pending.is_empty()
    }

    /// Returns the time since when the page is down (if it is down), how many exits pass the page, and how many bans
    /// are pending.
    pub fn health(&self, now: Moment) -> (Option<Moment>, usize, usize) {
        (self.down_since, self.passing(now), self.pending.len())
    }

    /// Deletes the results of all exits that are not in `exits`.
    pub fn keep(&mut self, exits: &std::collections::HashSet<ExitId>) {
        self.health.keep(exits);
        self.pending.retain(|ban| exits.contains(&ban.exit));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use regex::bytes::Regex;

    use super::*;
    use crate::dial::{DialError, ExitFault, TargetFault};
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const REFUSED: Result<(), SiteFailure> = Err(SiteFailure::Status(403));

    fn exit(n: u8) -> ExitId {
        ExitId::Tor(Fingerprint([n; 20]))
    }

    fn target() -> CheckTarget {
        CheckTarget {
            name: "shop".into(),
            url: "https://shop.test/".parse().unwrap(),
            expect_status: vec![200, 204],
            expect_body: None,
            expect_regex: None,
            expect_latency: None,
            site: "shop.test".into(),
            preset: false,
        }
    }

    #[test]
    fn status_is_compared_first_then_text_then_pattern() {
        let body = |text: &str| CheckTarget { expect_body: Some(text.into()), ..target() };
        let regex = |text: &str| CheckTarget { expect_regex: Some(Regex::new(text).unwrap()), ..target() };
        for (target, status, want) in [
            (target(), 200, Ok(())),
            (target(), 204, Ok(())),
            (target(), 403, Err(SiteFailure::Status(403))),
            (body("welcome"), 200, Ok(())),
            (body(""), 200, Ok(())),
            (body("Welcome"), 200, Err(SiteFailure::Body)),
            (body("welcome"), 500, Err(SiteFailure::Status(500))),
            (regex("(?i)WEL.{3}e"), 200, Ok(())),
            (regex("^shop"), 200, Err(SiteFailure::Pattern)),
        ] {
            let answer = Answer {
                status,
                headers: HeaderMap::new(),
                body: Bytes::from_static(b"welcome to the shop"),
                whole: true,
            };
            assert_eq!(expect(&target, &answer, SECOND), want, "{target:?} {status}");
            let (patient, hasty) = (Some(SECOND), Some(SECOND / 2));
            let late = |expect_latency| expect(&CheckTarget { expect_latency, ..target.clone() }, &answer, SECOND);
            assert_eq!((late(patient), late(hasty)), (want, want.and(Err(SiteFailure::Late(1000)))), "{status}");
        }
        assert!(!SiteFailure::Late(1).is_refusal(), "the exit is slow, not the site");
    }

    #[test]
    fn one_refusal_among_passes_becomes_a_ban() {
        let mut pending = PendingBans::default();
        assert_eq!(pending.note(&exit(1), REFUSED, false, START), (SiteEffect::Fails, -1));
        assert_eq!(
            pending.decide(START.after(RECENT / 2)),
            PageDecisions::default(),
            "no exit shows that the site works"
        );
        pending.note(&exit(2), Ok(()), false, START.after(SECOND));
        assert_eq!(pending.decide(START.after(SECOND)).confirmed, [(exit(1), SiteFailure::Status(403))]);
        assert!(!pending.is_undecided());
    }

    #[test]
    fn with_many_good_ones_a_ban_waits_a_minute() {
        let mut pending = PendingBans::default();
        (10..30).for_each(|n| _ = pending.note(&exit(n), Ok(()), false, START));
        let later = START.after(SECOND);
        pending.note(&exit(1), REFUSED, false, later);
        pending.note(&exit(10), Ok(()), true, later.after(SECOND));
        let decisions = pending.decide(later.after(SECOND));
        assert_eq!((decisions.confirmed.len(), decisions.again.len()), (0, CHECKED_AGAIN));
        assert_eq!(decisions.again[0], exit(10), "the latest first");
        assert!(
            pending.decide(later.after(2 * SECOND)).again.is_empty(),
            "they are checked again once for each new failure"
        );
        assert_eq!(pending.decide(later.after(TOGETHER)).confirmed.len(), 1);
    }

    #[test]
    fn a_site_that_fails_every_exit_bans_none() {
        let mut pending = PendingBans::default();
        (1..=8).for_each(|n| _ = pending.note(&exit(n), Ok(()), false, START));
        let down = START.after(10 * TOGETHER);
        let effects: Vec<_> = (1..=4).map(|n| pending.note(&exit(n), REFUSED, true, down).0).collect();
        assert_eq!(effects, [SiteEffect::Fails, SiteEffect::Fails, SiteEffect::Suspended, SiteEffect::Suspended]);
        let decisions = pending.decide(down);
        assert_eq!((decisions.went_down, decisions.confirmed.len()), (Some(true), 0));
        assert_eq!(decisions.cleared, (1..=4).map(exit).collect::<Vec<_>>());
        pending.note(&exit(5), REFUSED, true, down.after(SECOND));
        let well = down.after(2 * TOGETHER);
        pending.note(&exit(6), Ok(()), true, well);
        assert_eq!(pending.decide(well), PageDecisions { went_down: Some(false), ..PageDecisions::default() });
        assert!(!pending.is_undecided());
    }

    #[test]
    fn a_fault_of_the_exit_leads_to_no_ban() {
        let fault = |error: DialError| SiteFailure::Fault(error.into());
        assert!(!fault(ExitFault::Policy.into()).is_refusal());
        assert!(fault(TargetFault::Reset.into()).is_refusal());
        let mut pending = PendingBans::default();
        pending.note(&exit(1), Err(fault(ExitFault::Policy.into())), true, START);
        pending.note(&exit(2), Ok(()), true, START.after(SECOND));
        assert_eq!(pending.decide(START.after(SECOND)), PageDecisions::default());
    }
}
