//! The state of the tester of public proxies: which checks are due, which results came back, and which updates must be
//! published. No I/O: the loop in `check/worker.rs` calls this code.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use rand::seq::IteratorRandom as _;
use rand::{Rng, RngExt};

use super::super::condemnation;
use super::super::due_queue::Ended;
use super::super::exit_update::Geo;
use super::super::results::{Checked, Results, SETTLE};
use super::super::worker::{CheckState, Urgency};
use super::evaluator::PublicEvaluator;
use super::exit_update::{self, Change};
use super::report::{Job, Outcome, RejectReason, Report, Subject, Test};
use super::schedule::{LastCheck, PublicSchedule};
use super::settings::Settings;
use crate::exit::facts::Known;
use crate::exit::{Exit, ExitId, Moment, Source, Through, Verdict};
use crate::lifecycle::yielding;
use crate::route;
use crate::state::Snapshot;
use crate::telemetry::metrics as names;

/// How long updates are collected before they are published. While all proxies of a new list are tested for the first
/// time, some hundred checks end per second.
const COLLECT: Duration = Duration::from_millis(250);

/// The time between two updates of the gauges while nothing else happens.
const IDLE: Duration = Duration::from_secs(10);

pub(in crate::check) struct PublicTesterState {
    settings: Arc<Settings>,
    geo: Geo,
    schedule: PublicSchedule,
    evaluator: PublicEvaluator,
    measured: Moment,
    results: Results,
    /// The recorded facts about exits whose updates are not published yet.
    unpublished: HashMap<ExitId, Known>,
    given_up: Vec<ExitId>,
}

/// What the tester concludes from the report of one check.
struct Ruling {
    ended: Ended,
    /// The code of the outcome in the history and in metric labels.
    outcome: &'static str,
    /// Why the outcome is not good, in words.
    why: String,
    /// The addresses of the proxy that echo servers saw, newest last.
    ips: Vec<IpAddr>,
    /// The change of the recorded facts; `None` if the check changes nothing.
    change: Option<Change>,
}

impl PublicTesterState {
    pub(super) fn new(settings: Arc<Settings>, geo: Geo) -> Self {
        let evaluator = PublicEvaluator::new(settings.plain.len(), settings.secure.len(), settings.canaries.len());
        Self {
            schedule: PublicSchedule::new(settings.terms),
            settings,
            geo,
            evaluator,
            measured: Moment::default(),
            results: Results::new(COLLECT),
            unpublished: HashMap::new(),
            given_up: Vec::new(),
        }
    }

    /// Returns the proxies that were given up after too many failures. Each of them is returned once.
    pub(super) fn given_up(&mut self) -> Vec<ExitId> {
        std::mem::take(&mut self.given_up)
    }

    /// Returns the recorded facts about an exit, including the updates that are not published yet.
    fn known<'a>(&'a self, exit: &'a Exit) -> &'a Known {
        self.unpublished.get(exit.id()).unwrap_or(exit.known())
    }

    fn rule(&mut self, exit: &Exit, outcome: Outcome, now: Moment) -> Ruling {
        let worked = self.schedule.works(exit.id());
        match outcome {
            Outcome::Works(works) => {
                let ips = works.ips.clone();
                // a proxy that has failed the long test becomes good again only by passing the long test
                let doubted = self.schedule.is_doubted(exit.id());
                if worked && !doubted {
                    self.evaluator.uplink_fails(true, now);
                }
                let change = (!doubted).then(|| exit_update::good(works, &self.geo, now));
                Ruling { ended: Ended::Good, outcome: "good", why: String::new(), ips, change }
            }
            Outcome::Lasts { passed, asked, why } => {
                let well = passed >= self.settings.long.1;
                if !well && self.evaluator.uplink_fails(false, now) {
                    return Ruling::uplink();
                }
                let ips = self.known(exit).observed.last().map(|seen| seen.ip).into_iter().collect();
                let why = why.map(|why| format!("{passed} of {asked} requests: {why}")).unwrap_or_default();
                let change = Some(exit_update::lasts((passed, asked), well, &why, now));
                let (ended, outcome) =
                    if well { (Ended::Good, "lasts") } else { (Ended::Bad, RejectReason::Unreliable.as_str()) };
                Ruling { ended, outcome, why, ips, change }
            }
            Outcome::Fails(RejectReason::Intercepts) if self.evaluator.vouches_for_tls() => {
                let reason = RejectReason::Intercepts;
                Ruling::bad(reason, exit_update::condemned(exit.id(), reason, now))
            }
            Outcome::Fails(_) if worked && self.evaluator.uplink_fails(false, now) => Ruling::uplink(),
            Outcome::Fails(reason) => Ruling::bad(reason, exit_update::bad(&reason.to_string(), now)),
            Outcome::Open(fault) => Ruling::open(fault.as_str(), fault.to_string()),
        }
    }

    /// Records a change of the known facts, and the rows to store.
    fn update(&mut self, exit: &Exit, ruling: &mut Ruling, timings: crate::store::Timings, now: Moment) {
        let failures = if ruling.ended == Ended::Good { 0 } else { self.schedule.failures(exit.id()) + 1 };
        let change = ruling.change.take();
        let known = self.unpublished.entry(exit.id().clone()).or_insert_with(|| exit.known().clone());
        let (ip, outcome) = (ruling.ips.last().copied(), ruling.outcome);
        let row = exit_update::history_row(exit, outcome, &ruling.why, ip, timings, now);
        let update = exit_update::update(exit, known, change, failures, Some(row), now);
        self.results.add(update, now);
    }
}

impl Ruling {
    fn bad(reason: RejectReason, change: Change) -> Self {
        let (why, change) = (reason.to_string(), Some(change));
        Self { ended: Ended::Bad, outcome: reason.as_str(), why, ips: Vec::new(), change }
    }

    fn open(outcome: &'static str, why: String) -> Self {
        Self { ended: Ended::Open, outcome, why, ips: Vec::new(), change: None }
    }

    /// Returns the ruling on a failed check while our own connection seems to be down: nearly all proxies that worked
    /// fail at the same time.
    fn uplink() -> Self {
        Self::open(
            "line",
            "most proxies that worked fail at once: this machine's own connection seems to be down".into(),
        )
    }

    fn verdict(&self) -> Verdict {
        match self.ended {
            Ended::Good => Verdict::Good,
            Ended::Bad => Verdict::Bad,
            Ended::Open | Ended::TargetDown => Verdict::Untested,
        }
    }
}

impl CheckState for PublicTesterState {
    type Job = Job;
    type Finding = Box<Report>;

    fn exit(job: &Job) -> &ExitId {
        &job.subject.id
    }

    fn look(&mut self, snapshot: &Snapshot, now: Moment) {
        let public = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public && exit.alive());
        let public = public.inspect(|_| yielding::yield_if_due()); // there may be tens of thousands of proxies
        let listed: Vec<_> = public.map(|exit| (exit.id().clone(), last_check(exit))).collect();
        let ids: HashSet<ExitId> = listed.iter().map(|(id, _)| id.clone()).collect();
        self.schedule.list(listed, now);
        self.evaluator.keep(&ids);
        self.results.keep(|id| ids.contains(id));
        let condemned = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public);
        let ended = condemned.filter(|exit| condemnation::has_ended(exit.known(), now));
        let pardoned: Vec<_> = ended.map(|exit| exit_update::pardon(exit, now)).collect();
        self.results.add(pardoned, now);
    }

    fn hasten(&mut self, exit: &ExitId, urgency: Urgency, snapshot: &Snapshot, now: Moment) -> bool {
        if urgency == Urgency::LiveRequest {
            return self.schedule.urgent(exit, now);
        }
        if !self.schedule.knows(exit) {
            self.look(snapshot, now); // the exit was listed after the last call of `look`
        }
        if urgency == Urgency::Now { self.schedule.force(exit, now) } else { self.schedule.soon(exit, now) }
    }

    fn next<R: Rng + ?Sized>(&mut self, snapshot: &Snapshot, now: Moment, rng: &mut R) -> Option<Job> {
        loop {
            let (id, long) = self.schedule.next(now)?;
            let exit = snapshot.catalog.get(&id).filter(|exit| exit.alive());
            let Some((exit, subject)) = exit.and_then(|exit| Some((exit, subject(exit, snapshot)?))) else {
                self.schedule.ended(&id, Ended::Open, now, 0.5);
                continue;
            };
            self.results.begin(&id);
            let test = match long {
                true => Test::Long { tls: self.known(exit).public.is_some_and(|able| able.tls) },
                false => {
                    let page = (0..self.settings.canaries.len()).choose(rng);
                    Test::First { canary: page.map(|page| (page, self.evaluator.truth(page))) }
                }
            };
            return Some(Job { subject, test, echoes: self.evaluator.echoes(rng) });
        }
    }

    fn found(&mut self, id: &ExitId, report: Box<Report>, snapshot: &Snapshot, now: Moment) {
        let Report { outcome, answers, canary, timings } = *report;
        answers.into_iter().for_each(|(echo, answer)| self.evaluator.note_echo(echo, answer));
        if let Some(seen) = canary {
            let again = self.evaluator.note_canary(id, seen, now);
            again.iter().for_each(|other| self.schedule.again(other, now));
        }
        let Some(exit) = snapshot.catalog.get(id) else { return };
        let mut ruling = self.rule(exit, outcome, now);
        counter!(names::CHECKS, "source" => "public", "outcome" => ruling.outcome).increment(1);
        if let (Ended::Good, Some(connect)) = (ruling.ended, timings.connect) {
            histogram!(names::CHECK_OPEN_SECONDS, "source" => "public").record(connect);
        }
        self.update(exit, &mut ruling, timings, now);
        let verdict = ruling.verdict();
        let Ruling { ended, why, ips, .. } = ruling;
        let running = self.results.running(id);
        running.ended = Some(ended);
        running.checked = Checked { verdict, why, ips, timings, sites: Vec::new() };
    }

    fn ended<R: Rng + ?Sized>(&mut self, id: &ExitId, now: Moment, rng: &mut R) {
        let (ended, _) = self.results.end(id);
        if self.schedule.ended(id, ended, now, rng.random()) {
            counter!(names::PUBLIC_GIVEN_UP).increment(1);
            self.given_up.push(id.clone());
        }
    }

    fn settle(&mut self, snapshot: &Snapshot, now: Moment) {
        let (confirmed, again) = self.evaluator.settle(now);
        again.iter().for_each(|id| self.schedule.again(id, now));
        for exit in confirmed.iter().filter_map(|id| snapshot.catalog.get(id)) {
            let change = exit_update::condemned(exit.id(), RejectReason::Changes, now);
            let known = self.unpublished.entry(exit.id().clone()).or_insert_with(|| exit.known().clone());
            self.results.add(exit_update::update(exit, known, Some(change), 1, None, now), now);
        }
    }

    fn publishing(&mut self) {
        self.unpublished.clear();
    }

    fn results(&mut self) -> &mut Results {
        &mut self.results
    }

    fn wake(&self) -> Moment {
        let results = self.results.wake(self.evaluator.is_unsettled());
        self.schedule.wake().into_iter().chain(results).fold(self.measured.after(IDLE), Moment::min)
    }

    fn measure(&mut self, now: Moment) {
        if now.since(self.measured) >= SETTLE {
            self.measured = now;
            let (running, waiting) = self.schedule.load(now);
            gauge!(names::PUBLIC_CHECKS_RUNNING).set(running as f64);
            gauge!(names::PUBLIC_CHECKS_WAITING).set(waiting as f64);
        }
    }
}

/// Returns the facts about a proxy that were stored in the last run of the gateway.
fn last_check(exit: &Exit) -> LastCheck {
    let known = exit.known();
    let worked = known.checked.filter(|_| known.verdict == Verdict::Good);
    LastCheck { worked, lasts: known.public.is_some_and(|able| able.asked > 0) }
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
    use tokio::sync::oneshot;

    use super::super::report::Works;
    use super::*;
    use crate::check::worker::CheckRequest;
    use crate::exit::country::GeoIp;
    use crate::exit::{Anonymity, Catalog, Offer, Protocol, PublicId};
    use crate::route::{Policy, Words};
    use crate::state::ExitUpdate;
    use crate::store::{Check, Timings, Write};

    const START: Moment = Moment(1_788_314_400_000_000);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    /// A tester of one proxy that was never checked.
    struct Setup {
        snapshot: Snapshot,
        id: ExitId,
        tester: PublicTesterState,
        rng: SmallRng,
        /// The current time of the test. Each publication is later than the one before.
        now: Moment,
    }

    impl Setup {
        fn new() -> Self {
            let id = PublicId { protocol: Protocol::Http, addr: (ADDRESS, 80).into() };
            let offer = Offer { list: "test".into(), login: None, through: Through::Direct };
            let listing = offer.listing(id, &GeoIp::default());
            let (id, mut edit) = (listing.id.clone(), Catalog::default().edit());
            edit.list(listing);
            let mut snapshot = Snapshot::new(Words::default(), Policy::default());
            snapshot.catalog = edit.finish();
            let settings = Settings::of(&crate::config::Config::default().check, 10, false).unwrap();
            let geo: Geo = Arc::new(|_| crate::exit::country::Country::UNKNOWN);
            let mut tester = PublicTesterState::new(Arc::new(settings), geo);
            tester.look(&snapshot, START);
            Self { snapshot, id, tester, rng: SmallRng::seed_from_u64(7), now: START }
        }

        fn next(&mut self) -> Option<Job> {
            self.tester.next(&self.snapshot, START, &mut self.rng)
        }

        /// Ends the running check with this outcome.
        fn end(&mut self, outcome: Outcome) {
            let report = Report { outcome, answers: Vec::new(), canary: None, timings: Timings::default() };
            self.tester.found(&self.id, Box::new(report), &self.snapshot, START);
            self.tester.ended(&self.id, START, &mut self.rng);
        }

        /// Requests a check, as a caller does.
        fn ask(&mut self) -> oneshot::Receiver<Checked> {
            let (answer, checked) = oneshot::channel();
            self.tester.ask(CheckRequest::One(self.id.clone(), answer), &self.snapshot, START);
            checked
        }

        /// Publishes all updates so far, as the loop does.
        fn publish(&mut self) -> Vec<Write> {
            self.now = self.now.after(COLLECT);
            let updates = self.tester.updates(&self.snapshot, self.now);
            let mut edit = self.snapshot.catalog.edit();
            let apply = |ExitUpdate { exit, update, writes, .. }| {
                edit.learn(&exit, update);
                writes
            };
            let writes = updates.into_iter().flat_map(apply).collect();
            self.snapshot.catalog = edit.finish();
            self.tester.results().answer();
            writes
        }

        fn known(&self) -> &Known {
            self.snapshot.catalog.get(&self.id).unwrap().known()
        }
    }

    fn works() -> Outcome {
        let took = Duration::from_millis(9);
        let ips = vec![ADDRESS.into()];
        Outcome::Works(Works { ips, anonymity: Anonymity::Elite, tunnels: true, tls: true, took, connect: took })
    }

    fn fails() -> Outcome {
        Outcome::Fails(RejectReason::Disagree)
    }

    fn history(writes: &[Write]) -> Vec<&Check> {
        writes.iter().filter_map(|write| if let Write::Check(row) = write { Some(row) } else { None }).collect()
    }

    #[test]
    fn a_second_check_before_the_first_is_published_loses_nothing() {
        let mut setup = Setup::new();
        let lasts = Outcome::Lasts { passed: 17, asked: 20, why: None };
        for (outcome, long) in [(works(), false), (lasts, true), (works(), false)] {
            let job = setup.next().unwrap();
            // The tester already knows from the first test that the proxy can do TLS, although this result is not
            // published yet.
            assert_eq!(matches!(job.test, Test::Long { tls: true }), long, "{job:?}");
            setup.end(outcome);
            if long {
                setup.tester.schedule.again(&setup.id, START);
            }
        }
        let writes = setup.publish();
        let asked =
            writes.iter().filter_map(|write| if let Write::PutPublic(row) = write { Some(row.asked) } else { None });
        assert_eq!(asked.collect::<Vec<_>>(), [0, 20, 20], "the rows lose nothing either");
        let able = setup.known().public.unwrap();
        assert_eq!((able.passed, able.asked), (17, 20));
        assert!(setup.tester.unpublished.is_empty());
    }

    #[test]
    fn a_condemned_proxy_is_tested_again_after_two_weeks() {
        let mut setup = Setup::new();
        let condemned = exit_update::condemned(&setup.id, RejectReason::Changes, START);
        let mut edit = setup.snapshot.catalog.edit();
        edit.learn(&setup.id, condemned);
        setup.snapshot.catalog = edit.finish();
        let end = START.after(condemnation::CONDEMNED_FOR);
        for (now, ended) in [(Moment(end.0 - 1), false), (end, true)] {
            setup.tester.look(&setup.snapshot, now);
            let job = setup.tester.next(&setup.snapshot, now, &mut setup.rng);
            assert!(job.is_none(), "nobody tests a condemned proxy");
            setup.now = end;
            let writes = setup.publish();
            let rows = writes.iter().filter(|write| matches!(write, Write::PutPublic(row) if !row.condemned)).count();
            assert_eq!((setup.known().marks.bad_for_good, rows), (!ended, usize::from(ended)));
        }
        assert_eq!(setup.known().verdict, Verdict::Untested, "a test comes before the first use");
        setup.tester.look(&setup.snapshot, end);
        assert!(setup.tester.next(&setup.snapshot, end, &mut setup.rng).is_some());
    }

    #[test]
    fn a_check_that_ends_without_a_finding_answers_those_who_wait() {
        let mut setup = Setup::new();
        let mut checked = setup.ask();
        assert!(setup.next().is_some());
        setup.tester.ended(&setup.id, START, &mut setup.rng); // the check ends without a report, as after a panic
        assert!(setup.publish().is_empty());
        assert_eq!(checked.try_recv().map(|checked| checked.verdict), Ok(Verdict::Untested));
    }

    #[test]
    fn a_caller_is_answered_with_what_this_check_saw_after_it_is_published() {
        let mut setup = Setup::new();
        let mut checked = setup.ask();
        assert!(setup.next().is_some());
        setup.end(works());
        setup.tester.results().answer();
        assert!(checked.try_recv().is_err(), "its update is not published");
        setup.publish();
        let checked = checked.try_recv().unwrap();
        assert_eq!((checked.verdict, checked.ips), (Verdict::Good, vec![ADDRESS.into()]));
        assert_eq!(setup.known().verdict, Verdict::Good);
    }

    #[test]
    fn the_history_is_kept_of_proxies_that_have_worked_and_says_why_they_fail() {
        let mut setup = Setup::new();
        assert!(setup.next().is_some());
        setup.end(fails());
        assert_eq!(history(&setup.publish()), [] as [&Check; 0], "most proxies of a list never work");
        let why = RejectReason::Disagree.to_string();
        assert_eq!((setup.known().verdict, setup.known().why.as_deref()), (Verdict::Bad, Some(&*why)));
        for (outcome, want) in [(works(), ("good", "", Some(ADDRESS.into()))), (fails(), ("disagree", &*why, None))] {
            setup.tester.schedule.force(&setup.id, START);
            assert!(setup.next().is_some());
            setup.end(outcome);
            let writes = setup.publish();
            let row = history(&writes)[0];
            assert_eq!((&*row.outcome, &*row.detail, row.ip, &*row.target), (want.0, want.1, want.2, "echo"));
            assert_eq!(setup.known().why.is_some(), want.0 != "good");
        }
    }
}
