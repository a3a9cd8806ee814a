//! Decides when an exit is condemned for tampering, and when the condemnation ends. Pure.
//!
//! An exit is condemned if it shows wrong pages or wrong certificates of two different hosts. One host is not enough,
//! because a block page of the exit's own network, or one broken server of a content network, looks like tampering too.
//! An exit that shows wrong pages or certificates of only one host is not used until it shows the true page of this
//! host again.
//!
//! If an exit showed a wrong page of a host, a true certificate of the same host does not clear the exit. The reason:
//! most exits that change pages cannot change encrypted pages.
//!
//! A condemnation ends after two weeks, because exits change hands, and because the directory authorities flag an exit
//! that goes on tampering as `BadExit` within days. After the condemnation, the exit is treated like an exit that
//! nobody has tested: a check comes before its first use, and condemns the exit again if it still tampers. A person may
//! end a condemnation earlier.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::exit::{ExitId, Known, Moment, Verdict};
use crate::net::Host;

/// How long a condemnation lasts.
pub const CONDEMNED_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

/// How many hosts must show that an exit tampers.
const HOSTS: usize = 2;

/// How long a sign of tampering at one host counts as evidence.
const EVIDENCE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What an exit tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tampered {
    Page,
    Certificate,
}

/// What a new sign of tampering means, together with the older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Two hosts show that the exit tampers: it is condemned.
    Condemns,
    /// This is the first host at which the exit tampered. One more check is made now, to test a second host.
    First,
    /// The exit already tampered at this host before, so one more check now would show nothing new.
    Repeated,
}

#[derive(Debug)]
struct Sign {
    host: Host,
    what: Tampered,
    at: Moment,
}

/// Exit → the signs that the exit tampered, each with its host.
#[derive(Debug, Default)]
pub(super) struct Evidence(HashMap<ExitId, Vec<Sign>>);

impl Evidence {
    /// Records that an exit tampered with the page or the certificate of a host.
    pub(super) fn add(&mut self, exit: &ExitId, host: &Host, what: Tampered, now: Moment) -> Weight {
        let signs = self.0.entry(exit.clone()).or_default();
        signs.retain(|sign| now.since(sign.at) < EVIDENCE_FOR);
        let is_known = signs.iter().any(|sign| sign.host == *host);
        signs.retain(|sign| (&sign.host, sign.what) != (host, what));
        signs.push(Sign { host: host.clone(), what, at: now });
        let hosts: HashSet<&Host> = signs.iter().map(|sign| &sign.host).collect();
        match hosts.len() {
            HOSTS.. => Weight::Condemns,
            _ if is_known => Weight::Repeated,
            _ => Weight::First,
        }
    }

    /// Records that an exit showed the true page or the true certificate of a host. Returns true if a wrong page or a
    /// wrong certificate of this host was recorded before.
    pub(super) fn clear(&mut self, exit: &ExitId, host: &Host, what: Tampered) -> bool {
        let Some(signs) = self.0.get_mut(exit) else { return false };
        signs.extract_if(.., |sign| (&sign.host, sign.what) == (host, what)).count() > 0
    }

    /// Returns true if there is evidence that the exit tampers.
    pub(super) fn is_against(&self, exit: &ExitId, now: Moment) -> bool {
        self.0.get(exit).is_some_and(|signs| signs.iter().any(|sign| now.since(sign.at) < EVIDENCE_FOR))
    }

    /// Returns the hosts for which the exit showed wrong certificates.
    pub(super) fn forged_hosts(&self, exit: &ExitId) -> impl Iterator<Item = &Host> {
        let signs = self.0.get(exit).into_iter().flatten();
        signs.filter(|sign| sign.what == Tampered::Certificate).map(|sign| &sign.host)
    }

    /// Deletes the evidence against exits for which `is_kept` returns false.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&ExitId) -> bool) {
        self.0.retain(|exit, signs| !signs.is_empty() && is_kept(exit));
    }
}

/// Returns true if the condemnation of an exit has ended. A condemned exit is not checked, so the time of its last
/// check is the time of its condemnation.
pub fn has_ended(known: &Known, now: Moment) -> bool {
    known.marks.bad_for_good && now.since(known.checked.unwrap_or_default()) >= CONDEMNED_FOR
}

/// Ends the condemnation of an exit. Nobody uses the exit before it passes a check.
pub fn pardon(known: &mut Known) {
    known.marks.bad_for_good = false;
    (known.verdict, known.why, known.good) = (Verdict::Untested, None, None);
}

#[cfg(test)]
mod tests {
    use super::Tampered::{Certificate, Page};
    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const EXIT: ExitId = ExitId::Tor(Fingerprint([1; 20]));

    fn host(name: &str) -> Host {
        Host::Name(name.into())
    }

    #[test]
    fn two_hosts_condemn_and_one_does_not() {
        let mut evidence = Evidence::default();
        let (a, b, late) = (host("a.test"), host("b.test"), START.after(EVIDENCE_FOR));
        assert!(!evidence.is_against(&EXIT, START));
        assert_eq!(evidence.add(&EXIT, &a, Page, START), Weight::First);
        assert_eq!(evidence.add(&EXIT, &a, Page, START), Weight::Repeated);
        assert_eq!(evidence.add(&EXIT, &a, Certificate, START), Weight::Repeated, "it is the same host");
        assert!(evidence.is_against(&EXIT, START));
        assert!(!evidence.is_against(&EXIT, late));
        assert_eq!(evidence.add(&EXIT, &b, Page, late), Weight::First, "the other host's evidence is too old");
        assert_eq!(evidence.add(&EXIT, &a, Certificate, late), Weight::Condemns);
        evidence.keep(|_| true);
        assert!(evidence.is_against(&EXIT, late));
        evidence.keep(|_| false);
        assert!(!evidence.is_against(&EXIT, late));
    }

    #[test]
    fn only_the_true_page_clears_an_exit_of_a_wrong_page() {
        let mut evidence = Evidence::default();
        let (a, b) = (host("a.test"), host("b.test"));
        assert!(!evidence.clear(&EXIT, &a, Page), "there is no evidence yet");
        evidence.add(&EXIT, &a, Page, START);
        assert!(evidence.forged_hosts(&EXIT).next().is_none(), "only a page was wrong");
        assert!(!evidence.clear(&EXIT, &a, Certificate) && !evidence.clear(&EXIT, &b, Page));
        assert!(evidence.is_against(&EXIT, START));
        evidence.add(&EXIT, &a, Certificate, START);
        assert!(evidence.forged_hosts(&EXIT).eq([&a]));
        assert!(evidence.clear(&EXIT, &a, Page) && !evidence.clear(&EXIT, &a, Page));
        assert!(evidence.is_against(&EXIT, START), "the certificate was wrong too");
        assert!(evidence.clear(&EXIT, &a, Certificate) && !evidence.is_against(&EXIT, START));
        assert_eq!(evidence.add(&EXIT, &b, Page, START), Weight::First, "what was cleared does not count");
    }

    #[test]
    fn a_condemnation_ends_and_a_check_comes_first() {
        const DAY: u64 = 24 * 60 * 60;
        assert_eq!((CONDEMNED_FOR.as_secs(), EVIDENCE_FOR.as_secs()), (14 * DAY, 7 * DAY));
        let mut known = Known { verdict: Verdict::Bad, checked: Some(START), ..Known::default() };
        assert!(!has_ended(&known, START.after(CONDEMNED_FOR)), "it is bad, and not condemned");
        known.marks.bad_for_good = true;
        assert!(!has_ended(&known, Moment(START.after(CONDEMNED_FOR).0 - 1)));
        assert!(has_ended(&known, START.after(CONDEMNED_FOR)));
        pardon(&mut known);
        assert_eq!((known.verdict, known.marks.bad_for_good), (Verdict::Untested, false));
    }
}
