//! The tester's desk: what is due, what came back, what is to be told. No I/O: the worker in `check.rs` moves things.
//!
//! The catalog is looked at when it has changed, and walked only when the exits in it have: a verdict changes the
//! catalog too, and there are many verdicts a second.

mod waiting;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use self::waiting::{Waiter, Waiting};
use super::evaluator::{Evaluator, Outcome, PageHealth};
use super::exit_update::{self, Geo};
use super::round::{EchoRound, Found, Job, SiteRound};
use super::schedule::{Ended, Past, Schedule};
use super::settings::CheckedSite;
use super::settings::Settings;
use super::verdict::Conclusion;
use super::{CheckBatch, CheckRequest};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, ExitId, Known, Moment, Source, Verdict};
use crate::route::Event;
use crate::state::{ExitUpdate, Snapshot};
use crate::store::Timings;

/// How long lessons are collected before they are told together: every telling makes a new snapshot. Short against the
/// second in which a verdict must reach a pool.
const TOGETHER: Duration = Duration::from_millis(100);

/// How often the catalog is looked at, if it changes all the time. Arbitrary.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is walked although no exit came or went: facts change, and verdicts grow old.
const WALK: Duration = Duration::from_secs(60);

/// How often what waits for a ban is looked at again.
const SETTLE: Duration = Duration::from_secs(1);

/// What one check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Good, bad, or untested if nothing can be said.
    pub verdict: Verdict,
    /// Why it is not good, in words.
    pub why: String,
    /// The addresses that sites see.
    pub ips: Vec<IpAddr>,
    /// How long the stages of the last telling probe took.
    pub timings: Timings,
    /// The sites that were asked, and why it does not pass.
    pub sites: Vec<(Arc<str>, Option<String>)>,
}

#[derive(Default)]
struct Running {
    ended: Option<Ended>,
    checked: Checked,
}

/// See above.
pub(super) struct TesterState {
    settings: Arc<Settings>,
    schedule: Schedule,
    evaluator: Evaluator,
    alive: Bits,
    looked: Moment,
    walked: Moment,
    settled: Moment,
    stood: Moment,
    /// Sites that some route asks for, and the file's own.
    sites: Vec<usize>,
    running: HashMap<ExitId, Running>,
    updates: Vec<ExitUpdate>,
    /// When lessons may be told.
    tell: Moment,
    waiting: Waiting,
}

impl TesterState {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        Self {
            schedule: Schedule::new(settings.schedule),
            evaluator: Evaluator::new(settings.clone(), geo),
            settings,
            alive: Bits::default(),
            looked: Moment::default(),
            walked: Moment::default(),
            settled: Moment::default(),
            stood: Moment::default(),
            sites: Vec::new(),
            running: HashMap::new(),
            updates: Vec::new(),
            tell: Moment::default(),
            waiting: Waiting::default(),
        }
    }

    /// Takes note of a snapshot; false if it is too early to look again.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Moment) -> bool {
        if now.since(self.looked) < LOOK {
            return false;
        }
        self.looked = now;
        let sites = self.asked_for(snapshot);
        if sites.iter().any(|site| !self.sites.contains(site)) && !self.sites.is_empty() {
            self.schedule.hurry(now);
        }
        self.sites = sites;
        let alive = snapshot.catalog.alive();
        if now.since(self.walked) >= WALK || !alive.iter().eq(self.alive.iter()) {
            self.alive = alive.clone();
            self.walk(snapshot, now);
        }
        true
    }

    fn walk(&mut self, snapshot: &Snapshot, now: Moment) {
        self.walked = now;
        let exits =
            || self.alive.iter().filter_map(|slot| snapshot.catalog.at(slot)).filter(|exit| self.can_test(exit));
        let past = |exit: &Exit| Past { checked: exit.known().checked, verdict: exit.known().verdict };
        let listed: Vec<_> = exits().map(|exit| (exit.id().clone(), past(exit))).collect();
        let stale = |exit: &&Arc<Exit>| {
            let checked = exit.known().checked.unwrap_or_default();
            exit.known().verdict == Verdict::Good && now.since(checked) >= self.settings.stale_after
        };
        let forgotten: Vec<_> = exits().filter(stale).map(|exit| exit_update::forget(exit.id())).collect();
        self.learn(forgotten, now);
        let ids: HashSet<ExitId> = listed.iter().map(|(id, _)| id.clone()).collect();
        self.evaluator.keep(&ids);
        self.schedule.list(listed, now);
        self.waiting.keep(|exit| self.schedule.knows(exit) || self.running.contains_key(exit));
    }

    /// Public proxies have a tester of their own, and this machine itself has its operator; an exit that lets no echo
    /// server through cannot be tested.
    fn can_test(&self, exit: &Exit) -> bool {
        exit.id().source() == Source::Tor && (0..self.settings.echoes.len()).any(|echo| self.allows(exit, echo))
    }

    fn allows(&self, exit: &Exit, echo: usize) -> bool {
        exit.allows(self.settings.echoes[echo].target.port, false)
    }

    /// The file's targets are always asked for; presets when a route names them.
    fn asked_for(&self, snapshot: &Snapshot) -> Vec<usize> {
        let policies = snapshot.routes.iter().map(|entry| &entry.route.policy.check);
        let named: HashSet<&str> =
            policies.chain([&snapshot.routes.defaults().check]).filter_map(|check| check.as_deref()).collect();
        let asked = |site: &super::CheckedSite| !site.target.preset || named.contains(&*site.name);
        self.settings.sites.iter().enumerate().filter(|(_, site)| asked(site)).map(|(at, _)| at).collect()
    }

    pub(super) fn use_only(&mut self, used: &BTreeSet<ExitId>, now: Moment) {
        self.schedule.use_only(used, now);
    }

    /// A live request waits for this exit.
    pub(super) fn wish(&mut self, exit: &ExitId, snapshot: &Snapshot, now: Moment) {
        if self.meet(exit, snapshot, now) {
            self.schedule.wish(exit, now);
        }
    }

    /// Somebody waits for checks. Who asks for one goes ahead of everything, who asks for many takes turns.
    pub(super) fn ask(&mut self, asked: CheckRequest, snapshot: &Snapshot, now: Moment) {
        match asked {
            CheckRequest::Now(exit, answer) => {
                let is_there = self.meet(&exit, snapshot, now) && self.schedule.force(&exit, now);
                self.wait(is_there, exit, Waiter::One(answer));
            }
            CheckRequest::All(CheckBatch { exits, extra }, results) => {
                for exit in exits {
                    let is_there = self.meet(&exit, snapshot, now) && self.schedule.soon(&exit, now);
                    self.wait(is_there, exit, Waiter::Many(results.clone(), extra.clone()));
                }
            }
        }
    }

    fn wait(&mut self, is_there: bool, exit: ExitId, waiter: Waiter) {
        if is_there {
            self.waiting.add(exit, waiter);
        } else {
            self.waiting.refuse(exit, waiter);
        }
    }

    /// True of an exit that can be tested. It may be asked for sooner than its listing was looked at.
    fn meet(&mut self, exit: &ExitId, snapshot: &Snapshot, now: Moment) -> bool {
        let listed = snapshot.catalog.get(exit).filter(|exit| exit.alive() && self.can_test(exit));
        if listed.is_some() && !self.schedule.knows(exit) {
            self.alive = snapshot.catalog.alive().clone();
            self.walk(snapshot, now);
        }
        listed.is_some()
    }

    /// The next check, if one may begin.
    pub(super) fn next<R: Rng + ?Sized>(&mut self, snapshot: &Snapshot, now: Moment, rng: &mut R) -> Option<Job> {
        loop {
            let exit = self.schedule.next(now)?;
            let Some(listed) = snapshot.catalog.get(&exit).filter(|listed| listed.alive()) else {
                self.schedule.ended(&exit, Ended::Open, now, 0.5);
                continue;
            };
            let allowed: Vec<usize> = (0..self.settings.echoes.len()).filter(|e| self.allows(listed, *e)).collect();
            let mut echoes: Vec<usize> = allowed.iter().copied().filter(|e| self.evaluator.serves(*e, now)).collect();
            if echoes.is_empty() {
                echoes = allowed; // all fail everybody: asked all the same, or nobody would see them come back
            }
            echoes.shuffle(rng);
            let port = |site: usize| self.settings.sites[site].page.target.port;
            let sites = self.sites.iter().copied().filter(|site| listed.allows(port(*site), false)).collect();
            let canaries: Vec<usize> = (0..self.settings.canaries.len())
                .filter(|canary| listed.allows(self.settings.canaries[*canary].target.port, false))
                .collect();
            let canary = canaries.choose(rng).map(|canary| (*canary, self.evaluator.truth(*canary)));
            let extra = self.waiting.extra(&exit);
            self.running.insert(exit.clone(), Running::default());
            return Some(Job { exit, echoes, repeats: self.evaluator.repeats(), canary, sites, extra });
        }
    }

    /// Takes what a check found.
    pub(super) fn found(&mut self, exit: &ExitId, found: Found, snapshot: &Snapshot, now: Moment) {
        let unknown = Known::default();
        let known = snapshot.catalog.get(exit).map_or(&unknown, |listed| listed.known());
        let running = self.running.entry(exit.clone()).or_default();
        let update = match found {
            Found::Echoes(mut round) => {
                let (update, ended) = self.evaluator.hear(exit, &mut round, known, now);
                running.ended = Some(ended);
                running.checked = checked(&round.conclusion, exit_update::telling(&round));
                super::measure::round(exit, &round);
                self.schedule.waited(waited(&round));
                Some(update)
            }
            Found::Tamper(round) => {
                let again = self.evaluator.look(exit, &round, now);
                self.again(again, now);
                None
            }
            Found::Site(at, round) => {
                let name = self.settings.sites[at].name.clone();
                super::measure::site(&name, &round);
                running.checked.sites.push((name, why(&round)));
                self.evaluator.visit(exit, (at, &round), known, now)
            }
            Found::Extra(name, round) => {
                running.checked.sites.push((name, why(&round)));
                None
            }
        };
        self.learn(update, now);
    }

    /// A check is over, or died.
    pub(super) fn over<R: Rng + ?Sized>(&mut self, exit: &ExitId, now: Moment, rng: &mut R) {
        let Running { ended, checked } = self.running.remove(exit).unwrap_or_default();
        self.schedule.ended(exit, ended.unwrap_or(Ended::Open), now, rng.random());
        if self.waiting.ended(exit, &checked) {
            self.schedule.soon(exit, now);
        }
    }

    fn again(&mut self, exits: Vec<ExitId>, now: Moment) {
        exits.iter().for_each(|exit| self.schedule.again(exit, now));
    }

    fn learn(&mut self, updates: impl IntoIterator<Item = ExitUpdate>, now: Moment) {
        let had = !self.updates.is_empty();
        self.updates.extend(updates);
        if !had && !self.updates.is_empty() {
            self.tell = self.tell.max(now);
        }
    }

    /// The lessons that are to be told now, if any; the next ones wait a moment.
    pub(super) fn updates(&mut self, now: Moment) -> Vec<ExitUpdate> {
        if now.since(self.settled) >= SETTLE || !self.updates.is_empty() && self.tell <= now {
            self.settled = now;
            let Outcome { updates, again } = self.evaluator.settle(now);
            self.again(again, now);
            self.learn(updates, now);
        }
        if self.updates.is_empty() || self.tell > now {
            return Vec::new();
        }
        self.tell = now.after(TOGETHER);
        std::mem::take(&mut self.updates)
    }

    /// What happened to pages.
    pub(super) fn events(&mut self) -> Vec<Event> {
        self.evaluator.events()
    }

    /// How every page fares, if it is time to say so again.
    pub(super) fn standing(&mut self, now: Moment) -> Option<Vec<PageHealth>> {
        if now.since(self.stood) < SETTLE {
            return None;
        }
        self.stood = now;
        Some(self.evaluator.standing(now))
    }

    /// Answers whoever waited for a check that is over, once its lessons were told.
    pub(super) fn answer(&mut self) {
        if self.updates.is_empty() {
            self.waiting.tell();
        }
    }

    /// When there is something to do without anything coming in.
    pub(super) fn wake(&self) -> Moment {
        let tell = (!self.updates.is_empty()).then_some(self.tell);
        let settle = self.evaluator.is_unsettled().then(|| self.settled.after(SETTLE));
        [self.schedule.wake(), tell, settle]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Moment(u64::MAX))
            .min(self.walked.after(WALK))
    }

    /// When a snapshot that changed is looked at.
    pub(super) fn looks_at(&self) -> Moment {
        self.looked.after(LOOK)
    }

    /// Checks that run, and exits that wait for theirs.
    pub(super) fn load(&self, now: Moment) -> (usize, usize) {
        (self.schedule.running(), self.schedule.waiting(now))
    }
}

/// Why a site is not passed; nothing if it is.
fn why(round: &SiteRound) -> Option<String> {
    match round.result {
        Some(result) => result.err().map(|miss| miss.to_string()),
        None => Some("it could not be asked, which is not the exit's fault".to_owned()),
    }
}

/// How long a round waited for a circuit: for ever, if none came.
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
