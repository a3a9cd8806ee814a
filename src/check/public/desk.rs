//! The judge's desk: what is due, what came back, what is to be told. No I/O: the worker in `check/public.rs` moves
//! things.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use rand::Rng;
use rand::seq::IteratorRandom as _;
use tokio::sync::oneshot;

use super::super::desk::Checked;
use super::super::lesson::Geo;
use super::court::Court;
use super::lesson;
use super::queue::{Ended, Past, Queue};
use super::report::{Finding, Job, Report, Subject, Test, Why};
use super::settings::Settings;
use crate::exit::{Exit, ExitId, Moment, Source, Through, Verdict};
use crate::route;
use crate::state::{Learned, Snapshot};
use crate::telemetry::metrics as names;

/// How long lessons are collected before they are told together: every telling makes a new snapshot, and a first pass
/// brings some hundred a second.
const TOGETHER: Duration = Duration::from_millis(250);

/// How often the catalog is looked at, if it changes all the time.
const LOOK: Duration = Duration::from_millis(500);

/// How often what waits for a sentence is looked at, and gauges set.
const SETTLE: Duration = Duration::from_secs(1);

/// See above.
pub(super) struct Desk {
    settings: Arc<Settings>,
    geo: Geo,
    queue: Queue,
    court: Court,
    looked: Moment,
    settled: Moment,
    measured: Moment,
    lessons: Vec<Learned>,
    /// When they are told.
    tell: Moment,
    given_up: Vec<ExitId>,
    waiting: HashMap<ExitId, Vec<oneshot::Sender<Checked>>>,
    /// Answers for those who wait, told after the lessons.
    answers: Vec<(ExitId, Checked)>,
}

impl Desk {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let court = Court::new(settings.plain.len(), settings.secure.len(), settings.canaries.len());
        let queue = Queue::new(settings.terms);
        let (lessons, given_up, answers, waiting) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let start = Moment(0);
        let (looked, settled, measured, tell) = (start, start, start, start);
        Self { settings, geo, queue, court, looked, settled, measured, lessons, tell, given_up, waiting, answers }
    }

    /// Looks at the catalog, if it is time; true if it was.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Moment) -> bool {
        if now < self.looks_at() {
            return false;
        }
        self.looked = now;
        let public = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public && exit.alive());
        let listed: Vec<_> = public.map(|exit| (exit.id().clone(), past(exit))).collect();
        self.queue.list(&listed, now);
        let ids: HashSet<ExitId> = listed.into_iter().map(|(id, _)| id).collect();
        self.court.keep(&ids);
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
            let able = exit.known().public;
            let test = match long {
                true => Test::Long { tls: able.is_some_and(|able| able.tls) },
                false => {
                    let page = (0..self.settings.canaries.len()).choose(rng);
                    Test::First { canary: page.map(|page| (page, self.court.truth(page))) }
                }
            };
            return Some(Job { subject, test, echoes: self.court.echoes(rng) });
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
        heard.into_iter().for_each(|(echo, answer)| self.court.hear(echo, answer));
        if let Some(seen) = canary {
            let again = self.court.look(id, seen, now);
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
                    self.court.weather(true, now);
                }
                self.learn(lesson::good(exit, works, &self.geo, now), now);
                (Ended::Good, "good", String::new())
            }
            Finding::Lasts { passed, asked, why } => {
                let (_, needed) = self.settings.long;
                let well = passed >= needed;
                if !well && self.court.weather(false, now) {
                    return (Ended::Open, "line", "our own line is down, it seems".to_owned());
                }
                self.learn(lesson::lasts(exit, (passed, asked), well, failures, now), now);
                let (ended, word) = if well { (Ended::Good, "lasts") } else { (Ended::Bad, Why::Unreliable.as_str()) };
                (ended, word, why.map(|why| format!("{passed} of {asked} requests: {why}")).unwrap_or_default())
            }
            Finding::Fails(Why::Intercepts) if self.court.vouches_for_tls() => {
                self.learn(lesson::condemned(exit, Why::Intercepts, now), now);
                (Ended::Bad, Why::Intercepts.as_str(), Why::Intercepts.to_string())
            }
            Finding::Fails(why) => {
                if worked && self.court.weather(false, now) {
                    return (Ended::Open, "line", "our own line is down, it seems".to_owned());
                }
                self.learn(lesson::bad(exit, failures, now), now);
                (Ended::Bad, why.as_str(), why.to_string())
            }
            Finding::Open(fault) => (Ended::Open, fault.as_str(), fault.to_string()),
        }
    }

    /// A check ended without a finding.
    pub(super) fn over(&mut self, id: &ExitId, now: Moment) {
        self.queue.ended(id, Ended::Open, now, &mut rand::rng());
    }

    fn learn(&mut self, lesson: Learned, now: Moment) {
        if self.lessons.is_empty() {
            self.tell = self.tell.max(now);
        }
        self.lessons.push(lesson);
    }

    /// The lessons that are to be told now, if any; the next ones wait a moment.
    pub(super) fn lessons(&mut self, now: Moment) -> Vec<Learned> {
        if self.lessons.is_empty() || self.tell > now {
            return Vec::new();
        }
        self.tell = now.after(TOGETHER);
        std::mem::take(&mut self.lessons)
    }

    /// Answers whoever waited for a check that is over, once its lessons were told.
    pub(super) fn answer(&mut self) {
        if !self.lessons.is_empty() {
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
        let (guilty, again) = self.court.settle(now);
        again.iter().for_each(|id| self.queue.again(id, now));
        for id in guilty {
            if let Some(exit) = snapshot.catalog.get(&id) {
                self.learn(lesson::condemned(exit, Why::Changes, now), now);
            }
        }
    }

    /// When there is something to do without anything coming in.
    pub(super) fn wake(&self) -> Moment {
        let tell = (!self.lessons.is_empty()).then_some(self.tell);
        let settle = self.court.is_unsettled().then(|| self.settled.after(SETTLE));
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
