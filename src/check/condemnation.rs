//! When an exit is condemned for tampering, and when that ends. Pure.
//!
//! One host is not enough to condemn an exit: a block page of the exit's own network, or one broken edge of a content
//! network, looks like tampering too. So an exit is condemned if it shows wrong pages or certificates of two different
//! hosts. With the evidence of one host, it is only not used until it shows that host's true page again.
//!
//! A condemnation ends after two weeks: exits change hands, and the directory authorities flag one that goes on
//! tampering as `BadExit` within days. The exit is then as one that nobody has tested, so a check comes before its first
//! use, and condemns it again if it still tampers. A person may end a condemnation earlier.

use std::collections::HashMap;
use std::time::Duration;

use crate::exit::{Exit, ExitId, Known, Moment, Verdict};
use crate::net::Host;
use crate::store::{self, TargetVerdict, Write};

use super::exit_update::ECHO;
use super::public;

/// How long a condemnation lasts.
pub const CONDEMNED_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

/// How many hosts must show that an exit tampers.
const HOSTS: usize = 2;

/// How long the evidence of one host counts.
const EVIDENCE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The hosts at which exits tampered.
#[derive(Debug, Default)]
pub(super) struct Evidence(HashMap<ExitId, Vec<(Host, Moment)>>);

impl Evidence {
    /// Records that an exit tampered with the pages or certificates of a host. Returns true if there is enough evidence
    /// to condemn the exit.
    pub(super) fn add(&mut self, exit: &ExitId, host: &Host, now: Moment) -> bool {
        let hosts = self.0.entry(exit.clone()).or_default();
        hosts.retain(|(other, at)| other != host && now.since(*at) < EVIDENCE_FOR);
        hosts.push((host.clone(), now));
        hosts.len() >= HOSTS
    }

    /// Records that an exit showed the true page of a host.
    pub(super) fn clear(&mut self, exit: &ExitId, host: &Host) {
        if let Some(hosts) = self.0.get_mut(exit) {
            hosts.retain(|(other, _)| other != host);
        }
    }

    /// Returns true if there is evidence against an exit.
    pub(super) fn is_against(&self, exit: &ExitId, now: Moment) -> bool {
        self.0.get(exit).is_some_and(|hosts| hosts.iter().any(|(_, at)| now.since(*at) < EVIDENCE_FOR))
    }

    /// Deletes the evidence against exits that `is_kept` rejects.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&ExitId) -> bool) {
        self.0.retain(|exit, hosts| !hosts.is_empty() && is_kept(exit));
    }
}

/// Returns true if the condemnation of an exit has ended. While an exit is condemned, its last check is the one that
/// condemned it.
pub fn has_ended(known: &Known, now: Moment) -> bool {
    known.marks.bad_for_good && now.since(known.checked.unwrap_or_default()) >= CONDEMNED_FOR
}

/// Ends the condemnation of an exit. Nobody uses the exit before it passes a check.
pub fn pardon(known: &mut Known) {
    known.marks.bad_for_good = false;
    (known.verdict, known.why, known.good) = (Verdict::Untested, None, None);
}

/// Returns the rows that end the condemnation of an exit in the store.
pub fn pardon_rows(exit: &Exit, now: Moment) -> Vec<Write> {
    if let ExitId::Public(_) = exit.id() {
        let mut known = exit.known().clone();
        pardon(&mut known);
        return public::row(exit, &known, now).into_iter().map(Write::PutPublic).collect();
    }
    // A verdict of the year 1970 is too old to count, so after a restart the exit is as one that nobody has tested.
    let checked = Moment(0);
    let (exit, target, why) = (exit.id().clone(), ECHO.to_owned(), String::new());
    let verdict = TargetVerdict::Bad;
    let row = store::Verdict { exit, target, verdict, streak: 0, checked, good: None, latency: None, why };
    vec![Write::PutVerdict(row)]
}

#[cfg(test)]
mod tests {
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
        assert!(!evidence.is_against(&EXIT, START));
        assert!(!evidence.add(&EXIT, &host("a.test"), START));
        assert!(!evidence.add(&EXIT, &host("a.test"), START), "the same host again");
        assert!(evidence.is_against(&EXIT, START));
        assert!(!evidence.is_against(&EXIT, START.after(EVIDENCE_FOR)));
        let late = START.after(EVIDENCE_FOR);
        assert!(!evidence.add(&EXIT, &host("b.test"), late), "the first is too old");
        assert!(evidence.add(&EXIT, &host("a.test"), late));
        evidence.clear(&EXIT, &host("a.test"));
        assert!(evidence.is_against(&EXIT, late) && !evidence.add(&EXIT, &host("b.test"), late));
        evidence.clear(&EXIT, &host("b.test"));
        assert!(!evidence.is_against(&EXIT, late));
        evidence.add(&EXIT, &host("b.test"), late);
        evidence.keep(|_| false);
        assert!(!evidence.is_against(&EXIT, late));
    }

    #[test]
    fn a_condemnation_ends_and_a_check_comes_first() {
        let mut known = Known { verdict: Verdict::Bad, checked: Some(START), ..Known::default() };
        assert!(!has_ended(&known, START.after(CONDEMNED_FOR)), "it is bad, and not condemned");
        known.marks.bad_for_good = true;
        assert!(!has_ended(&known, Moment(START.after(CONDEMNED_FOR).0 - 1)));
        assert!(has_ended(&known, START.after(CONDEMNED_FOR)));
        pardon(&mut known);
        assert_eq!((known.verdict, known.marks.bad_for_good), (Verdict::Untested, false));
    }
}
