//! What the echo probes of one check show, together with the results of other exits.
//!
//! An echo server answers with the address that it sees. A good exit that fails at an echo server does not count as bad
//! immediately, because the server may be down. The bad verdict on this exit is held: it does not count until another
//! exit has got an answer from the server. If the server turns out to be down, the verdict is dropped.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::super::addresses::Named;
use super::super::condemnation::{Tampered, Weight};
use super::super::due_queue::Ended;
use super::super::exit_update::{self, BeforeRound};
use super::super::fault::{Blame, Fault};
use super::super::round::EchoRound;
use super::super::settings::Tested;
use super::super::verdict::{BadReason, Conclusion};
use super::{Decisions, Evaluator};
use crate::dial::{DialError, ExitFault};
use crate::exit::facts::OBSERVED_FOR;
use crate::exit::{ExitId, Known, Moment, Verdict};
use crate::net::Host;
use crate::state::ExitUpdate;

/// If an exit that was good fails, the bad verdict waits for the result of another exit at the same server. After this
/// time without such a result, the failure is forgotten. Not tuned: other exits are normally checked again within
/// seconds.
const HELD_FOR: Duration = Duration::from_secs(600);

/// How many exits that passed lately are checked again to find out whether an echo server works.
pub(super) const CONTROLS: usize = 2;

/// The least time between two requests to check other exits again because a bad verdict waits for their results. Not
/// tuned.
const CONTROL_PAUSE: Duration = Duration::from_secs(3);

/// A bad verdict that waits until the check of another exit shows that the echo servers work.
pub(super) struct Held {
    pub(super) exit: ExitId,
    round: EchoRound,
    since: Moment,
}

impl Evaluator {
    /// Records the echo probes of one check. Corrects the conclusion of this check if the results of other exits
    /// contradict the conclusion.
    pub(in crate::check) fn note_echoes(
        &mut self,
        exit: &ExitId,
        round: &mut EchoRound,
        known: &Known,
        announced: &[IpAddr],
        now: Moment,
    ) -> (ExitUpdate, Ended) {
        if known.marks.bad_for_good || self.condemned.contains(exit) {
            round.conclusion = Conclusion::Bad(BadReason::Caught);
            return (exit_update::none(exit), Ended::Bad);
        }
        let was_good = known.verdict == Verdict::Good;
        self.held.retain(|held| held.exit != *exit);
        self.note_probes(exit, round, was_good, now);
        if self.is_suspect(exit, now) && matches!(round.conclusion, Conclusion::Good(_)) {
            round.conclusion = Conclusion::Bad(BadReason::Caught);
        }
        self.confirm_addresses(exit, round, known, announced, now);
        if let Conclusion::Bad(BadReason::Fault(fault)) = round.conclusion
            && may_be_the_target(fault)
        {
            let down = self.targets_are_down(round, now);
            if was_good && !down {
                self.held.push(Held { exit: exit.clone(), round: round.clone(), since: now });
            }
            if was_good || down {
                round.conclusion = Conclusion::Open(fault);
                return (exit_update::of_echoes(exit, round, before(known, 0), &self.geo, now), Ended::TargetDown);
            }
        }
        self.pardon_in_an_outage(exit, round, now);
        let (ended, streak) = match round.conclusion {
            Conclusion::Good(_) => (Ended::Good, self.exits.passed(exit, now)),
            Conclusion::Bad(_) => (Ended::Bad, self.exits.failed(exit, false, now)),
            Conclusion::Open(_) => (Ended::Open, 0),
        };
        let intercepts = round.conclusion == Conclusion::Bad(BadReason::Intercepts);
        let condemned = intercepts && self.note_forged(exit, round, now);
        let before = BeforeRound { condemned, ..before(known, streak) };
        (exit_update::of_echoes(exit, round, before, &self.geo, now), ended)
    }

    /// Records the hosts of which an exit showed wrong certificates. Returns true if the exit is condemned.
    fn note_forged(&mut self, exit: &ExitId, round: &EchoRound, now: Moment) -> bool {
        self.suspects.retain(|(_, suspect)| suspect != exit);
        let hosts: HashSet<Host> = self.forged(round).cloned().collect();
        for host in hosts {
            let is_proven = self.others_see_the_truth(exit, &host, now);
            match is_proven.then(|| self.evidence.add(exit, &host, Tampered::Certificate, now)) {
                Some(Weight::Condemns) => {
                    self.suspects.retain(|(_, suspect)| suspect != exit);
                    self.condemned.insert(exit.clone());
                    return true;
                }
                Some(Weight::First) | None => self.suspects.push((host, exit.clone())),
                Some(Weight::Repeated) => {}
            }
        }
        false
    }

    /// Changes the conclusion to "open" (no conclusion about the exit) if many exits fail together. A forged answer
    /// still counts, because an outage does not forge answers.
    fn pardon_in_an_outage(&mut self, exit: &ExitId, round: &mut EchoRound, now: Moment) {
        match round.conclusion {
            Conclusion::Good(_) => self.outage.passed(exit, now),
            Conclusion::Bad(BadReason::Fault(fault)) if !matches!(fault, Fault::Forged | Fault::Canned) => {
                if !self.outage.counts(exit, now) {
                    round.conclusion = Conclusion::Open(fault);
                }
            }
            Conclusion::Bad(_) | Conclusion::Open(_) => {}
        }
    }

    /// Keeps only the confirmed addresses in the conclusion, and records which echo servers returned wrong addresses.
    fn confirm_addresses(
        &mut self,
        exit: &ExitId,
        round: &mut EchoRound,
        known: &Known,
        announced: &[IpAddr],
        now: Moment,
    ) {
        let Conclusion::Good(ips) = &mut round.conclusion else { return };
        let named = round.probes.iter().filter_map(|probe| {
            let (echo, ip) = (probe.result.echo, probe.result.outcome.ok()?.ip);
            Some(Named { echo, ip, record: self.echoes[echo].record(now) })
        });
        let lately = known.observed.iter().filter(|seen| now.since(seen.at) < OBSERVED_FOR).map(|seen| seen.ip);
        let known: Vec<_> = announced.iter().copied().chain(lately).collect();
        let decided = self.unconfirmed.decide(exit, &named.collect::<Vec<_>>(), &known);
        *ips = decided.ips;
        // A check of an exit of one's own asks one server, and nobody announces the addresses of these exits. So an
        // address that nothing confirms says nothing about the server.
        let single = self.settings.tested == Tested::Upstream;
        let judged = decided.confirmed.into_iter().filter(|(_, confirmed)| *confirmed || !single);
        judged.for_each(|(echo, confirmed)| self.echoes[echo].named(exit, confirmed, now));
    }

    fn note_probes(&mut self, exit: &ExitId, round: &EchoRound, was_good: bool, now: Moment) {
        let passed = |echo: usize| round.probes.iter().any(|p| p.result.echo == echo && p.result.outcome.is_ok());
        let works_elsewhere = round.probes.iter().any(|probe| probe.result.outcome.is_ok());
        for probe in &round.probes {
            let at = probe.result.echo;
            let echo = &mut self.echoes[at];
            if let Some(repeated) = probe.repeated {
                echo.answered(repeated);
            }
            match probe.result.outcome {
                Ok(_) => echo.passed(exit, now),
                Err(fault) if !may_be_the_target(fault) || passed(at) => {}
                Err(_) => echo.failed(exit, was_good || works_elsewhere, works_elsewhere, now),
            }
            let page = &self.settings.echoes[at];
            if page.tls.is_some() {
                let certificate = self.certificates.entry(page.target.host.clone()).or_default();
                match probe.result.outcome {
                    Err(Fault::Forged) => _ = certificate.failed(exit, works_elsewhere, now),
                    _ if probe.timings.tls.is_some() => {
                        certificate.passed(exit, now);
                        self.evidence.clear(exit, &page.target.host, Tampered::Certificate);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Returns true if all echo servers at which the exit failed are down.
    fn targets_are_down(&self, round: &EchoRound, now: Moment) -> bool {
        let mut failed = round.probes.iter().filter(|probe| probe.result.outcome.is_err());
        failed.all(|probe| self.echoes[probe.result.echo].is_down(now))
    }

    /// Returns the hosts for which the exit showed a wrong certificate.
    fn forged(&self, round: &EchoRound) -> impl Iterator<Item = &Host> {
        let forged = round.probes.iter().filter(|probe| probe.result.outcome == Err(Fault::Forged));
        forged.map(|probe| &self.settings.echoes[probe.result.echo].target.host)
    }

    /// Returns true if other exits received the true certificate of this host within the last hour.
    fn others_see_the_truth(&self, exit: &ExitId, host: &Host, now: Moment) -> bool {
        let health = self.certificates.get(host);
        health.is_some_and(|all| all.passed_by_another(exit, now) && !all.target_is_down(now))
    }

    /// Decides on the held verdicts. A verdict counts if another exit has passed one of the echo servers after the
    /// failure. A verdict is dropped if the echo servers are down.
    pub(super) fn decide_held(&mut self, all: &mut Decisions, now: Moment) {
        let mut held = std::mem::take(&mut self.held);
        let newest = held.iter().map(|held| held.since).max().unwrap_or_default();
        held.retain(|Held { exit, round, since }| {
            let failed = || round.probes.iter().filter(|probe| probe.result.outcome.is_err());
            let works = failed().any(|probe| self.echoes[probe.result.echo].passed_by_another_since(exit, *since));
            if self.targets_are_down(round, now) || now.since(*since) >= HELD_FOR {
                return false;
            }
            if works {
                let streak = self.exits.failed(exit, false, now);
                let good = self.exits.last_pass(exit);
                let before = BeforeRound { good, streak, condemned: false };
                all.updates.push(exit_update::of_held(exit, round, before, &self.geo, now));
            }
            !works
        });
        if !held.is_empty() && newest > self.controlled && now.since(self.controlled) >= CONTROL_PAUSE {
            self.controlled = now;
            let controls = self.echoes.iter().flat_map(|echo| echo.latest(CONTROLS, now));
            all.again.extend(controls.take(CONTROLS).filter(|exit| held.iter().all(|held| held.exit != *exit)));
        }
        self.held = held;
    }
}

/// Returns true if a failure may be the fault of the requested page and not of the exit. A silent exit is such a
/// failure, because the page may be what does not answer.
fn may_be_the_target(fault: Fault) -> bool {
    match fault.blame() {
        Blame::Target | Blame::Unclear => true,
        Blame::Exit => fault == Fault::Dial(DialError::Exit(ExitFault::Hung)),
        Blame::Ours => false,
    }
}

fn before(known: &Known, streak: i32) -> BeforeRound {
    BeforeRound { good: known.good, streak, condemned: false }
}
