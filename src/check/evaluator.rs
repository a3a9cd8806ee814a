//! Where results meet what other exits' results say of the same places, and become verdicts. Pure.
//!
//! A round alone can be wrong in ways that only its neighbours show: the echo server may be down, its certificate may
//! have run out, a site may fail everybody. So each place has its witnesses, and they are asked before anything is held
//! against an exit; the one verdict that is never taken back, that of an exit that shows certificates of its own, also
//! takes another exit that was lately shown the true one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::due_queue::Ended;
use super::exit_update::{self, BeforeRound, ECHO, Geo};
use super::fault::{Fault, Whose};
use super::round::{EchoRound, SiteRound, TamperRound};
use super::settings::Settings;
use super::site::{PendingBans, Settled};
use super::tamper_check::{Digest, TamperCheck};
use super::target_health::TargetHealth;
use super::verdict::{Conclusion, Why};
use crate::exit::{ExitId, Known, Moment};
use crate::net::Host;
use crate::route::Event;
use crate::state::ExitUpdate;

/// Answers of an echo server before anything is concluded from whether it repeats a nonce. Arbitrary: more than one
/// lying exit can give in one round.
const ENOUGH_ANSWERS: u32 = 4;

/// What pages are for, beside [`ECHO`].
const CANARY: &str = "canary";
pub(super) const SITE: &str = "site";

/// How one page of the tester fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageHealth {
    /// What it is for: `echo`, `canary` or `site`.
    pub kind: &'static str,
    /// A site's name in `check.targets`, the host of another page.
    pub name: Arc<str>,
    /// Since when it is to blame for what fails there, if it is.
    pub suspended: Option<Moment>,
    /// Exits that passed it lately and did not fail since.
    pub passing: usize,
    /// Exits that failed it and wait for what others say.
    pub held: usize,
}

#[derive(Default)]
struct Echo {
    health: TargetHealth,
    /// Since when it fails most good exits.
    blamed: Option<Moment>,
    /// Answers that repeated our nonce, and all.
    repeated: u32,
    answers: u32,
}

impl Echo {
    /// It repeats nonces: most of its answers do.
    fn repeats(&self) -> bool {
        self.answers >= ENOUGH_ANSWERS && self.repeated * 2 > self.answers
    }
}

/// All places and their witnesses.
pub(super) struct Evaluator {
    settings: Arc<Settings>,
    geo: Geo,
    /// Exits as such.
    exits: TargetHealth,
    echoes: Vec<Echo>,
    certificates: HashMap<Host, TargetHealth>,
    /// Exits that showed a wrong certificate of a host before anybody was seen with the right one.
    suspects: Vec<(Host, ExitId)>,
    /// Bad for good: a check that was under way must not make them good again.
    condemned: HashSet<ExitId>,
    canaries: Vec<TamperCheck>,
    site_bans: Vec<PendingBans>,
    events: Vec<Event>,
}

/// What became clear, and who is to be tested again so that more does.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) updates: Vec<ExitUpdate>,
    pub(super) again: Vec<ExitId>,
}

impl Evaluator {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let echoes = settings.echoes.iter().map(|_| Echo::default()).collect();
        let canaries = settings.canaries.iter().map(|_| TamperCheck::default()).collect();
        let site_bans = settings.sites.iter().map(|_| PendingBans::default()).collect();
        let (exits, certificates, suspects) = (TargetHealth::default(), HashMap::new(), Vec::new());
        let (condemned, events) = (HashSet::new(), Vec::new());
        Self { settings, geo, exits, echoes, certificates, suspects, condemned, canaries, site_bans, events }
    }

    /// True of an echo server that is not to blame for what fails there.
    pub(super) fn serves(&self, echo: usize, now: Moment) -> bool {
        !self.echoes[echo].health.target_is_down(now)
    }

    /// Which echo servers are known to repeat a nonce.
    pub(super) fn repeats(&self) -> Vec<bool> {
        self.echoes.iter().map(Echo::repeats).collect()
    }

    /// Judges an echo round; what the round says by itself is corrected by what the witnesses say.
    pub(super) fn note_echoes(
        &mut self,
        exit: &ExitId,
        round: &mut EchoRound,
        known: &Known,
        now: Moment,
    ) -> (ExitUpdate, Ended) {
        if known.marks.bad_for_good || self.condemned.contains(exit) {
            round.conclusion = Conclusion::Bad(Why::Caught);
            return (exit_update::none(exit), Ended::Bad);
        }
        self.take_evidence(exit, round, now);
        if let Conclusion::Bad(Why::Fault(fault)) = round.conclusion
            && fault.whose() != Whose::Exit
            && self.targets_are_down(round, now)
        {
            round.conclusion = Conclusion::Open(fault);
        }
        let (ended, streak) = match round.conclusion {
            Conclusion::Good(_) => (Ended::Good, self.exits.passed(exit, now)),
            Conclusion::Bad(_) => (Ended::Bad, self.exits.failed(exit, false, now)),
            Conclusion::Open(_) => (Ended::Open, 0),
        };
        let condemned =
            round.conclusion == Conclusion::Bad(Why::Intercepts) && self.is_shown_the_truth_elsewhere(exit, round, now);
        if condemned {
            self.condemned.insert(exit.clone());
        } else if round.conclusion == Conclusion::Bad(Why::Intercepts) {
            let hosts = self.forged(round).cloned().collect::<Vec<_>>();
            self.suspects.retain(|(_, suspect)| suspect != exit);
            self.suspects.extend(hosts.into_iter().map(|host| (host, exit.clone())));
        }
        let past = BeforeRound { good: known.good, streak, condemned };
        (exit_update::of_echoes(exit, round, past, &self.geo, now), ended)
    }

    fn take_evidence(&mut self, exit: &ExitId, round: &EchoRound, now: Moment) {
        let passed = |echo: usize| round.probes.iter().any(|p| p.result.echo == echo && p.result.outcome.is_ok());
        let sound = round.probes.iter().any(|probe| probe.result.outcome.is_ok());
        for probe in &round.probes {
            let at = probe.result.echo;
            let echo = &mut self.echoes[at];
            if let Some(repeated) = probe.repeated {
                echo.answers += 1;
                echo.repeated += u32::from(repeated);
            }
            match probe.result.outcome {
                Ok(_) => _ = echo.health.passed(exit, now),
                Err(fault) if fault.whose() == Whose::Ours || passed(at) => {}
                Err(_) => _ = echo.health.failed(exit, sound, now),
            }
            let page = &self.settings.echoes[at];
            if page.tls.is_some() {
                let certificate = self.certificates.entry(page.target.host.clone()).or_default();
                match probe.result.outcome {
                    Err(Fault::Forged) => _ = certificate.failed(exit, sound, now),
                    _ if probe.timings.tls.is_some() => _ = certificate.passed(exit, now),
                    _ => {}
                }
            }
        }
    }

    /// Every echo server that failed the exit fails most others too.
    fn targets_are_down(&self, round: &EchoRound, now: Moment) -> bool {
        let mut failed = round.probes.iter().filter(|probe| probe.result.outcome.is_err());
        failed.all(|probe| !self.serves(probe.result.echo, now))
    }

    /// The hosts whose certificates were wrong.
    fn forged(&self, round: &EchoRound) -> impl Iterator<Item = &Host> {
        let forged = round.probes.iter().filter(|probe| probe.result.outcome == Err(Fault::Forged));
        forged.map(|probe| &self.settings.echoes[probe.result.echo].target.host)
    }

    /// The hosts whose certificates were wrong showed others the right ones.
    fn is_shown_the_truth_elsewhere(&self, exit: &ExitId, round: &EchoRound, now: Moment) -> bool {
        self.forged(round).any(|host| {
            let health = self.certificates.get(host);
            health.is_some_and(|all| all.vouched_by_another(exit, now) && !all.target_is_down(now))
        })
    }

    /// Judges a site's answer; `None` if nothing can be said of it.
    pub(super) fn note_site(
        &mut self,
        exit: &ExitId,
        (at, round): (usize, &SiteRound),
        known: &Known,
        now: Moment,
    ) -> Option<ExitUpdate> {
        let site = &self.settings.sites[at];
        let had = known.passed.contains(&site.name);
        let pending = &mut self.site_bans[at];
        let (effect, streak) = pending.note(exit, round.result?, had, now);
        let good = pending.passed(exit).or(known.good.filter(|_| had));
        Some(exit_update::of_site(exit, site, round, exit_update::SiteOutcome { effect, streak, good }, now))
    }

    /// What a canary is, if that is known.
    pub(super) fn truth(&self, canary: usize) -> Option<Digest> {
        self.canaries[canary].truth()
    }

    /// Notes what a canary was seen as; yields exits to be tested again.
    pub(super) fn note_canary(&mut self, exit: &ExitId, round: &TamperRound, now: Moment) -> Vec<ExitId> {
        self.canaries[round.canary].note(exit, round.digest, round.changed, now)
    }

    /// Sentences and pardons that have become clear.
    pub(super) fn settle(&mut self, now: Moment) -> Decisions {
        let mut outcome = Decisions { again: self.suspects_to_try(now), ..Decisions::default() };
        for (pending, site) in self.site_bans.iter_mut().zip(&self.settings.sites) {
            let settled = settle(pending, &site.name, now, &mut self.events);
            let until = now.after(self.settings.ban_for);
            outcome
                .updates
                .extend(settled.confirmed.iter().map(|(exit, miss)| exit_update::ban(exit, site, *miss, until)));
            outcome.updates.extend(settled.cleared.iter().map(|exit| exit_update::pardon(exit, site)));
            outcome.again.extend(settled.again);
        }
        for canary in &mut self.canaries {
            let settled = settle(&mut canary.pending, &CANARY.into(), now, &mut self.events);
            outcome.updates.extend(settled.confirmed.iter().map(|(exit, miss)| exit_update::condemn(exit, *miss, now)));
            self.condemned.extend(settled.confirmed.into_iter().map(|(exit, _)| exit));
            outcome.again.extend(settled.again);
        }
        self.settle_echoes(now);
        outcome
    }

    /// Notes which echo servers fail most good exits: they are passed over meanwhile.
    fn settle_echoes(&mut self, now: Moment) {
        for (echo, page) in self.echoes.iter_mut().zip(&self.settings.echoes) {
            let blamed = echo.health.target_is_down(now);
            let check: Arc<str> = format!("{ECHO} {}", page.target.host).into();
            match (echo.blamed, blamed) {
                (None, true) => self.events.push(Event::Suspended { check, pardoned: 0 }),
                (Some(_), false) => self.events.push(Event::Resumed { check }),
                _ => {}
            }
            echo.blamed = blamed.then(|| echo.blamed.unwrap_or(now));
        }
    }

    /// What happened to pages since this was last asked.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// How every page fares.
    pub(super) fn page_health(&self, now: Moment) -> Vec<PageHealth> {
        let echoes = self.echoes.iter().zip(&self.settings.echoes).map(|(echo, page)| {
            let (suspended, passing) = (echo.blamed, echo.health.passing(now));
            PageHealth { kind: ECHO, name: page.target.host.to_string().into(), suspended, passing, held: 0 }
        });
        let canaries = self.canaries.iter().zip(&self.settings.canaries).map(|(canary, page)| {
            let (suspended, passing, held) = canary.pending.standing(now);
            PageHealth { kind: CANARY, name: page.target.host.to_string().into(), suspended, passing, held }
        });
        let sites = self.site_bans.iter().zip(&self.settings.sites).map(|(pending, site)| {
            let (suspended, passing, held) = pending.standing(now);
            PageHealth { kind: SITE, name: site.name.clone(), suspended, passing, held }
        });
        echoes.chain(canaries).chain(sites).collect()
    }

    /// Suspects of hosts that have shown somebody the right certificate since.
    fn suspects_to_try(&mut self, now: Moment) -> Vec<ExitId> {
        let certificates = &self.certificates;
        let clear = |(host, exit): &mut (Host, ExitId)| {
            certificates.get(host).is_some_and(|all| all.vouched_by_another(exit, now) && !all.target_is_down(now))
        };
        self.suspects.extract_if(.., clear).map(|(_, exit)| exit).collect()
    }

    /// True while [`Self::settle`] may find something without a new result.
    pub(super) fn is_unsettled(&self) -> bool {
        let blamed = self.echoes.iter().any(|echo| echo.blamed.is_some());
        blamed || !self.suspects.is_empty() || self.all_pending().any(PendingBans::is_unsettled)
    }

    fn all_pending(&self) -> impl Iterator<Item = &PendingBans> {
        self.site_bans.iter().chain(self.canaries.iter().map(|canary| &canary.pending))
    }

    /// Forgets exits that are there no more.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.exits.keep(exits);
        self.echoes.iter_mut().for_each(|echo| echo.health.keep(exits));
        self.certificates.values_mut().for_each(|health| health.keep(exits));
        self.suspects.retain(|(_, exit)| exits.contains(exit));
        self.condemned.retain(|exit| exits.contains(exit));
        self.site_bans.iter_mut().for_each(|pending| pending.keep(exits));
        self.canaries.iter_mut().for_each(|canary| canary.pending.keep(exits));
    }
}

/// Settles one docket, and says so where something turned.
fn settle(pending: &mut PendingBans, name: &Arc<str>, now: Moment, events: &mut Vec<Event>) -> Settled {
    if !pending.is_unsettled() {
        return Settled::default();
    }
    let settled = pending.settle(now);
    match settled.turned {
        Some(true) => events.push(Event::Suspended { check: name.clone(), pardoned: settled.cleared.len() }),
        Some(false) => events.push(Event::Resumed { check: name.clone() }),
        None => {}
    }
    settled
}
