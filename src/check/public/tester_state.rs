//! The judge's desk: what is due, what came back, what is to be told. No I/O: the worker in `check/public.rs` moves
//! things.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use rand::Rng;
use rand::seq::IteratorRandom as _;
use tokio::sync::oneshot;

use super::super::exit_update::Geo;
use super::super::tester_state::Checked;
use super::evaluator::PublicEvaluator;
use super::exit_update;
use super::queue::{Ended, Past, Queue};
use super::report::{Finding, Job, Report, Subject, Test, Why};
use super::settings::Settings;
use crate::exit::facts::Known;
use crate::exit::{Exit, ExitId, Moment, Source, Through, Verdict};
use crate::lifecycle::yielding;
use crate::route;
use crate::state::{ExitUpdate, Snapshot};
use crate::telemetry::metrics as names;

/// How long lessons are collected before they are told together: every telling makes a new snapshot, and a first pass
/// brings some hundred a second.
const TOGETHER: Duration = Duration::from_millis(250);

/// How often the catalog is looked at, if it changes all the time.
const LOOK: Duration = Duration::from_millis(500);

/// How often what waits for a sentence is looked at, and gauges set.
const SETTLE: Duration = Duration::from_secs(1);

/// See above.
pub(super) struct PublicTesterState {
    settings: Arc<Settings>,
    geo: Geo,
    queue: Queue,
    evaluator: PublicEvaluator,
    looked: Moment,
    settled: Moment,
    measured: Moment,
    updates: Vec<ExitUpdate>,
    /// What is known of those whom lessons are about that are not told yet.
    untold: HashMap<ExitId, Known>,
    /// When they are told.
    tell: Moment,
    given_up: Vec<ExitId>,
    waiting: HashMap<ExitId, Vec<oneshot::Sender<Checked>>>,
    /// Answers for those who wait, told after the lessons.
    answers: Vec<(ExitId, Checked)>,
}

impl PublicTesterState {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let evaluator = PublicEvaluator::new(settings.plain.len(), settings.secure.len(), settings.canaries.len());
        let queue = Queue::new(settings.terms);
        let (updates, given_up, answers, waiting) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let start = Moment(0);
        let (looked, settled, measured, tell) = (start, start, start, start);
        let untold = HashMap::new();
        Self {
            settings,
            geo,
            queue,
            evaluator,
            looked,
            settled,
            measured,
            updates,
            untold,
            tell,
            given_up,
            waiting,
            answers,
        }
    }

    /// Looks at the catalog, if it is time; true if it was.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Moment) -> bool {
        if now < self.looks_at() {
            return false;
        }
        self.looked = now;
        let public = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public && exit.alive());
        let public = public.inspect(|_| yielding::yield_if_due()); // there may be tens of thousands
        let listed: Vec<_> = public.map(|exit| (exit.id().clone(), past(exit))).collect();
        self.queue.list(&listed, now);
        let ids: HashSet<ExitId> = listed.into_iter().map(|(id, _)| id).collect();
        self.evaluator.keep(&ids);
        self.waiting.retain(|id, _| ids.contains(id));
        true
    }

    /// When the catalog may be looked at again.
    pub(super) fn looks_at(&self) -> Moment {
        if self.looked == Moment(0) { self.looked } else { self.looked.after(LOOK) }
    }

    pub(super) fn wish(&mut self, exit: &ExitId, now: Moment) {
        self.queue.wish(exit, now);
    }

    /// Somebody waits for a check.
    pub(super) fn force(&mut self, exit: ExitId, answer: oneshot::Sender<Checked>, snapshot: &Snapshot, now: Moment) {
        if !self.queue.knows(&exit) {
            self.looked = Moment(0);
            self.look(snapshot, now);
        }
        if self.queue.knows(&exit) {
            self.queue.force(&exit, now);
            self.waiting.entry(exit).or_default().push(answer);
        }
    }

    /// The next check, if one may begin.
    pub(super) fn next<R: Rng + ?Sized>(&mut self, snapshot: &Snapshot, now: Moment, rng: &mut R) -> Option<Job> {
        loop {
            let (id, long) = self.queue.next(now)?;
            let Some(exit) = snapshot.catalog.get(&id).filter(|exit| exit.alive()) else {
                self.queue.forget(&id);
                continue;
            };
            let Some(subject) = subject(exit, snapshot) else {
                self.queue.forget(&id);
                continue;
            };
            let able = self.untold.get(&id).unwrap_or(exit.known()).public;
            let test = match long {
                true => Test::Long { tls: able.is_some_and(|able| able.tls) },
                false => {
                    let page = (0..self.settings.canaries.len()).choose(rng);
                    Test::First { canary: page.map(|page| (page, self.evaluator.truth(page))) }
                }
            };
            return Some(Job { subject, test, echoes: self.evaluator.echoes(rng) });
        }
    }

    /// Takes what a check found.
    pub(super) fn found<R: Rng + ?Sized>(
        &mut self,
        id: &ExitId,
        report: Report,
        snapshot: &Snapshot,
        now: Moment,
        rng: &mut R,
    ) {
        let Report { finding, heard, canary, timings } = report;
        heard.into_iter().for_each(|(echo, answer)| self.evaluator.hear(echo, answer));
        if let Some(seen) = canary {
            let again = self.evaluator.look(id, seen, now);
            again.iter().for_each(|other| self.queue.again(other, now));
        }
        let Some(exit) = snapshot.catalog.get(id).cloned() else { return self.queue.forget(id) };
        let (ended, outcome, why) = self.rule(&exit, finding, now);
        counter!(names::CHECKS, "source" => "public", "outcome" => outcome).increment(1);
        if let (Ended::Good, Some(connect)) = (ended, timings.connect) {
            histogram!(names::CHECK_OPEN_SECONDS, "source" => "public").record(connect);
        }
        if self.waiting.contains_key(id) {
            let verdict = match ended {
                Ended::Good => Verdict::Good,
                Ended::Bad => Verdict::Bad,
                Ended::Open => Verdict::Untested,
            };
            let ips = exit.ip().into_iter().collect();
            self.answers.push((id.clone(), Checked { verdict, why, ips, timings, sites: Vec::new() }));
        }
        if self.queue.ended(id, ended, now, rng) {
            counter!(names::PUBLIC_GIVEN_UP).increment(1);
            self.given_up.push(id.clone());
        }
    }

    /// What a finding comes to: how it ends, its word, and why in words.
    fn rule(&mut self, exit: &Exit, finding: Finding, now: Moment) -> (Ended, &'static str, String) {
        let worked = self.queue.works(exit.id());
        let failures = self.queue.failures(exit.id()) + 1;
        match finding {
            // It works, and whether it lasts is the question.
            Finding::Works(_) if self.queue.is_doubted(exit.id()) => (Ended::Good, "good", String::new()),
            Finding::Works(works) => {
                if worked {
                    self.evaluator.uplink(true, now);
                }
                let geo = self.geo.clone();
                self.learn(exit, |known| exit_update::good(exit, known, works, &geo, now), now);
                (Ended::Good, "good", String::new())
            }
            Finding::Lasts { passed, asked, why } => {
                let (_, needed) = self.settings.long;
                let well = passed >= needed;
                if !well && self.evaluator.uplink(false, now) {
                    return (Ended::Open, "line", "our own line is down, it seems".to_owned());
                }
                let lasts = |known: &mut Known| exit_update::lasts(exit, known, (passed, asked), well, failures, now);
                self.learn(exit, lasts, now);
                let (ended, word) = if well { (Ended::Good, "lasts") } else { (Ended::Bad, Why::Unreliable.as_str()) };
                (ended, word, why.map(|why| format!("{passed} of {asked} requests: {why}")).unwrap_or_default())
            }
            Finding::Fails(Why::Intercepts) if self.evaluator.vouches_for_tls() => {
                self.learn(exit, |known| exit_update::condemned(exit, known, Why::Intercepts, now), now);
                (Ended::Bad, Why::Intercepts.as_str(), Why::Intercepts.to_string())
            }
            Finding::Fails(why) => {
                if worked && self.evaluator.uplink(false, now) {
                    return (Ended::Open, "line", "our own line is down, it seems".to_owned());
                }
                self.learn(exit, |known| exit_update::bad(exit, known, failures, now), now);
                (Ended::Bad, why.as_str(), why.to_string())
            }
            Finding::Open(fault) => (Ended::Open, fault.as_str(), fault.to_string()),
        }
    }

    /// A check ended without a finding.
    pub(super) fn over(&mut self, id: &ExitId, now: Moment) {
        self.queue.ended(id, Ended::Open, now, &mut rand::rng());
    }

    fn learn(&mut self, exit: &Exit, update: impl FnOnce(&mut Known) -> ExitUpdate, now: Moment) {
        let update = update(self.untold.entry(exit.id().clone()).or_insert_with(|| exit.known().clone()));
        if self.updates.is_empty() {
            self.tell = self.tell.max(now);
        }
        self.updates.push(update);
    }

    /// The lessons that are to be told now, if any; the next ones wait a moment.
    pub(super) fn updates(&mut self, now: Moment) -> Vec<ExitUpdate> {
        if self.updates.is_empty() || self.tell > now {
            return Vec::new();
        }
        self.tell = now.after(TOGETHER);
        self.untold.clear();
        std::mem::take(&mut self.updates)
    }

    /// Answers whoever waited for a check that is over, once its lessons were told.
    pub(super) fn answer(&mut self) {
        if !self.updates.is_empty() {
            return;
        }
        for (id, checked) in std::mem::take(&mut self.answers) {
            for waiter in self.waiting.remove(&id).into_iter().flatten() {
                let _ = waiter.send(checked.clone()); // whoever asked may have left
            }
        }
    }

    /// What failed too often since this was last asked.
    pub(super) fn given_up(&mut self) -> Vec<ExitId> {
        std::mem::take(&mut self.given_up)
    }

    /// Sentences those who wait for it.
    pub(super) fn settle(&mut self, snapshot: &Snapshot, now: Moment) {
        if now.since(self.settled) < SETTLE {
            return;
        }
        self.settled = now;
        let (confirmed, again) = self.evaluator.settle(now);
        again.iter().for_each(|id| self.queue.again(id, now));
        for id in confirmed {
            if let Some(exit) = snapshot.catalog.get(&id) {
                self.learn(exit, |known| exit_update::condemned(exit, known, Why::Changes, now), now);
            }
        }
    }

    /// When there is something to do without anything coming in.
    pub(super) fn wake(&self) -> Moment {
        let tell = (!self.updates.is_empty()).then_some(self.tell);
        let settle = self.evaluator.is_unsettled().then(|| self.settled.after(SETTLE));
        let idle = self.measured.after(10 * SETTLE);
        [self.queue.wake(), tell, settle, Some(idle)].into_iter().flatten().min().unwrap_or(idle)
    }

    /// Sets the gauges, now and then.
    pub(super) fn measure(&mut self, now: Moment) {
        if now.since(self.measured) < SETTLE {
            return;
        }
        self.measured = now;
        let (running, waiting) = self.queue.load(now);
        gauge!(names::PUBLIC_CHECKS_RUNNING).set(running as f64);
        gauge!(names::PUBLIC_CHECKS_WAITING).set(waiting as f64);
    }
}

/// What is known of one that was there before this run.
fn past(exit: &Exit) -> Past {
    let known = exit.known();
    let worked = known.checked.filter(|_| known.verdict == Verdict::Good);
    Past { worked, lasts: known.public.is_some_and(|able| able.asked > 0) }
}

fn subject(exit: &Exit, snapshot: &Snapshot) -> Option<Subject> {
    let (ExitId::Public(public), Some(offer)) = (exit.id(), &exit.listing().public) else { return None };
    let carrier = match offer.through {
        Through::Direct => None,
        Through::Tor => route::carrier(&snapshot.catalog, public),
    };
    Some(Subject { id: exit.id().clone(), public: public.clone(), offer: offer.clone(), carrier })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::super::report::Works;
    use super::*;
    use crate::exit::country::GeoIp;
    use crate::exit::{Anonymity, Catalog, Offer, Protocol, PublicId};
    use crate::route::{Policy, Words};
    use crate::store::{Timings, Write};

    const START: Moment = Moment(1_788_314_400_000_000);

    fn snapshot() -> (Snapshot, ExitId) {
        let id = PublicId { protocol: Protocol::Http, addr: ([192, 0, 2, 1], 80).into() };
        let offer = Offer { list: "test".into(), login: None, through: Through::Direct };
        let listing = offer.listing(id, &GeoIp::default());
        let (id, mut edit) = (listing.id.clone(), Catalog::default().edit());
        edit.list(listing);
        let mut snapshot = Snapshot::new(Words::default(), Policy::default());
        snapshot.catalog = edit.finish();
        (snapshot, id)
    }

    fn works() -> Finding {
        let took = Duration::from_millis(9);
        let ips = vec![Ipv4Addr::new(192, 0, 2, 1).into()];
        Finding::Works(Works { ips, anonymity: Anonymity::Elite, tunnels: true, tls: true, took, connect: took })
    }

    #[test]
    fn a_second_look_before_the_first_was_told_forgets_nothing() {
        let (mut snapshot, id) = snapshot();
        let settings = Settings::of(&crate::config::Config::default().check, 10, false).unwrap();
        let geo: Geo = Arc::new(|_| crate::exit::country::Country::UNKNOWN);
        let (mut tester, mut rng) = (PublicTesterState::new(Arc::new(settings), geo), SmallRng::seed_from_u64(7));
        assert!(tester.look(&snapshot, START));
        let lasts = Finding::Lasts { passed: 17, asked: 20, why: None };
        for (finding, long) in [(works(), false), (lasts, true), (works(), false)] {
            let job = tester.next(&snapshot, START, &mut rng).unwrap();
            // Nothing was told so far, and yet it is known that it can do TLS.
            assert_eq!(matches!(job.test, Test::Long { tls: true }), long, "{job:?}");
            let report = Report { finding, heard: Vec::new(), canary: None, timings: Timings::default() };
            tester.found(&id, report, &snapshot, START, &mut rng);
            if long {
                tester.queue.again(&id, START);
            }
        }
        let updates = tester.updates(START);
        assert_eq!(updates.len(), 3);
        let rows = updates.iter().flat_map(|learned| &learned.writes);
        let asked: Vec<_> = rows.map(|write| if let Write::PutPublic(row) = write { row.asked } else { 0 }).collect();
        assert_eq!(asked, [0, 20, 20], "nor do the rows");
        let mut edit = snapshot.catalog.edit();
        updates.into_iter().for_each(|learned| _ = edit.learn(&id, learned.update));
        snapshot.catalog = edit.finish();
        let able = snapshot.catalog.get(&id).unwrap().known().public.unwrap();
        assert_eq!((able.passed, able.asked), (17, 20));
        assert!(tester.untold.is_empty());
    }
}
