//! Verdicts that need the results of several exits. Pure.
//!
//! A single check can be wrong in ways that only the checks of other exits show. An echo server may be down, its
//! certificate may have expired, or a site may fail for every client. So the results of all exits are kept for each
//! target, and are compared before a failure counts against an exit. One verdict is final: that an exit shows
//! certificates of its own. For this verdict, another exit must also have received the true certificate within the last
//! hour.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::due_queue::Ended;
use super::exit_update::{self, BeforeRound, ECHO, Geo};
use super::fault::{Blame, Fault};
use super::outage::Outage;
use super::round::{EchoRound, SiteRound, TamperRound};
use super::settings::Settings;
use super::site::{PageDecisions, PendingBans};
use super::tamper_check::{Digest, TamperCheck};
use super::target_health::TargetHealth;
use super::verdict::{BadReason, Conclusion};
use crate::exit::{ExitId, Known, Moment};
use crate::net::Host;
use crate::route::Event;
use crate::state::ExitUpdate;

/// How many answers of an echo server are needed to conclude that the server repeats nonces. One dishonest exit cannot
/// cause this many answers in one check.
const ENOUGH_ANSWERS: u32 = 4;

/// The values of [`PageHealth::kind`], besides [`ECHO`].
const CANARY: &str = "canary";
pub(super) const SITE: &str = "site";

/// The health of one page that exits are used to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageHealth {
    /// The purpose of the page: `echo`, `canary` or `site`.
    pub kind: &'static str,
    /// The name of a site in `check.targets`. For other pages, the host of the page.
    pub name: Arc<str>,
    /// The time since when the page is down. `None` if the page works. While the page is down, a failure at the page
    /// counts against no exit.
    pub suspended: Option<Moment>,
    /// How many exits passed this page within the last hour and did not fail since.
    pub passing: usize,
    /// How many exits failed this page and may be banned for that.
    pub pending: usize,
}

#[derive(Default)]
struct EchoServer {
    health: TargetHealth,
    /// The time since when most good exits fail at this echo server. `None` if they do not.
    down_since: Option<Moment>,
    /// How many answers of this echo server repeated the nonce of our request.
    repeated: u32,
    answers: u32,
}

impl EchoServer {
    /// Returns true if the server repeats nonces, which is the case if most of its answers do.
    fn repeats(&self) -> bool {
        self.answers >= ENOUGH_ANSWERS && self.repeated * 2 > self.answers
    }
}

/// The results of all exits at all targets.
pub(super) struct Evaluator {
    settings: Arc<Settings>,
    geo: Geo,
    /// The results of the exits themselves: whether their echo probes passed.
    exits: TargetHealth,
    /// Whether so many exits fail together that the cause must be on our side.
    outage: Outage,
    echoes: Vec<EchoServer>,
    certificates: HashMap<Host, TargetHealth>,
    /// Exits that showed a wrong certificate of a host before any exit received the true certificate.
    suspects: Vec<(Host, ExitId)>,
    /// Exits that are never used again. A check that was still running must not make these exits good.
    condemned: HashSet<ExitId>,
    canaries: Vec<TamperCheck>,
    site_bans: Vec<PendingBans>,
    events: Vec<Event>,
}

/// What [`Evaluator::settle`] returns: the updates for which there is enough evidence now, and the exits that must be
/// checked again because more evidence is needed.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) updates: Vec<ExitUpdate>,
    pub(super) again: Vec<ExitId>,
}

impl Evaluator {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let echoes = settings.echoes.iter().map(|_| EchoServer::default()).collect();
        let canaries = settings.canaries.iter().map(|_| TamperCheck::default()).collect();
        let site_bans = settings.sites.iter().map(|_| PendingBans::default()).collect();
        let (exits, certificates, suspects) = (TargetHealth::default(), HashMap::new(), Vec::new());
        let (condemned, events, outage) = (HashSet::new(), Vec::new(), Outage::default());
        Self { settings, geo, exits, outage, echoes, certificates, suspects, condemned, canaries, site_bans, events }
    }

    /// Returns true if this echo server is not down.
    pub(super) fn serves(&self, echo: usize, now: Moment) -> bool {
        !self.echoes[echo].health.target_is_down(now)
    }

    /// Returns one value for each echo server: true if the server is known to repeat nonces.
    pub(super) fn repeats(&self) -> Vec<bool> {
        self.echoes.iter().map(EchoServer::repeats).collect()
    }

    /// Records the echo probes of one check. Corrects the conclusion of this check if the results of other exits
    /// contradict the conclusion.
    pub(super) fn note_echoes(
        &mut self,
        exit: &ExitId,
        round: &mut EchoRound,
        known: &Known,
        now: Moment,
    ) -> (ExitUpdate, Ended) {
        if known.marks.bad_for_good || self.condemned.contains(exit) {
            round.conclusion = Conclusion::Bad(BadReason::Caught);
            return (exit_update::none(exit), Ended::Bad);
        }
        self.note_probes(exit, round, now);
        if let Conclusion::Bad(BadReason::Fault(fault)) = round.conclusion
            && fault.blame() != Blame::Exit
            && self.targets_are_down(round, now)
        {
            round.conclusion = Conclusion::Open(fault);
        }
        self.pardon_in_an_outage(exit, round, now);
        let (ended, streak) = match round.conclusion {
            Conclusion::Good(_) => (Ended::Good, self.exits.passed(exit, now)),
            Conclusion::Bad(_) => (Ended::Bad, self.exits.failed(exit, false, now)),
            Conclusion::Open(_) => (Ended::Open, 0),
        };
        let intercepts = round.conclusion == Conclusion::Bad(BadReason::Intercepts);
        let condemned = intercepts && self.others_see_the_true_certificate(exit, round, now);
        if condemned {
            self.condemned.insert(exit.clone());
        } else if intercepts {
            let hosts = self.forged(round).cloned().collect::<Vec<_>>();
            self.suspects.retain(|(_, suspect)| suspect != exit);
            self.suspects.extend(hosts.into_iter().map(|host| (host, exit.clone())));
        }
        let before = BeforeRound { good: known.good, streak, condemned };
        (exit_update::of_echoes(exit, round, before, &self.geo, now), ended)
    }

    /// Makes the conclusion open if many exits fail together. Answers that were forged do not come from an outage.
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

    fn note_probes(&mut self, exit: &ExitId, round: &EchoRound, now: Moment) {
        let passed = |echo: usize| round.probes.iter().any(|p| p.result.echo == echo && p.result.outcome.is_ok());
        let works_elsewhere = round.probes.iter().any(|probe| probe.result.outcome.is_ok());
        for probe in &round.probes {
            let at = probe.result.echo;
            let echo = &mut self.echoes[at];
            if let Some(repeated) = probe.repeated {
                echo.answers += 1;
                echo.repeated += u32::from(repeated);
            }
            match probe.result.outcome {
                Ok(_) => _ = echo.health.passed(exit, now),
                Err(fault) if fault.blame() == Blame::Ours || passed(at) => {}
                Err(_) => _ = echo.health.failed(exit, works_elsewhere, now),
            }
            let page = &self.settings.echoes[at];
            if page.tls.is_some() {
                let certificate = self.certificates.entry(page.target.host.clone()).or_default();
                match probe.result.outcome {
                    Err(Fault::Forged) => _ = certificate.failed(exit, works_elsewhere, now),
                    _ if probe.timings.tls.is_some() => _ = certificate.passed(exit, now),
                    _ => {}
                }
            }
        }
    }

    /// Returns true if all echo servers at which the exit failed are down.
    fn targets_are_down(&self, round: &EchoRound, now: Moment) -> bool {
        let mut failed = round.probes.iter().filter(|probe| probe.result.outcome.is_err());
        failed.all(|probe| !self.serves(probe.result.echo, now))
    }

    /// Returns the hosts for which the exit showed a wrong certificate.
    fn forged(&self, round: &EchoRound) -> impl Iterator<Item = &Host> {
        let forged = round.probes.iter().filter(|probe| probe.result.outcome == Err(Fault::Forged));
        forged.map(|probe| &self.settings.echoes[probe.result.echo].target.host)
    }

    /// Returns true if other exits received the true certificate of one of these hosts within the last hour.
    fn others_see_the_true_certificate(&self, exit: &ExitId, round: &EchoRound, now: Moment) -> bool {
        self.forged(round).any(|host| {
            let health = self.certificates.get(host);
            health.is_some_and(|all| all.passed_by_another(exit, now) && !all.target_is_down(now))
        })
    }

    /// Records the answer of a site. Returns `None` if the answer says nothing about the exit.
    pub(super) fn note_site(
        &mut self,
        exit: &ExitId,
        (at, round): (usize, &SiteRound),
        known: &Known,
        now: Moment,
    ) -> Option<ExitUpdate> {
        let site = &self.settings.sites[at];
        let passed_before = known.passed.contains(&site.name);
        let pending = &mut self.site_bans[at];
        let (effect, streak) = pending.note(exit, round.result?, passed_before, now);
        let good = pending.passed(exit).or(known.good.filter(|_| passed_before));
        Some(exit_update::of_site(exit, site, round, exit_update::SiteOutcome { effect, streak, good }, now))
    }

    /// Returns the digest of the true page of the canary with this index. Returns `None` if the digest is not known
    /// yet.
    pub(super) fn truth(&self, canary: usize) -> Option<Digest> {
        self.canaries[canary].truth()
    }

    /// Records the page that an exit showed for a canary. Returns the exits that must be checked again.
    pub(super) fn note_canary(&mut self, exit: &ExitId, round: &TamperRound, now: Moment) -> Vec<ExitId> {
        self.canaries[round.canary].note(exit, round.digest, round.changed, now)
    }

    /// Returns the bans for which there is enough evidence now, and the failures that do not count because the page was
    /// down.
    pub(super) fn settle(&mut self, now: Moment) -> Decisions {
        let mut all = Decisions { again: self.suspects_to_check(now), ..Decisions::default() };
        for (pending, site) in self.site_bans.iter_mut().zip(&self.settings.sites) {
            let decided = decide(pending, &site.name, now, &mut self.events);
            let until = now.after(self.settings.ban_for);
            let ban = |(exit, failure): &(ExitId, _)| exit_update::ban(exit, site, *failure, until);
            all.updates.extend(decided.confirmed.iter().map(ban));
            all.updates.extend(decided.cleared.iter().map(|exit| exit_update::clear(exit, site)));
            all.again.extend(decided.again);
        }
        for canary in &mut self.canaries {
            let decided = decide(&mut canary.pending, &CANARY.into(), now, &mut self.events);
            let condemn = |(exit, failure): &(ExitId, _)| exit_update::condemn(exit, *failure, now);
            all.updates.extend(decided.confirmed.iter().map(condemn));
            self.condemned.extend(decided.confirmed.into_iter().map(|(exit, _)| exit));
            all.again.extend(decided.again);
        }
        self.note_echoes_that_are_down(now);
        all
    }

    /// Records which echo servers are down. Checks do not use these servers in the meantime.
    fn note_echoes_that_are_down(&mut self, now: Moment) {
        for (echo, page) in self.echoes.iter_mut().zip(&self.settings.echoes) {
            let is_down = echo.health.target_is_down(now);
            let check: Arc<str> = format!("{ECHO} {}", page.target.host).into();
            match (echo.down_since, is_down) {
                (None, true) => self.events.push(Event::Suspended { check, pardoned: 0 }),
                (Some(_), false) => self.events.push(Event::Resumed { check }),
                _ => {}
            }
            echo.down_since = is_down.then(|| echo.down_since.unwrap_or(now));
        }
    }

    /// Returns the events about pages since the last call: pages that went down or work again.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the health of every page.
    pub(super) fn page_health(&self, now: Moment) -> Vec<PageHealth> {
        let echoes = self.echoes.iter().zip(&self.settings.echoes).map(|(echo, page)| {
            let (suspended, passing) = (echo.down_since, echo.health.passing(now));
            PageHealth { kind: ECHO, name: page.target.host.to_string().into(), suspended, passing, pending: 0 }
        });
        let canaries = self.canaries.iter().zip(&self.settings.canaries).map(|(canary, page)| {
            let (suspended, passing, pending) = canary.pending.health(now);
            PageHealth { kind: CANARY, name: page.target.host.to_string().into(), suspended, passing, pending }
        });
        let sites = self.site_bans.iter().zip(&self.settings.sites).map(|(bans, site)| {
            let (suspended, passing, pending) = bans.health(now);
            PageHealth { kind: SITE, name: site.name.clone(), suspended, passing, pending }
        });
        echoes.chain(canaries).chain(sites).collect()
    }

    /// Returns the exits that showed a wrong certificate of a host, if another exit has received the true certificate
    /// of the same host since then. These exits must be checked again.
    fn suspects_to_check(&mut self, now: Moment) -> Vec<ExitId> {
        let certificates = &self.certificates;
        let clear = |(host, exit): &mut (Host, ExitId)| {
            certificates.get(host).is_some_and(|all| all.passed_by_another(exit, now) && !all.target_is_down(now))
        };
        self.suspects.extract_if(.., clear).map(|(_, exit)| exit).collect()
    }

    /// Returns true while [`Self::settle`] may return decisions even if no new result arrived.
    pub(super) fn is_unsettled(&self) -> bool {
        let any_down = self.echoes.iter().any(|echo| echo.down_since.is_some());
        any_down || !self.suspects.is_empty() || self.all_pending().any(PendingBans::is_undecided)
    }

    fn all_pending(&self) -> impl Iterator<Item = &PendingBans> {
        self.site_bans.iter().chain(self.canaries.iter().map(|canary| &canary.pending))
    }

    /// Deletes the results of all exits that are not in `exits`.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.exits.keep(exits);
        self.outage.keep(exits);
        self.echoes.iter_mut().for_each(|echo| echo.health.keep(exits));
        self.certificates.values_mut().for_each(|health| health.keep(exits));
        self.suspects.retain(|(_, exit)| exits.contains(exit));
        self.condemned.retain(|exit| exits.contains(exit));
        self.site_bans.iter_mut().for_each(|pending| pending.keep(exits));
        self.canaries.iter_mut().for_each(|canary| canary.pending.keep(exits));
    }
}

/// Decides on the pending bans of one page. Adds an event to `events` if the page went down or works again.
fn decide(pending: &mut PendingBans, name: &Arc<str>, now: Moment, events: &mut Vec<Event>) -> PageDecisions {
    if !pending.is_undecided() {
        return PageDecisions::default();
    }
    let decided = pending.decide(now);
    match decided.went_down {
        Some(true) => events.push(Event::Suspended { check: name.clone(), pardoned: decided.cleared.len() }),
        Some(false) => events.push(Event::Resumed { check: name.clone() }),
        None => {}
    }
    decided
}
