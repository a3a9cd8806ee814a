//! The state of a tester, of Tor exits or of exits of one's own: which checks are due, which results came back, and
//! which updates must be published. No I/O: the loop in `check/worker.rs` calls this code.
//!
//! The whole catalog of exits is read only when exits were added or removed, and once a minute. It is not read after
//! each new snapshot of the state, because each verdict on an exit makes a new snapshot, and there are many verdicts
//! per second.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use super::CheckedSite;
use super::condemnation;
use super::demand::{self, Inputs, Order};
use super::due_queue::Ended;
use super::evaluator::{Decisions, Evaluator, PageHealth};
use super::exit_update::{self, Geo};
use super::pardon;
use super::results::{Checked, Results, SETTLE};
use super::round::{EchoRound, Finding, Job, SiteRound};
use super::schedule::{LastCheck, Schedule};
use super::settings::{Settings, Tested};
use super::verdict::Conclusion;
use super::worker::{CheckState, Urgency};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, ExitId, Known, Moment, Verdict};
use crate::route::{Event, Memory};
use crate::state::Snapshot;
use crate::store::Timings;

/// How long updates are collected before they are published. This is short, because a verdict must reach the pools of
/// routes within a second.
const COLLECT: Duration = Duration::from_millis(100);

/// The time after which the whole catalog is read again even if no exit was added or removed, because facts change and
/// verdicts become too old.
const WALK: Duration = Duration::from_secs(60);

pub(super) struct TesterState {
    settings: Arc<Settings>,
    schedule: Schedule,
    evaluator: Evaluator,
    /// The exits that were in the catalog when it was last read.
    alive: Bits,
    walked: Moment,
    health_published: Moment,
    /// The sites to request, by their index in the settings: the sites of the configuration file, and the presets that
    /// a route names.
    sites: Vec<usize>,
    /// When a site was last added to `sites`.
    sites_since: Moment,
    /// The exits that can be tested, best first.
    order: Order,
    /// The random seed of `order`. The seed stays the same while the gateway runs, so the order changes little.
    seed: u64,
    results: Results,
}

impl TesterState {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        Self {
            schedule: Schedule::new(settings.schedule, settings.echoes.len()),
            evaluator: Evaluator::new(settings.clone(), geo),
            settings,
            alive: Bits::default(),
            walked: Moment::default(),
            health_published: Moment::default(),
            sites: Vec::new(),
            sites_since: Moment::default(),
            order: Order::default(),
            seed: rand::random(),
            results: Results::new(COLLECT),
        }
    }

    fn walk(&mut self, snapshot: &Snapshot, now: Moment) {
        self.alive = snapshot.catalog.alive().clone();
        self.walked = now;
        let exits =
            || self.alive.iter().filter_map(|slot| snapshot.catalog.at(slot)).filter(|exit| self.can_test(exit));
        let last = |exit: &Exit| LastCheck { checked: exit.known().checked, verdict: exit.known().verdict };
        let listed: Vec<_> = exits().map(|exit| (exit.id().clone(), last(exit))).collect();
        let stale = |exit: &&Arc<Exit>| {
            let shown = exit.known().checked.max(exit.load().last_success()).unwrap_or_default();
            exit.known().verdict == Verdict::Good && now.since(shown) >= self.settings.stale_after
        };
        let stale: Vec<_> = exits().filter(stale).collect();
        let forgotten: Vec<_> = stale.iter().map(|exit| exit_update::forget(exit.id())).collect();
        self.results.add(forgotten, now);
        let tested = self.settings.tested;
        let condemned = snapshot.catalog.iter().filter(|exit| tested.includes(exit.id().source()));
        let ended = condemned.filter(|exit| condemnation::has_ended(exit.known(), now));
        let pardoned: Vec<_> = ended.map(|exit| pardon::update(exit, now)).collect();
        self.results.add(pardoned, now);
        let ids: HashSet<ExitId> = listed.iter().map(|(id, _)| id.clone()).collect();
        self.evaluator.keep(&ids);
        self.schedule.list(listed);
        stale.iter().for_each(|exit| self.schedule.forget_verdict(exit.id(), now));
        self.order = Order::new(&snapshot.catalog, self.seed, |exit| self.can_test(exit));
        self.results.keep(|exit| self.schedule.knows(exit));
    }

    /// Returns true if this tester can test the exit. Public proxies have a tester of their own. This machine itself,
    /// without an own address, is never tested. An exit of an upstream source can be tested when its source has listed
    /// it. An exit whose policy allows no echo server cannot be tested.
    fn can_test(&self, exit: &Exit) -> bool {
        let is_reached = self.settings.tested != Tested::Upstream || exit.listing().upstream.is_some();
        let included = self.settings.tested.includes(exit.id().source()) && *exit.id() != ExitId::Direct && is_reached;
        included && (0..self.settings.echoes.len()).any(|echo| self.allows(exit, echo))
    }

    fn allows(&self, exit: &Exit, echo: usize) -> bool {
        exit.allows(self.settings.echoes[echo].target.port, false)
    }

    /// Returns the sites to request. The sites of the configuration file are always requested, and presets only if a
    /// route names them.
    fn sites_to_ask(&self, snapshot: &Snapshot) -> Vec<usize> {
        let policies = snapshot.routes.iter().map(|entry| &entry.route.policy.check);
        let named: HashSet<&str> =
            policies.chain([&snapshot.routes.defaults().check]).filter_map(|check| check.as_deref()).collect();
        let is_asked = |site: &CheckedSite| !site.target.preset || named.contains(&*site.name);
        self.settings.sites.iter().enumerate().filter(|(_, site)| is_asked(site)).map(|(at, _)| at).collect()
    }

    /// Returns the job that checks an exit which is still in the catalog.
    fn job<R: Rng + ?Sized>(&mut self, exit: &Exit, now: Moment, rng: &mut R) -> Job {
        let allowed: Vec<usize> = (0..self.settings.echoes.len()).filter(|e| self.allows(exit, *e)).collect();
        let mut echoes: Vec<usize> = allowed.iter().copied().filter(|e| self.evaluator.serves(*e, now)).collect();
        if echoes.is_empty() {
            echoes = allowed; // all echo servers are down: only requests show when one works again
        }
        echoes.shuffle(rng);
        self.evaluator.sort_echoes(exit.id(), &mut echoes);
        let port = |site: usize| self.settings.sites[site].page.target.port;
        let sites = self.sites.iter().copied().filter(|site| exit.allows(port(*site), false)).collect();
        let canaries: Vec<usize> = (0..self.settings.canaries.len())
            .filter(|canary| exit.allows(self.settings.canaries[*canary].target.port, false))
            .collect();
        // Usually a check fetches one canary (a page that is the same for all clients): that is enough to suspect an
        // exit. All canaries together show whether the exit really tampers.
        let all = self.evaluator.needs_all_canaries(exit.id(), now);
        let chosen = if all { canaries } else { canaries.choose(rng).copied().into_iter().collect() };
        let canaries = chosen.into_iter().map(|canary| (canary, self.evaluator.truth(canary))).collect();
        let extra = self.results.extra(exit.id());
        let awaited = self.schedule.is_awaited(exit.id());
        Job { exit: exit.id().clone(), awaited, echoes, repeats: self.evaluator.repeats(), canaries, sites, extra }
    }

    /// Returns the time at which clients' streams through this exit showed all that a check would show now. `None` if a
    /// check is needed.
    fn shown_by_traffic(&self, exit: &Exit, now: Moment) -> Option<Moment> {
        let at = exit.load().last_success()?;
        let recent = now.since(at) < self.settings.schedule.every && Some(at) > exit.known().checked;
        (recent && exit.usable() && !self.schedule.needs_check(exit.id(), now)).then_some(at)
    }

    fn check_again(&mut self, exits: Vec<ExitId>, now: Moment) {
        exits.iter().for_each(|exit| self.schedule.again(exit, now));
    }

    /// Returns the events about pages since the last call: pages that went down or work again.
    pub(super) fn events(&mut self) -> Vec<Event> {
        self.evaluator.events()
    }

    /// Returns the health of every page. Returns `None` if the health was already returned within the last second.
    pub(super) fn page_health(&mut self, now: Moment) -> Option<Vec<PageHealth>> {
        if now.since(self.health_published) < SETTLE {
            return None;
        }
        self.health_published = now;
        let mut health = self.evaluator.page_health(now);
        for (at, page) in health.iter_mut().enumerate().take(self.settings.echoes.len()) {
            page.budget = Some((self.schedule.echoes().requests(at), self.schedule.echoes().left(at, now)));
        }
        Some(health)
    }
}

impl CheckState for TesterState {
    type Job = Job;
    type Finding = Finding;

    fn exit(job: &Job) -> &ExitId {
        &job.exit
    }

    fn look(&mut self, snapshot: &Snapshot, now: Moment) {
        let sites = self.sites_to_ask(snapshot);
        if sites.iter().any(|site| !self.sites.contains(site)) {
            self.sites_since = now;
            self.schedule.hurry(now);
        }
        self.sites = sites;
        let alive = snapshot.catalog.alive();
        if now.since(self.walked) >= WALK || !alive.iter().eq(self.alive.iter()) {
            self.walk(snapshot, now);
        }
    }

    fn demand(&mut self, snapshot: &Snapshot, memory: &Memory, now: Moment) {
        let asked_sites = |exit: &ExitId| self.schedule.ended_at(exit).is_some_and(|at| at >= self.sites_since);
        let tested = self.settings.tested;
        let inputs = Inputs { snapshot, memory, order: &self.order, tested, asked_sites: &asked_sites, now };
        let wanted = demand::wanted(&inputs);
        let ranks = self.order.representatives(&snapshot.catalog);
        self.schedule.want_only(&wanted, |exit| ranks.get(exit).copied(), now);
    }

    fn set_uplink(&mut self, up: bool) {
        self.schedule.set_uplink(up);
    }

    fn hasten(&mut self, exit: &ExitId, urgency: Urgency, snapshot: &Snapshot, now: Moment) -> bool {
        let listed = snapshot.catalog.get(exit).filter(|exit| exit.alive() && self.can_test(exit));
        if listed.is_some() && !self.schedule.knows(exit) {
            self.walk(snapshot, now); // the exit was listed after the last call of `look`
        }
        listed.is_some()
            && match urgency {
                Urgency::LiveRequest => self.schedule.urgent(exit, now),
                Urgency::Now => self.schedule.force(exit, now),
                Urgency::Soon => self.schedule.soon(exit, now),
            }
    }

    fn next<R: Rng + ?Sized>(&mut self, snapshot: &Snapshot, now: Moment, rng: &mut R) -> Option<Job> {
        loop {
            let exit = self.schedule.next(now)?;
            let Some(listed) = snapshot.catalog.get(&exit).filter(|listed| listed.alive()) else {
                self.schedule.ended(&exit, Ended::Open, now, 0.5);
                continue;
            };
            if let Some(at) = self.shown_by_traffic(listed, now) {
                self.schedule.proven(&exit, at, rng.random());
                self.results.add([exit_update::of_traffic(listed, at)], now);
                continue;
            }
            self.results.begin(&exit);
            return Some(self.job(listed, now, rng));
        }
    }

    fn found(&mut self, exit: &ExitId, finding: Finding, snapshot: &Snapshot, now: Moment) {
        let unknown = Known::default();
        let known = snapshot.catalog.get(exit).map_or(&unknown, |listed| listed.known());
        let running = self.results.running(exit);
        let update = match finding {
            Finding::Echoes(mut round) => {
                round.probes.iter().for_each(|probe| self.schedule.asked_echo(probe.result.echo, now));
                let announced = snapshot.catalog.get(exit).map_or(&[][..], |listed| &listed.listing().announced);
                let (update, ended) = self.evaluator.note_echoes(exit, &mut round, known, announced, now);
                running.ended = Some(ended);
                running.checked = checked(&round.conclusion, exit_update::shown_by(&round));
                super::measure::round(exit, &round);
                self.schedule.waited(waited(&round));
                Some(update)
            }
            Finding::Tamper(round) => {
                let again = self.evaluator.note_canary(exit, &round, now);
                self.check_again(again, now);
                None
            }
            Finding::Site(at, round) => {
                let name = self.settings.sites[at].name.clone();
                super::measure::site(&name, &round);
                running.checked.sites.push((name, why_missed(&round)));
                self.evaluator.note_site(exit, (at, &round), known, now)
            }
            Finding::Extra(name, round) => {
                running.checked.sites.push((name, why_missed(&round)));
                None
            }
        };
        self.results.add(update, now);
    }

    fn ended<R: Rng + ?Sized>(&mut self, exit: &ExitId, now: Moment, rng: &mut R) {
        let (ended, is_awaited) = self.results.end(exit);
        self.schedule.ended(exit, ended, now, rng.random());
        if is_awaited {
            self.schedule.soon(exit, now);
        }
    }

    fn settle(&mut self, _: &Snapshot, now: Moment) {
        let Decisions { updates, again } = self.evaluator.settle(now);
        self.check_again(again, now);
        self.results.add(updates, now);
    }

    fn results(&mut self) -> &mut Results {
        &mut self.results
    }

    fn wake(&self) -> Moment {
        let results = self.results.wake(self.evaluator.is_unsettled());
        let walk = self.walked.after(WALK);
        self.schedule.wake().into_iter().chain(results).fold(walk, Moment::min)
    }

    fn measure(&mut self, now: Moment) {
        if self.settings.tested == Tested::Tor {
            super::measure::load(self.schedule.running(), self.schedule.waiting(now));
        }
    }
}

/// Returns why an exit does not pass a site. Returns `None` if the exit passes.
fn why_missed(round: &SiteRound) -> Option<String> {
    match round.result {
        Some(result) => result.err().map(|miss| miss.to_string()),
        None => Some("it could not be asked, which is not the exit's fault".to_owned()),
    }
}

/// Returns how long a check waited for its circuit. If it got no circuit, this is the longest possible duration.
fn waited(round: &EchoRound) -> Duration {
    let waits = round.probes.iter().filter_map(|probe| probe.timings.circuit);
    let none = if matches!(round.conclusion, Conclusion::Open(_)) { Duration::MAX } else { Duration::ZERO };
    waits.max().unwrap_or(none)
}

fn checked(conclusion: &Conclusion, timings: Timings) -> Checked {
    let (verdict, why, ips) = match conclusion {
        Conclusion::Good(ips) => (Verdict::Good, String::new(), ips.clone()),
        Conclusion::Bad(why) => (Verdict::Bad, why.to_string(), Vec::new()),
        Conclusion::Open(fault) => (Verdict::Untested, fault.to_string(), Vec::new()),
    };
    Checked { verdict, why, ips, timings, sites: Vec::new() }
}
