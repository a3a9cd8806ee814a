//! Verdicts that need the results of several exits. Pure.
//!
//! A single check can be wrong in ways that only the checks of other exits show. An echo server may be down, its
//! certificate may have expired, or a site may fail for every client. So the results of all exits are kept for each
//! target (an echo server or a site), and are compared before a failure counts against an exit.
//!
//! The next check of an exit may change nearly every verdict on the exit. But the verdict that an exit tampers with
//! pages lasts for two weeks (`check/condemnation.rs`).
//!
//! Next: `check/evaluator/echoes.rs` judges the echo probes of one check.

mod echoes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::echoes::Held;
use super::addresses::Unconfirmed;
use super::condemnation::{Evidence, Tampered, Weight};
use super::echo_server::EchoServer;
use super::exit_update::{self, ECHO, Geo};
use super::outage::Outage;
use super::round::{SiteRound, TamperRound};
use super::settings::Settings;
use super::site::{PageDecisions, PendingBans};
use super::tamper_check::{Digest, TamperCheck};
use super::target_health::TargetHealth;
use crate::exit::{ExitId, Known, Moment};
use crate::net::Host;
use crate::route::Event;
use crate::state::ExitUpdate;

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
    /// For an echo server: how many requests it has got since the tester started, and how many requests it may get now
    /// from checks that no person ordered. `None` for pages without such a limit.
    pub budget: Option<(u64, u64)>,
    /// True if the page is an echo server that checks do not use because it returns wrong addresses.
    pub wrong: bool,
}

/// The results of all exits at all targets.
pub(super) struct Evaluator {
    settings: Arc<Settings>,
    geo: Geo,
    /// The results of the exits themselves: whether their echo probes passed.
    exits: TargetHealth,
    /// Detects that so many exits fail together that the cause must be on our side.
    outage: Outage,
    echoes: Vec<EchoServer>,
    /// Bad verdicts on exits that were good until now. These verdicts do not count until other exits show that the echo
    /// servers work.
    held: Vec<Held>,
    /// When exits that work were last checked again to find out whether a bad verdict in `held` must count.
    controlled: Moment,
    unconfirmed: Unconfirmed,
    certificates: HashMap<Host, TargetHealth>,
    /// Exits that showed a wrong certificate of a host, each with this host. These exits must be checked again for one
    /// of two reasons: no exit had received the true certificate of the host yet, or a second host must be tested.
    suspects: Vec<(Host, ExitId)>,
    /// Exits that are condemned. A check that was still running must not make these exits good.
    condemned: HashSet<ExitId>,
    canaries: Vec<TamperCheck>,
    evidence: Evidence,
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
        let (held, controlled, unconfirmed) = (Vec::new(), Moment::default(), Unconfirmed::default());
        Self {
            settings,
            geo,
            exits,
            outage,
            echoes,
            held,
            controlled,
            unconfirmed,
            certificates,
            suspects,
            condemned,
            canaries,
            evidence: Evidence::default(),
            site_bans,
            events,
        }
    }

    /// Returns true if checks may use this echo server.
    pub(super) fn serves(&self, echo: usize, now: Moment) -> bool {
        self.echoes[echo].serves(now)
    }

    /// Returns one value for each echo server: true if the server is known to repeat nonces.
    pub(super) fn repeats(&self) -> Vec<bool> {
        self.echoes.iter().map(EchoServer::repeats).collect()
    }

    /// Sorts the echo servers for the next check of an exit. If the exit showed wrong certificates of one host, a TLS
    /// server of another host comes first, because a second host condemns the exit. A TLS server of that one host comes
    /// next, because the true certificate of the host clears the exit. A check that passes asks only two servers, so
    /// both must be among the first two. Servers without TLS can show neither, and come last.
    pub(super) fn sort_echoes(&self, exit: &ExitId, echoes: &mut [usize]) {
        let forged: Vec<_> = self.evidence.forged_hosts(exit).collect();
        if forged.is_empty() {
            return;
        }
        echoes.sort_by_key(|echo| {
            let page = &self.settings.echoes[*echo];
            (page.tls.is_none(), forged.contains(&&page.target.host))
        });
        let is_forged = |echo: &usize| forged.contains(&&self.settings.echoes[*echo].target.host);
        if let Some(first) = echoes.iter().position(is_forged).filter(|first| *first > 1) {
            echoes[1..=first].rotate_right(1);
        }
    }

    /// Returns true if the exit tampered at one host, but not yet at a second host.
    fn is_suspect(&self, exit: &ExitId, now: Moment) -> bool {
        self.evidence.is_against(exit, now)
    }

    /// Returns true if the check of this exit must fetch every canary (a page that is the same for all clients). There
    /// are three reasons: the true content of a canary is not known yet, the exit may be condemned for a page that it
    /// showed, or the exit is a suspect.
    pub(super) fn needs_all_canaries(&self, exit: &ExitId, now: Moment) -> bool {
        let is_open = |canary: &TamperCheck| canary.truth().is_none() || canary.pending.is_undecided();
        self.is_suspect(exit, now) || self.canaries.iter().any(is_open)
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

    /// Returns the digest of the true content of a canary (a page that is the same for all clients). `canary` is its
    /// index. Returns `None` if the digest is not known yet.
    pub(super) fn truth(&self, canary: usize) -> Option<Digest> {
        self.canaries[canary].truth()
    }

    /// Records what an exit showed for a canary (a page that is the same for all clients). Returns the exits that must
    /// be checked again.
    pub(super) fn note_canary(&mut self, exit: &ExitId, round: &TamperRound, now: Moment) -> Vec<ExitId> {
        let again = self.canaries[round.canary].note(exit, round.digest, round.changed, now);
        let host = &self.settings.canaries[round.canary].target.host;
        if self.truth(round.canary) == Some(round.digest) && self.evidence.clear(exit, host, Tampered::Page) {
            return again.into_iter().chain([exit.clone()]).collect();
        }
        again
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
        for (canary, page) in self.canaries.iter_mut().zip(&self.settings.canaries) {
            let decided = decide(&mut canary.pending, &CANARY.into(), now, &mut self.events);
            for (exit, failure) in decided.confirmed {
                let weight = self.evidence.add(&exit, &page.target.host, Tampered::Page, now);
                all.updates.push(exit_update::tampers(&exit, failure, weight == Weight::Condemns, now));
                match weight {
                    Weight::Condemns => _ = self.condemned.insert(exit),
                    Weight::First => all.again.push(exit), // the next check of this exit fetches all canaries
                    Weight::Repeated => {}
                }
            }
            all.again.extend(decided.again);
        }
        self.decide_held(&mut all, now);
        self.note_echoes_that_are_down(now);
        all
    }

    /// Records which echo servers are down. Checks do not use these servers in the meantime.
    fn note_echoes_that_are_down(&mut self, now: Moment) {
        for (echo, page) in self.echoes.iter_mut().zip(&self.settings.echoes) {
            let is_down = !echo.serves(now);
            let check: Arc<str> = format!("{ECHO} {}", page.target.host).into();
            match (echo.suspended, is_down) {
                (None, true) => self.events.push(Event::Suspended { check, pardoned: 0 }),
                (Some(_), false) => self.events.push(Event::Resumed { check }),
                _ => {}
            }
            echo.suspended = is_down.then(|| echo.suspended.unwrap_or(now));
        }
    }

    /// Returns the events about pages since the last call: pages that went down or work again.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the health of every page.
    pub(super) fn page_health(&self, now: Moment) -> Vec<PageHealth> {
        let echoes = self.echoes.iter().zip(&self.settings.echoes).map(|(echo, page)| {
            let (suspended, passing, wrong) = (echo.suspended, echo.passing(now), echo.names_wrong_addresses(now));
            PageHealth {
                kind: ECHO,
                name: page.target.host.to_string().into(),
                suspended,
                passing,
                pending: 0,
                budget: None,
                wrong,
            }
        });
        let canaries = self.canaries.iter().zip(&self.settings.canaries).map(|(canary, page)| {
            let (suspended, passing, pending) = canary.pending.health(now);
            let name = page.target.host.to_string().into();
            PageHealth { kind: CANARY, name, suspended, passing, pending, budget: None, wrong: false }
        });
        let sites = self.site_bans.iter().zip(&self.settings.sites).map(|(bans, site)| {
            let (suspended, passing, pending) = bans.health(now);
            PageHealth { kind: SITE, name: site.name.clone(), suspended, passing, pending, budget: None, wrong: false }
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
        let any_down = self.echoes.iter().any(|echo| echo.suspended.is_some());
        any_down
            || !self.held.is_empty()
            || !self.suspects.is_empty()
            || self.all_pending().any(PendingBans::is_undecided)
    }

    fn all_pending(&self) -> impl Iterator<Item = &PendingBans> {
        self.site_bans.iter().chain(self.canaries.iter().map(|canary| &canary.pending))
    }

    /// Deletes the results of all exits that are not in `exits`.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.exits.keep(exits);
        self.outage.keep(exits);
        self.echoes.iter_mut().for_each(|echo| echo.keep(exits));
        self.held.retain(|held| exits.contains(&held.exit));
        self.unconfirmed.keep(|exit| exits.contains(exit));
        self.certificates.values_mut().for_each(|health| health.keep(exits));
        self.suspects.retain(|(_, exit)| exits.contains(exit));
        self.condemned.retain(|exit| exits.contains(exit));
        self.evidence.keep(|exit| exits.contains(exit));
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

#[cfg(test)]
mod tests;
