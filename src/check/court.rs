//! Where results meet what other exits' results say of the same places, and become verdicts. Pure.
//!
//! A round alone can be wrong in ways that only its neighbours show: the echo server may be down, its certificate may
//! have run out, a site may fail everybody. So each place has its witnesses, and they are asked before anything is held
//! against an exit; the one verdict that is never taken back, that of an exit that shows certificates of its own, also
//! takes another exit that was lately shown the true one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fault::{Fault, Whose};
use super::judge::{Ruling, Why};
use super::lesson::{self, Geo, Past};
use super::round::{EchoRound, SiteRound};
use super::schedule::Ended;
use super::settings::Settings;
use super::site::Docket;
use super::witness::Witnesses;
use crate::exit::{ExitId, Known, Moment};
use crate::net::Host;
use crate::state::Learned;

/// Answers of an echo server before anything is concluded from whether it repeats a nonce. Arbitrary: more than one
/// lying exit can give in one round.
const ENOUGH_ANSWERS: u32 = 4;

#[derive(Default)]
struct Echo {
    witnesses: Witnesses,
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
pub(super) struct Court {
    settings: Arc<Settings>,
    geo: Geo,
    /// Exits as such.
    exits: Witnesses,
    echoes: Vec<Echo>,
    certificates: HashMap<Host, Witnesses>,
    dockets: Vec<Docket>,
}

impl Court {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let echoes = settings.echoes.iter().map(|_| Echo::default()).collect();
        let dockets = settings.sites.iter().map(|_| Docket::default()).collect();
        Self { settings, geo, exits: Witnesses::default(), echoes, certificates: HashMap::new(), dockets }
    }

    /// True of an echo server that is not to blame for what fails there.
    pub(super) fn serves(&self, echo: usize, now: Moment) -> bool {
        !self.echoes[echo].witnesses.blame_the_place(now)
    }

    /// Which echo servers are known to repeat a nonce.
    pub(super) fn repeats(&self) -> Vec<bool> {
        self.echoes.iter().map(Echo::repeats).collect()
    }

    /// Judges an echo round; what the round says by itself is corrected by what the witnesses say.
    pub(super) fn hear(
        &mut self,
        exit: &ExitId,
        round: &mut EchoRound,
        known: &Known,
        now: Moment,
    ) -> (Learned, Ended) {
        self.take_evidence(exit, round, now);
        if let Ruling::Bad(Why::Fault(fault)) = round.ruling
            && fault.whose() != Whose::Exit
            && self.places_are_to_blame(round, now)
        {
            round.ruling = Ruling::Open(fault);
        }
        let (ended, streak) = match round.ruling {
            Ruling::Good(_) => (Ended::Good, self.exits.passed(exit, now)),
            Ruling::Bad(_) => (Ended::Bad, self.exits.failed(exit, false, now)),
            Ruling::Open(_) => (Ended::Open, 0),
        };
        let condemned =
            round.ruling == Ruling::Bad(Why::Intercepts) && self.is_shown_the_truth_elsewhere(exit, round, now);
        let past = Past { good: known.good, streak, condemned };
        (lesson::of_echoes(exit, round, past, &self.geo, now), ended)
    }

    fn take_evidence(&mut self, exit: &ExitId, round: &EchoRound, now: Moment) {
        let passed = |echo: usize| round.probes.iter().any(|p| p.heard.echo == echo && p.heard.outcome.is_ok());
        let sound = round.probes.iter().any(|probe| probe.heard.outcome.is_ok());
        for probe in &round.probes {
            let at = probe.heard.echo;
            let echo = &mut self.echoes[at];
            if let Some(repeated) = probe.repeated {
                echo.answers += 1;
                echo.repeated += u32::from(repeated);
            }
            match probe.heard.outcome {
                Ok(_) => _ = echo.witnesses.passed(exit, now),
                Err(fault) if fault.whose() == Whose::Ours || passed(at) => {}
                Err(_) => _ = echo.witnesses.failed(exit, sound, now),
            }
            let page = &self.settings.echoes[at];
            if page.tls.is_some() {
                let certificate = self.certificates.entry(page.target.host.clone()).or_default();
                match probe.heard.outcome {
                    Err(Fault::Forged) => _ = certificate.failed(exit, sound, now),
                    _ if probe.timings.tls.is_some() => _ = certificate.passed(exit, now),
                    _ => {}
                }
            }
        }
    }

    /// Every echo server that failed the exit fails most others too.
    fn places_are_to_blame(&self, round: &EchoRound, now: Moment) -> bool {
        let mut failed = round.probes.iter().filter(|probe| probe.heard.outcome.is_err());
        failed.all(|probe| !self.serves(probe.heard.echo, now))
    }

    /// The hosts whose certificates were wrong showed others the right ones.
    fn is_shown_the_truth_elsewhere(&self, exit: &ExitId, round: &EchoRound, now: Moment) -> bool {
        let mut forged = round.probes.iter().filter(|probe| probe.heard.outcome == Err(Fault::Forged));
        forged.any(|probe| {
            let host = &self.settings.echoes[probe.heard.echo].target.host;
            let witnesses = self.certificates.get(host);
            witnesses.is_some_and(|all| all.vouched_by_another(exit, now) && !all.blame_the_place(now))
        })
    }

    /// Judges a site's answer; `None` if nothing can be said of it.
    pub(super) fn visit(&mut self, exit: &ExitId, round: &SiteRound, known: &Known, now: Moment) -> Option<Learned> {
        let site = &self.settings.sites[round.site];
        let had = known.passed.contains(&site.name);
        let (effect, streak) = self.dockets[round.site].note(exit, round.result?, had, now);
        Some(lesson::of_site(exit, site, round, effect, streak, now))
    }

    /// Bans and pardons that have become clear.
    pub(super) fn settle(&mut self, now: Moment) -> Vec<Learned> {
        let mut lessons = Vec::new();
        for (docket, site) in self.dockets.iter_mut().zip(&self.settings.sites) {
            if !docket.is_unsettled() {
                continue;
            }
            let settled = docket.settle(now);
            match settled.turned {
                Some(true) => tracing::warn!(
                    check = &*site.name,
                    pardoned = settled.pardoned.len(),
                    "most good exits fail this site: its verdicts are suspended, nobody is banned"
                ),
                Some(false) => tracing::info!(check = &*site.name, "the site is well again: its verdicts count"),
                None => {}
            }
            let until = now.after(self.settings.ban_for);
            lessons.extend(settled.banned.iter().map(|(exit, miss)| lesson::ban(exit, site, *miss, until)));
            lessons.extend(settled.pardoned.iter().map(|exit| lesson::pardon(exit, site)));
        }
        lessons
    }

    /// True while [`Self::settle`] may find something without a new result.
    pub(super) fn is_unsettled(&self) -> bool {
        self.dockets.iter().any(Docket::is_unsettled)
    }

    /// Forgets exits that are there no more.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.exits.keep(exits);
        self.echoes.iter_mut().for_each(|echo| echo.witnesses.keep(exits));
        self.certificates.values_mut().for_each(|witnesses| witnesses.keep(exits));
        self.dockets.iter_mut().for_each(|docket| docket.keep(exits));
    }
}
