//! What a page must answer, and from which failures a sentence may follow. Pure.
//!
//! An exit that misses a page is off the list of those that pass it at once: that costs nobody anything and can be
//! taken back. A sentence (a ban from a site, or for good for changing a page) is not so light, and waits until it is
//! clear that the page itself is well: until another exit has passed it since, and either a minute is over or at least
//! half of those that passed lately have done so again. A few of them are asked to, so that nobody waits for the next
//! round. If the page turns out to be to blame meanwhile, everybody who waits for a sentence is pardoned.

use std::time::Duration;

use super::fault::{Fault, Whose};
use super::probe::Answer;
use super::target_health::{RECENT, TOGETHER, TargetHealth};
use crate::config::CheckTarget;
use crate::exit::{ExitId, Moment};

/// How an answer is not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Miss {
    /// Another status.
    #[error("it answers {0}")]
    Status(u16),
    /// The text is not in the body.
    #[error("its page lacks the expected text")]
    Body,
    /// The body does not match.
    #[error("its page does not match the expected pattern")]
    Pattern,
    /// The right answer, later than it may come.
    #[error("it takes {0} ms, which is longer than it may")]
    Late(u32),
    /// A page that is the same for everybody came as another.
    #[error("it changes pages on their way")]
    Changed,
    /// No answer.
    #[error("{0}")]
    Fault(Fault),
}

impl Miss {
    /// The word for it in the store and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Body | Self::Pattern => "body",
            Self::Late(_) => "late",
            Self::Changed => "changed",
            Self::Fault(fault) => fault.as_str(),
        }
    }

    /// True if this is the site's doing, or may be: the exit did its part.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Fault(fault) => matches!(fault.whose(), Whose::Target | Whose::Unclear),
            Self::Late(_) => false,
            _ => true,
        }
    }
}

/// Whether an answer that took so long is what the target expects.
pub fn meets(target: &CheckTarget, answer: &Answer, took: Duration) -> Result<(), Miss> {
    if !target.expect_status.contains(&answer.status) {
        return Err(Miss::Status(answer.status));
    }
    if let Some(text) = target.expect_body.as_deref().filter(|text| !text.is_empty()) {
        let found = answer.body.windows(text.len()).any(|piece| piece == text.as_bytes());
        found.then_some(()).ok_or(Miss::Body)?;
    }
    match &target.expect_regex {
        Some(regex) if !regex.is_match(&answer.body) => return Err(Miss::Pattern),
        _ => {}
    }
    match target.expect_latency {
        Some(most) if took > most => Err(Miss::Late(u32::try_from(took.as_millis()).unwrap_or(u32::MAX))),
        _ => Ok(()),
    }
}

/// What follows at once from one exit's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It passes.
    Passes,
    /// It does not; a ban may follow.
    Misses,
    /// The site is to blame: nothing follows.
    Suspended,
}

/// What became clear meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// To be sentenced, and why.
    pub confirmed: Vec<(ExitId, Miss)>,
    /// Failed for the site's own fault, and passed before that.
    pub cleared: Vec<ExitId>,
    /// The site turned out to be to blame (true), or is no more (false).
    pub turned: Option<bool>,
    /// Passed lately, and are asked to try again.
    pub again: Vec<ExitId>,
}

/// How many are asked to try again. As many as are evidence against the site, should they all fail.
const ASKED_AGAIN: usize = 3;

/// How soon others are asked again because somebody else fails. Arbitrary: a site that refuses one exit after another
/// costs a check a second or so.
const ASK_PAUSE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
struct Held {
    exit: ExitId,
    miss: Miss,
    since: Moment,
    /// It passed before.
    had: bool,
}

/// One page's results, and those that wait for a sentence.
#[derive(Clone, Debug, Default)]
pub struct PendingBans {
    health: TargetHealth,
    held: Vec<Held>,
    /// When some were last asked to try again.
    asked: Moment,
    /// Since when the page itself is to blame.
    blamed: Option<Moment>,
}

impl PendingBans {
    /// Notes an exit's result; `had` if it passed before. The number is its streak.
    pub fn note(&mut self, exit: &ExitId, result: Result<(), Miss>, had: bool, now: Moment) -> (Effect, i32) {
        let Err(miss) = result else {
            self.held.retain(|held| held.exit != *exit);
            return (Effect::Passes, self.health.passed(exit, now));
        };
        let streak = self.health.failed(exit, false, now);
        if self.health.target_is_down(now) {
            // Held all the same, so that settling says that the site turned, and pardons it.
            if self.blamed.is_none() {
                self.hold(exit, miss, had, now);
            }
            return (Effect::Suspended, streak);
        }
        if miss.is_refusal() {
            self.hold(exit, miss, had, now);
        }
        (Effect::Misses, streak)
    }

    fn hold(&mut self, exit: &ExitId, miss: Miss, had: bool, now: Moment) {
        if !self.held.iter().any(|held| held.exit == *exit) {
            self.held.push(Held { exit: exit.clone(), miss, since: now, had });
        }
    }

    /// Decides whom there is enough to decide on.
    pub fn settle(&mut self, now: Moment) -> Settled {
        let blamed = self.health.target_is_down(now);
        let turned = (blamed != self.blamed.is_some()).then_some(blamed);
        self.blamed = blamed.then(|| self.blamed.unwrap_or(now));
        if blamed {
            let cleared = self.held.drain(..).filter(|held| held.had).map(|held| held.exit).collect();
            return Settled { cleared, turned, ..Settled::default() };
        }
        let passes = if self.held.is_empty() { Vec::new() } else { self.health.passes(now) };
        let mut confirmed = Vec::new();
        self.held.retain(|held| {
            let since = passes.len() - passes.partition_point(|at| *at <= held.since);
            let clear = since > 0 && (since * 2 >= passes.len() || now.since(held.since) >= TOGETHER);
            if clear {
                confirmed.push((held.exit.clone(), held.miss));
            }
            !clear && now.since(held.since) < RECENT
        });
        Settled { confirmed, turned, again: self.ask_again(now), ..Settled::default() }
    }

    fn ask_again(&mut self, now: Moment) -> Vec<ExitId> {
        let nobody_new = self.held.iter().all(|held| held.since < self.asked);
        if nobody_new || now.since(self.asked) < ASK_PAUSE {
            return Vec::new();
        }
        let again = self.health.latest(ASKED_AGAIN, now);
        if !again.is_empty() {
            self.asked = now;
        }
        again
    }

    /// When an exit last passed.
    pub fn passed(&self, exit: &ExitId) -> Option<Moment> {
        self.health.last_pass(exit)
    }

    /// How many passed lately and did not fail since.
    pub fn passing(&self, now: Moment) -> usize {
        self.health.passing(now)
    }

    /// True if an exit failed when it was last here.
    pub fn failed_last(&self, exit: &ExitId) -> bool {
        self.health.failed_last(exit)
    }

    /// True while somebody waits for a sentence, or the page for its rehabilitation.
    pub fn is_unsettled(&self) -> bool {
        self.blamed.is_some() || !self.held.is_empty()
    }

    /// Since when the page is to blame, if it is; how many pass it, and how many wait for a sentence.
    pub fn standing(&self, now: Moment) -> (Option<Moment>, usize, usize) {
        (self.blamed, self.passing(now), self.held.len())
    }

    /// Forgets exits that are there no more.
    pub fn keep(&mut self, exits: &std::collections::HashSet<ExitId>) {
        self.health.keep(exits);
        self.held.retain(|held| exits.contains(&held.exit));
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
    const REFUSED: Result<(), Miss> = Err(Miss::Status(403));

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
    fn an_answer_meets_status_then_text_then_pattern() {
        let body = |text: &str| CheckTarget { expect_body: Some(text.into()), ..target() };
        let regex = |text: &str| CheckTarget { expect_regex: Some(Regex::new(text).unwrap()), ..target() };
        for (target, status, want) in [
            (target(), 200, Ok(())),
            (target(), 204, Ok(())),
            (target(), 403, Err(Miss::Status(403))),
            (body("welcome"), 200, Ok(())),
            (body(""), 200, Ok(())),
            (body("Welcome"), 200, Err(Miss::Body)),
            (body("welcome"), 500, Err(Miss::Status(500))),
            (regex("(?i)WEL.{3}e"), 200, Ok(())),
            (regex("^shop"), 200, Err(Miss::Pattern)),
        ] {
            let answer = Answer {
                status,
                headers: HeaderMap::new(),
                body: Bytes::from_static(b"welcome to the shop"),
                whole: true,
            };
            assert_eq!(meets(&target, &answer, SECOND), want, "{target:?} {status}");
            let (patient, hasty) = (Some(SECOND), Some(SECOND / 2));
            let late = |expect_latency| meets(&CheckTarget { expect_latency, ..target.clone() }, &answer, SECOND);
            assert_eq!((late(patient), late(hasty)), (want, want.and(Err(Miss::Late(1000)))), "{status}");
        }
        assert!(!Miss::Late(1).is_refusal(), "slowness is the exit's own");
    }

    #[test]
    fn one_refusal_among_passes_becomes_a_ban() {
        let mut pending = PendingBans::default();
        assert_eq!(pending.note(&exit(1), REFUSED, false, START), (Effect::Misses, -1));
        assert_eq!(pending.settle(START.after(RECENT / 2)), Settled::default(), "nobody says that the site is up");
        pending.note(&exit(2), Ok(()), false, START.after(SECOND));
        assert_eq!(pending.settle(START.after(SECOND)).confirmed, [(exit(1), Miss::Status(403))]);
        assert!(!pending.is_unsettled());
    }

    #[test]
    fn with_many_good_ones_a_ban_waits_a_minute() {
        let mut pending = PendingBans::default();
        (10..30).for_each(|n| _ = pending.note(&exit(n), Ok(()), false, START));
        let later = START.after(SECOND);
        pending.note(&exit(1), REFUSED, false, later);
        pending.note(&exit(10), Ok(()), true, later.after(SECOND));
        let settled = pending.settle(later.after(SECOND));
        assert_eq!((settled.confirmed.len(), settled.again.len()), (0, ASKED_AGAIN));
        assert_eq!(settled.again[0], exit(10), "the latest first");
        assert!(pending.settle(later.after(2 * SECOND)).again.is_empty(), "once is enough for one who fails");
        assert_eq!(pending.settle(later.after(TOGETHER)).confirmed.len(), 1);
    }

    #[test]
    fn a_site_that_fails_everybody_bans_nobody() {
        let mut pending = PendingBans::default();
        (1..=8).for_each(|n| _ = pending.note(&exit(n), Ok(()), false, START));
        let down = START.after(10 * TOGETHER);
        let effects: Vec<_> = (1..=4).map(|n| pending.note(&exit(n), REFUSED, true, down).0).collect();
        assert_eq!(effects, [Effect::Misses, Effect::Misses, Effect::Suspended, Effect::Suspended]);
        let settled = pending.settle(down);
        assert_eq!((settled.turned, settled.confirmed.len()), (Some(true), 0));
        assert_eq!(settled.cleared, (1..=4).map(exit).collect::<Vec<_>>());
        pending.note(&exit(5), REFUSED, true, down.after(SECOND));
        let well = down.after(2 * TOGETHER);
        pending.note(&exit(6), Ok(()), true, well);
        assert_eq!(pending.settle(well), Settled { turned: Some(false), ..Settled::default() });
        assert!(!pending.is_unsettled());
    }

    #[test]
    fn a_fault_of_the_exit_is_no_refusal() {
        let fault = |error: DialError| Miss::Fault(error.into());
        assert!(!fault(ExitFault::Policy.into()).is_refusal());
        assert!(fault(TargetFault::Reset.into()).is_refusal());
        let mut pending = PendingBans::default();
        pending.note(&exit(1), Err(fault(ExitFault::Policy.into())), true, START);
        pending.note(&exit(2), Ok(()), true, START.after(SECOND));
        assert_eq!(pending.settle(START.after(SECOND)), Settled::default());
    }
}
