//! Tests of the rules of lending, and a test that runs random operations on a pool and checks that no rule is broken.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

mod classes;

const LIMITS: Limits = Limits {
    rate: 1.0,
    burst: 10,
    build: Duration::from_secs(15),
    streams: 3,
    dirty: Duration::from_secs(1800),
    idle: Duration::from_secs(600),
};

fn key(exit: u8) -> Key {
    Key { exit: Fingerprint([exit; 20]), hops: 3, lasting: None }
}

fn iso(n: u64) -> Isolation {
    Isolation(n)
}

fn client(isolation: u64) -> Requester {
    Requester { isolation: iso(isolation), class: BuildClass::Live }
}

/// A pool with a clock and a simulated tor that builds every circuit it is asked for.
struct Bed {
    pool: Pool,
    now: Instant,
    /// The circuit id that the simulated tor assigns next.
    next: u32,
}

impl Bed {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { pool: Pool::new(limits, now), now, next: 1 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pool.tick(self.now);
    }

    /// Returns the circuit builds that the pool wants to start.
    fn builds(&mut self) -> Vec<BuildId> {
        let effects = self.pool.effects();
        let builds =
            effects.iter().filter_map(|e| if let Effect::Build { build, .. } = e { Some(*build) } else { None });
        builds.collect()
    }

    fn launch(&mut self, build: BuildId) -> CircuitId {
        let id = CircuitId(self.next);
        self.next += 1;
        self.pool.launched(build, id, self.now);
        id
    }

    fn complete(&mut self, build: BuildId) -> CircuitId {
        let id = self.launch(build);
        assert!(self.pool.built(id, Arc::from([Fingerprint([9; 20])]), self.now));
        id
    }

    /// Completes every circuit build that the pool wants to start. Returns which waiting request got which circuit.
    fn complete_all(&mut self) -> Vec<(WaiterId, CircuitId)> {
        for build in self.builds() {
            self.complete(build);
        }
        let effects = self.pool.effects();
        let grants = effects.iter().filter_map(|effect| match effect {
            Effect::Grant { waiter, circuit, .. } => Some((*waiter, *circuit)),
            _ => None,
        });
        grants.collect()
    }

    fn spares(&mut self, exit: u8, count: u8) {
        self.pool.want(BTreeMap::from([(key(exit), count)]), self.now);
        self.complete_all();
    }

    fn lend(&mut self, exit: u8, isolation: u64) -> Option<CircuitId> {
        match self.pool.lend(key(exit), client(isolation), self.now)? {
            LeaseAnswer::Lent(id, _) => Some(id),
            other => panic!("lend never waits: {other:?}"),
        }
    }

    /// Asks for a circuit as a client without a deadline does.
    fn ask(&mut self, exit: u8, isolation: u64) -> LeaseAnswer {
        self.ask_for(exit, client(isolation), Duration::from_secs(86_400))
    }

    fn ask_for(&mut self, exit: u8, who: Requester, patience: Duration) -> LeaseAnswer {
        self.pool.ask(key(exit), who, self.now + patience, self.now)
    }
}

#[test]
fn a_spare_serves_whoever_comes_first_and_nobody_else_afterwards() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let first = bed.lend(1, 7).unwrap();
    assert_eq!(bed.lend(1, 7), Some(first), "the same key shares it");
    assert_eq!(bed.lend(1, 8), None, "another key never does");
    bed.pool.release(first, bed.now);
    bed.pool.release(first, bed.now);
    assert_eq!(bed.lend(1, 8), None, "not even when it is free again");
}

#[test]
fn a_spare_is_replaced_only_once_it_was_used() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 2);
    for _ in 0..100 {
        bed.pass(Duration::from_secs(60));
    }
    assert_eq!(bed.builds(), []);
    assert!(bed.lend(1, 7).is_some());
    assert_eq!(bed.builds().len(), 1);
}

#[test]
fn a_spare_that_is_being_built_is_counted_and_no_other_build_is() {
    let mut bed = Bed::new(Limits { rate: 100.0, burst: 100, ..LIMITS });
    bed.spares(1, 1);
    bed.pool.want(BTreeMap::from([(key(1), 2), (key(2), 2)]), bed.now);
    assert_eq!(bed.builds().len(), 3, "one of the first kind is there");
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.builds(), [], "all that are missing are being built");
    let spare = bed.lend(1, 7).unwrap();
    assert_eq!(bed.builds().len(), 1, "for the spare that was lent");
    bed.pool.doom(spare, bed.now);
    assert_eq!(bed.builds(), []);
    // A build for a client is no spare.
    let mut bed = Bed::new(Limits { rate: 100.0, burst: 100, ..LIMITS });
    bed.spares(1, 1);
    for _ in 0..4 {
        bed.pool.ask(key(1), Requester { class: BuildClass::Check, ..client(8) }, bed.now, bed.now);
    }
    let before = bed.pool.counts().building;
    assert_eq!(before, 2, "two circuits for four requests of checks");
    assert!(bed.lend(1, 7).is_some());
    assert_eq!(bed.pool.counts().building, before + 1, "and a new spare");
}

#[test]
fn those_who_ask_for_the_same_wait_for_one_build() {
    let mut bed = Bed::new(LIMITS);
    let waiting: Vec<_> = (0..3).map(|_| bed.ask(1, 7)).collect();
    let builds = bed.builds();
    assert_eq!(builds.len(), 1, "three fit on one circuit");
    bed.ask(1, 7);
    let more = bed.builds();
    assert_eq!(more.len(), 1, "the fourth does not");
    assert!(matches!(bed.ask(1, 8), LeaseAnswer::Wait(_)));
    assert_eq!(bed.builds().len(), 1, "another key needs its own");
    let id = bed.complete(builds[0]);
    let granted: Vec<_> = bed.pool.effects();
    for (asked, effect) in waiting.iter().zip(&granted) {
        let LeaseAnswer::Wait(waiter) = asked else { panic!() };
        assert!(matches!(effect, Effect::Grant { waiter: w, circuit, .. } if w == waiter && *circuit == id));
    }
    assert_eq!(granted.len(), 3);
}

#[test]
fn a_build_that_is_on_its_way_for_nobody_is_taken_over() {
    let mut bed = Bed::new(LIMITS);
    bed.pool.want(BTreeMap::from([(key(1), 1)]), bed.now);
    let build = bed.builds()[0];
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Wait(_)));
    bed.complete(build);
    assert!(
        matches!(bed.pool.effects()[..], [Effect::Build { .. }, Effect::Grant { .. }]),
        "a new spare begun, and granted"
    );
}

#[test]
fn a_circuit_for_somebody_who_left_is_nobodys() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    let build = bed.builds()[0];
    bed.pool.forget(waiter);
    let id = bed.complete(build);
    assert_eq!(bed.pool.effects(), []);
    assert_eq!(bed.lend(1, 8), Some(id));
}

#[test]
fn nothing_is_built_for_somebody_who_left_before_it_began() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    bed.ask(1, 1);
    let LeaseAnswer::Wait(waiter) = bed.ask(2, 1) else { panic!() };
    assert_eq!(bed.builds().len(), 1);
    bed.pool.forget(waiter);
    bed.pass(Duration::from_secs(2));
    assert_eq!(bed.builds(), []);
    assert_eq!(bed.pool.counts().building, 1);
}

#[test]
fn the_pace_is_kept_and_those_who_wait_come_first() {
    let mut bed = Bed::new(LIMITS);
    let wanted = (1..=20).map(|exit| (key(exit), 1)).collect();
    bed.pool.want(wanted, bed.now);
    assert_eq!(bed.builds().len(), 5, "spares take half of the burst");
    bed.ask(99, 7);
    let effects = bed.pool.effects();
    assert!(matches!(effects[..], [Effect::Build { key: k, .. }] if k == key(99)), "{effects:?}");
    let mut later = 0;
    for _ in 0..5 {
        bed.pass(Duration::from_secs(1));
        later += bed.builds().len();
    }
    assert_eq!(later, 4, "one a second, and the second that was spent on the request is missing");
    assert!(bed.pool.next_start(bed.now).is_some_and(|wait| wait <= Duration::from_secs(1)));
}

#[test]
fn a_queued_spare_that_a_client_takes_over_is_built_once() {
    let mut bed = Bed::new(Limits { burst: 2, ..LIMITS });
    bed.pool.want(BTreeMap::from([(key(1), 1), (key(2), 1)]), bed.now);
    let mut begun = bed.builds();
    assert_eq!(begun.len(), 1, "the other spare waits in the queue");
    assert!(matches!(bed.ask(2, 7), LeaseAnswer::Wait(_)));
    for _ in 0..10 {
        begun.extend(bed.builds());
        bed.pass(Duration::from_millis(250));
    }
    assert_eq!(begun.iter().collect::<HashSet<_>>().len(), begun.len(), "{begun:?}");
    assert_eq!(begun.len(), 3, "two spares, and one to replace the spare that was taken");
}

#[test]
fn new_limits_apply_to_circuits_and_builds_that_exist() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let first = bed.lend(1, 7);
    bed.pool.set_limits(Limits { streams: 1, burst: 1, ..LIMITS });
    bed.pool.want(BTreeMap::new(), bed.now);
    assert!(first.is_some() && bed.lend(1, 7).is_none_or(|id| Some(id) != first), "one stream on each circuit");
    (2..6).for_each(|exit| _ = bed.ask(exit, 7));
    assert!(bed.builds().len() <= 2, "the burst is smaller");
}

#[test]
fn the_list_of_circuits_shows_the_state_of_each() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let of = |bed: &Bed, id: CircuitId| {
        let view = bed.pool.views(bed.now).into_iter().find(|view| view.id == id).unwrap();
        (view.state, view.streams, view.age.as_secs())
    };
    let id = bed.pool.views(bed.now)[0].id;
    assert_eq!((bed.pool.views(bed.now).len(), of(&bed, id)), (1, ("spare", 0, 0)));
    assert_eq!(bed.lend(1, 7), Some(id));
    bed.now += LIMITS.dirty - Duration::from_secs(1);
    assert_eq!(of(&bed, id), ("used", 1, 1799));
    bed.now += Duration::from_secs(1);
    assert_eq!(of(&bed, id), ("dirty", 1, 1800));
    bed.pool.doom(id, bed.now);
    assert_eq!(of(&bed, id), ("doomed", 1, 1800));
}

#[test]
fn the_pool_knows_its_circuits_and_its_builds() {
    let mut bed = Bed::new(LIMITS);
    bed.ask(1, 7);
    let build = bed.builds()[0];
    let id = bed.launch(build);
    assert!(bed.pool.knows(id) && !bed.pool.has(id), "it is being built");
    assert!(bed.pool.built(id, Arc::from([]), bed.now));
    assert!(bed.pool.knows(id) && bed.pool.has(id));
    assert!(!bed.pool.knows(CircuitId(999)));
    bed.pool.gone(id, LeaseFault::Lost, bed.now);
    assert!(!bed.pool.knows(id));
}

#[test]
fn a_failed_build_is_tried_again_and_then_everybody_is_told() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    for _ in 0..ATTEMPTS {
        let builds = bed.builds();
        assert_eq!(builds.len(), 1);
        let id = bed.launch(builds[0]);
        bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
    }
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::Unreachable }]);
    assert_eq!(bed.pool.counts(), Counts::default());
}

#[test]
fn a_request_is_refused_only_when_its_last_build_has_failed() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    let slow = bed.builds()[0];
    let slow = bed.launch(slow);
    for _ in 0..ATTEMPTS {
        bed.pass(SLOW_BUILD);
        let second = bed.builds();
        assert_eq!(second.len(), 1, "a second build beside the slow one");
        let second = bed.launch(second[0]);
        bed.pool.gone(second, LeaseFault::Unreachable, bed.now);
        assert_eq!(bed.pool.effects(), [], "the slow build may succeed");
    }
    bed.pool.gone(slow, LeaseFault::Middle, bed.now);
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::Middle }]);
}

#[test]
fn builds_for_others_give_no_hope() {
    let mut bed = Bed::new(LIMITS);
    bed.ask(2, 7); // the same client at another exit
    bed.ask(1, 8); // another client at the same exit
    bed.builds().into_iter().for_each(|build| _ = bed.launch(build));
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    for _ in 0..ATTEMPTS {
        let build = bed.builds()[0];
        let id = bed.launch(build);
        bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
    }
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::Unreachable }]);
}

#[test]
fn where_no_path_exists_nobody_waits_for_a_second_try() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    let build = bed.builds()[0];
    bed.pool.build_failed(build, LeaseFault::NoPath, bed.now);
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::NoPath }]);
}

#[test]
fn a_slow_build_gets_company_and_a_hung_one_is_given_up() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.ask(1, 7) else { panic!() };
    let slow = bed.builds()[0];
    let slow_id = bed.launch(slow);
    bed.pass(SLOW_BUILD);
    let second = bed.builds();
    assert_eq!(second.len(), 1);
    let id = bed.complete(second[0]);
    assert!(
        matches!(bed.pool.effects()[..], [Effect::Grant { waiter: w, circuit, .. }] if w == waiter && circuit == id)
    );
    bed.pass(LIMITS.build);
    assert_eq!(bed.pool.effects(), [Effect::Close(slow_id)]);
    assert_eq!(bed.pool.counts().building, 0);
}

#[test]
fn a_doomed_circuit_is_used_only_while_there_is_nothing_better() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(_) = bed.ask(1, 7) else { panic!() };
    let doomed = bed.complete_all()[0].1;
    bed.pool.doom(doomed, bed.now);
    assert_eq!(bed.lend(1, 7), None);
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Lent(id, _) if id == doomed));
    let better = bed.builds();
    assert_eq!(better.len(), 1, "a replacement is on its way");
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Lent(id, _) if id == doomed));
    assert_eq!(bed.builds(), [], "and only one");
    let better = bed.complete(better[0]);
    assert_eq!(bed.lend(1, 7), Some(better));
    for _ in 0..3 {
        bed.pool.release(doomed, bed.now);
    }
    assert_eq!(bed.pool.effects(), [Effect::Close(doomed)], "gone with its last stream");
}

#[test]
fn a_circuit_takes_as_many_streams_as_the_limit_says() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let id = bed.lend(1, 7).unwrap();
    bed.pool.want(BTreeMap::new(), bed.now);
    bed.builds();
    assert_eq!([bed.lend(1, 7), bed.lend(1, 7), bed.lend(1, 7)], [Some(id), Some(id), None], "three streams");
    bed.pool.doom(id, bed.now);
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Wait(_)), "nor does a doomed circuit take a fourth");
    bed.pool.release(id, bed.now);
    assert!(matches!(bed.ask(1, 8), LeaseAnswer::Wait(_)), "it belongs to another key");
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Lent(lent, _) if lent == id));
    bed.pool.release(id, bed.now);
    bed.pool.hang(id, bed.now);
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Wait(_)), "a stream on it got no answer");
}

#[test]
fn a_dial_may_test_its_exit_on_a_circuit_that_takes_no_more_streams() {
    let mut bed = Bed::new(LIMITS);
    let path = [1, 2, 3].map(|n| Fingerprint([n; 20]));
    bed.ask(1, 7);
    let build = bed.builds()[0];
    let id = bed.launch(build);
    assert_eq!(bed.pool.lend_again(id, bed.now), None, "it is being built");
    assert!(bed.pool.built(id, path.into(), bed.now));
    bed.pool.hang(id, bed.now);
    assert_eq!(bed.pool.lend_again(id, bed.now).as_deref(), Some(&path[..]));
    assert_eq!(bed.pool.counts().streams, 2);
    assert_eq!(bed.pool.over([path[0], path[1]]), [id]);
    assert_eq!(bed.pool.over([path[1], path[2]]), []);
    bed.pool.effects();
    bed.pool.release(id, bed.now);
    assert_eq!(bed.pool.effects(), [], "one stream is left");
    bed.pool.release(id, bed.now);
    assert_eq!(bed.pool.effects(), [Effect::Close(id)]);
}

#[test]
fn the_first_stream_that_reaches_its_target_proves_a_circuit() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let id = bed.lend(1, 7).unwrap();
    assert!(bed.pool.prove(id) && !bed.pool.prove(id), "only the first");
    assert!(!bed.pool.prove(CircuitId(999)));
}

#[test]
fn streams_spread_over_circuits_when_one_is_busy() {
    let mut bed = Bed::new(Limits { streams: 64, ..LIMITS });
    bed.spares(1, 1);
    let first = bed.lend(1, 7).unwrap();
    bed.complete_all(); // completes the build of the spare that replaces the lent circuit
    assert_eq!(bed.lend(1, 7), Some(first), "not busy yet");
    bed.pool.carried(first, BUSY_BYTES + 1, bed.now);
    let second = bed.lend(1, 7).unwrap();
    assert_ne!(first, second);
    bed.pass(Duration::from_secs(5));
    bed.pool.release(first, bed.now);
    bed.pool.release(first, bed.now);
    assert_eq!(bed.lend(1, 7), Some(first), "no longer busy, and less loaded");
    let mut used = HashSet::new();
    for _ in 0..100 {
        bed.complete_all();
        used.extend(bed.lend(1, 7));
    }
    assert_eq!(used.len(), PARALLEL, "but not over ever more of them");
}

#[test]
fn a_circuit_is_busy_from_eight_streams_or_while_it_carries_much() {
    let mut bed = Bed::new(Limits { streams: 64, ..LIMITS });
    bed.spares(1, 1);
    let id = bed.lend(1, 7).unwrap();
    let busy = |bed: &Bed| bed.pool.circuits[&id].is_busy(bed.now);
    bed.pool.carried(id, BUSY_BYTES, bed.now);
    assert!(!busy(&bed), "half of what a circuit can carry");
    bed.pool.carried(id, BUSY_BYTES + 1, bed.now);
    assert!(busy(&bed));
    bed.now += Duration::from_millis(2999);
    assert!(busy(&bed), "tor reports once a second, and a report may be late");
    bed.now += Duration::from_millis(1);
    assert!(!busy(&bed), "no report for three seconds: nothing is carried");
    (1..7).for_each(|_| _ = bed.pool.lend_again(id, bed.now));
    assert!(!busy(&bed), "seven streams");
    bed.pool.lend_again(id, bed.now);
    assert!(busy(&bed), "eight streams");
}

#[test]
fn used_circuits_grow_old_and_idle_spares_do_not() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let used = bed.lend(1, 7).unwrap();
    bed.complete_all();
    bed.pass(LIMITS.dirty);
    assert_eq!(bed.pool.effects(), [], "it still has a stream");
    assert_ne!(bed.lend(1, 7), Some(used), "but takes no new one");
    bed.pool.release(used, bed.now);
    assert!(bed.pool.effects().contains(&Effect::Close(used)));
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 2);
    let idle = bed.lend(1, 7).unwrap();
    bed.pool.release(idle, bed.now);
    bed.pool.effects();
    bed.pass(LIMITS.idle);
    assert!(bed.pool.effects().contains(&Effect::Close(idle)));
    assert_eq!(bed.pool.counts().spares, 1);
}

#[test]
fn a_spare_that_is_no_longer_wanted_is_kept_for_a_while() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 2);
    bed.pass(LIMITS.idle * 3);
    assert_eq!(bed.pool.counts().spares, 2, "wanted ones do not age");
    bed.spares(2, 1);
    bed.pass(LIMITS.idle / 2);
    assert_eq!(bed.pool.counts().spares, 3);
    bed.pass(LIMITS.idle / 2);
    assert_eq!((bed.pool.counts().spares, bed.builds()), (1, vec![]));
}

#[test]
fn what_is_wanted_does_not_keep_other_circuits_alive() {
    let mut bed = Bed::new(LIMITS);
    bed.ask(2, 7);
    let used = bed.complete_all()[0].1;
    bed.pool.release(used, bed.now);
    bed.pass(LIMITS.idle / 2);
    bed.spares(1, 1);
    bed.pass(LIMITS.idle / 2);
    assert!(bed.pool.effects().contains(&Effect::Close(used)), "idle for the whole time");
}

#[test]
fn a_queued_build_that_is_no_longer_wanted_is_dropped() {
    let mut bed = Bed::new(Limits { burst: 2, ..LIMITS });
    bed.pool.want((1..=4).map(|exit| (key(exit), 1)).collect(), bed.now);
    assert_eq!((bed.builds().len(), bed.pool.counts().building), (1, 4));
    bed.pool.want((1..=2).map(|exit| (key(exit), 1)).collect(), bed.now);
    assert_eq!((bed.builds().len(), bed.pool.counts().building), (0, 2), "one has begun, one is queued");
    let mut begun = 0;
    for _ in 0..60 {
        bed.pass(Duration::from_millis(200));
        begun += bed.builds().len();
    }
    assert_eq!(begun, 1);
}

#[test]
fn what_goes_over_a_link_that_is_silent_is_lent_to_nobody() {
    let mut bed = Bed::new(LIMITS);
    let relay = |n: u8| Fingerprint([n; 20]);
    bed.pool.want(BTreeMap::from([(key(1), 4)]), bed.now);
    let ids: Vec<_> = bed.builds().into_iter().map(|build| bed.launch(build)).collect();
    let paths = [[1, 2, 8], [1, 2, 9], [1, 3, 8], [1, 8, 9]];
    for (id, path) in ids.iter().zip(paths) {
        assert!(bed.pool.built(*id, path.map(relay).into(), bed.now));
    }
    let over = |n: u8| bed.pool.links_over(relay(n));
    assert_eq!(over(8), [[relay(1), relay(2)], [relay(1), relay(3)], [relay(1), relay(8)]]);
    assert_eq!((over(1), over(4)), (vec![], vec![]), "the guard is everybody's");
    assert_eq!(bed.pool.link(ids[3]), Some([relay(1), relay(8)]));

    let used = bed.lend(1, 7).unwrap();
    assert_eq!(used, ids[0]);
    let mut hung = bed.pool.hang_over([relay(1), relay(2)], bed.now);
    hung.sort();
    assert_eq!(hung, ids[..2]);
    let effects = bed.pool.effects();
    assert!(effects.contains(&Effect::Close(ids[1])) && !effects.contains(&Effect::Close(used)), "{effects:?}");
    assert!(bed.lend(1, 7).is_some_and(|id| id != used));
    assert_eq!(bed.pool.hang_over([relay(1), relay(2)], bed.now), [], "once");
    bed.pool.release(used, bed.now);
    assert!(bed.pool.effects().contains(&Effect::Close(used)));
}

#[test]
fn when_the_guard_is_silent_requests_are_refused_and_builds_go_on() {
    let mut bed = Bed::new(LIMITS);
    let waiting: Vec<_> = (1..=2).map(|exit| bed.ask(exit, 7)).collect();
    let builds = bed.builds();
    bed.pool.refuse_all(LeaseFault::FirstHop);
    let refused = bed.pool.effects();
    for asked in waiting {
        let LeaseAnswer::Wait(waiter) = asked else { panic!() };
        assert!(refused.contains(&Effect::Refuse { waiter, fault: LeaseFault::FirstHop }), "{refused:?}");
    }
    assert_eq!(refused.len(), 2);
    builds.into_iter().for_each(|build| _ = bed.complete(build));
    assert_eq!((bed.pool.counts().spares, bed.pool.effects()), (2, vec![]), "their circuits serve who comes next");
}

#[test]
fn the_oldest_question_to_tor_and_to_the_relays_is_known() {
    let mut bed = Bed::new(LIMITS);
    let start = bed.now;
    let after = |seconds| Some(start + Duration::from_secs(seconds));
    assert_eq!((bed.pool.oldest_command(), bed.pool.oldest_unanswered()), (None, None));
    bed.ask(1, 7);
    let first = bed.builds()[0];
    bed.now += Duration::from_secs(1);
    bed.ask(2, 7);
    let second = bed.builds()[0];
    assert_eq!((bed.pool.oldest_command(), bed.pool.oldest_unanswered()), (after(0), None), "tor has not answered");
    bed.now += Duration::from_secs(1);
    let first = bed.launch(first);
    assert_eq!((bed.pool.oldest_command(), bed.pool.oldest_unanswered()), (after(1), after(2)));
    bed.now += Duration::from_secs(1);
    let second = bed.launch(second);
    assert_eq!((bed.pool.oldest_command(), bed.pool.oldest_unanswered()), (None, after(2)));
    bed.pool.extended(first, 1, bed.now);
    assert_eq!(bed.pool.oldest_unanswered(), after(3), "a relay answered the first build");
    bed.pool.extended(second, 1, bed.now);
    assert_eq!(bed.pool.oldest_unanswered(), None);
}

#[test]
fn nothing_is_lent_through_a_guard_that_is_down() {
    let mut bed = Bed::new(LIMITS);
    let relay = |n: u8| Fingerprint([n; 20]);
    bed.pool.want(BTreeMap::from([(key(1), 3)]), bed.now);
    let ids: Vec<_> = bed.builds().into_iter().map(|build| bed.launch(build)).collect();
    for (id, path) in ids.iter().zip([[1, 2, 8], [1, 3, 8], [4, 2, 8]]) {
        assert!(bed.pool.built(*id, path.map(relay).into(), bed.now));
    }
    let used = bed.lend(1, 7).unwrap();
    let mut hung = bed.pool.hang_through(relay(1), bed.now);
    hung.sort();
    assert_eq!((used, &hung[..]), (ids[0], &ids[..2]), "all circuits through this guard");
    let effects = bed.pool.effects();
    assert!(effects.contains(&Effect::Close(ids[1])) && !effects.contains(&Effect::Close(used)), "{effects:?}");
    assert_eq!(bed.lend(1, 7), Some(ids[2]), "only the circuit through the other guard is left");
}

#[test]
fn an_exit_that_is_down_is_not_hammered_for_the_sake_of_spares() {
    let mut bed = Bed::new(Limits { rate: 100.0, burst: 100, ..LIMITS });
    bed.pool.want(BTreeMap::from([(key(1), 1)]), bed.now);
    let mut tries = 0;
    for _ in 0..3600 {
        for build in bed.builds() {
            tries += 1;
            let id = bed.launch(build);
            bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
        }
        bed.pass(Duration::from_secs(1));
    }
    assert!((5..=15).contains(&tries), "{tries} tries in an hour");
    assert!(matches!(bed.ask(1, 7), LeaseAnswer::Wait(_)));
    assert_eq!(bed.builds().len(), 1, "somebody who waits is another matter");
}

#[test]
fn a_spare_that_died_unused_is_replaced_after_a_pause() {
    // Fields: how many builds to the same exit failed just before, and the pause in seconds.
    for (failures, pause) in [(0, 10), (2, 40)] {
        let mut bed = Bed::new(Limits { rate: 100.0, burst: 100, ..LIMITS });
        bed.spares(1, 1);
        let spare = bed.pool.views(bed.now)[0].id;
        bed.pool.want(BTreeMap::from([(key(1), 2)]), bed.now);
        for _ in 0..failures {
            let build = loop {
                match bed.builds()[..] {
                    [build, ..] => break build,
                    _ => bed.pass(Duration::from_secs(1)),
                }
            };
            let id = bed.launch(build);
            bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
        }
        bed.builds();
        bed.pool.gone(spare, LeaseFault::Lost, bed.now);
        bed.pass(Duration::from_secs(pause) - Duration::from_millis(1));
        assert_eq!(bed.builds(), [], "{failures}");
        bed.pass(Duration::from_millis(1));
        assert!(!bed.builds().is_empty(), "{failures}");
    }
}

#[test]
fn failed_builds_of_spares_are_forgotten_after_ten_more_minutes() {
    for (quiet, pause) in [(Duration::from_secs(610) - Duration::from_millis(1), 20), (Duration::from_secs(610), 10)] {
        let mut bed = Bed::new(Limits { rate: 100.0, burst: 100, ..LIMITS });
        let fail = |bed: &mut Bed| {
            bed.pool.want(BTreeMap::from([(key(1), 1)]), bed.now);
            let build = bed.builds()[0];
            let id = bed.launch(build);
            bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
        };
        fail(&mut bed);
        bed.pool.want(BTreeMap::new(), bed.now);
        bed.pass(quiet);
        fail(&mut bed);
        bed.pass(Duration::from_secs(pause) - Duration::from_millis(1));
        assert_eq!(bed.builds(), [], "{quiet:?}");
        bed.pass(Duration::from_millis(1));
        assert_eq!(bed.builds().len(), 1, "{quiet:?}");
    }
}

#[test]
fn the_time_of_the_next_build_is_that_of_the_queue_that_has_builds() {
    let mut bed = Bed::new(LIMITS);
    assert_eq!(bed.pool.next_start(bed.now), None, "nothing waits");
    (0..11).for_each(|exit| _ = bed.ask(exit, 7));
    assert_eq!(bed.pool.next_start(bed.now), Some(Duration::from_secs(1)), "the eleventh waits for a token");
    let mut bed = Bed::new(LIMITS);
    bed.pool.want((0..6).map(|exit| (key(exit), 1)).collect(), bed.now);
    assert_eq!(bed.pool.next_start(bed.now), Some(Duration::from_secs(1)), "a spare waits for half of the burst");
}

#[test]
fn when_the_engine_is_lost_everybody_is_told() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    let LeaseAnswer::Wait(waiter) = bed.ask(2, 7) else { panic!() };
    bed.pool.lost();
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::Lost }]);
    assert_eq!(bed.pool.counts(), Counts::default());
    assert_eq!(bed.lend(1, 7), None);
}

proptest! {
    #[test]
    fn a_random_life_breaks_no_rule(steps in proptest::collection::vec((0u8..9, 0u8..3, 0u64..3), 1..300)) {
        let mut bed = Bed::new(Limits { rate: 5.0, burst: 4, ..LIMITS });
        bed.pool.want((0..2).map(|exit| (key(exit), 2)).collect(), bed.now);
        let mut started = Vec::<BuildId>::new();
        let mut launched = Vec::<CircuitId>::new();
        let mut owner = HashMap::<CircuitId, Isolation>::new();
        let mut waiting = HashMap::<WaiterId, Isolation>::new();
        let mut held = Vec::<CircuitId>::new();
        let mut closed = HashSet::<CircuitId>::new();
        for (step, exit, isolation) in steps {
            let pick = |len: usize| (usize::from(exit) * 3 + isolation as usize) % len.max(1);
            match step {
                0 | 1 => match bed.ask(exit, isolation) {
                    LeaseAnswer::Lent(id, _) => {
                        prop_assert!(!closed.contains(&id), "lent after its end");
                        prop_assert_eq!(*owner.entry(id).or_insert(iso(isolation)), iso(isolation));
                        held.push(id);
                    }
                    LeaseAnswer::Wait(waiter) => { waiting.insert(waiter, iso(isolation)); }
                    LeaseAnswer::Busy => prop_assert!(false, "a client with much patience is not refused"),
                },
                2 if !started.is_empty() => {
                    let build = started.remove(pick(started.len()));
                    launched.push(bed.launch(build));
                }
                3 if !launched.is_empty() => {
                    let id = launched.remove(pick(launched.len()));
                    bed.pool.built(id, Arc::from([]), bed.now);
                }
                4 if !launched.is_empty() => {
                    let id = launched.remove(pick(launched.len()));
                    bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
                    closed.insert(id);
                }
                5 if !held.is_empty() => bed.pool.release(held.remove(pick(held.len())), bed.now),
                6 if !held.is_empty() => {
                    let id = held[pick(held.len())];
                    if exit == 0 { bed.pool.doom(id, bed.now) } else { bed.pool.gone(id, LeaseFault::Unreachable, bed.now); closed.insert(id); }
                }
                7 => if let Some(waiter) = waiting.keys().next().copied() {
                    waiting.remove(&waiter);
                    bed.pool.forget(waiter);
                },
                _ => bed.pass(Duration::from_secs(u64::from(exit) * 400 + 1)),
            }
            for effect in bed.pool.effects() {
                match effect {
                    Effect::Build { build, .. } => started.push(build),
                    Effect::Close(id) => { closed.insert(id); launched.retain(|other| *other != id); }
                    Effect::Grant { waiter, circuit, .. } => {
                        let isolation = waiting.remove(&waiter);
                        prop_assert!(isolation.is_some(), "told twice, or after leaving");
                        prop_assert_eq!(*owner.entry(circuit).or_insert(isolation.unwrap()), isolation.unwrap());
                        held.push(circuit);
                    }
                    Effect::Refuse { waiter, .. } => prop_assert!(waiting.remove(&waiter).is_some(), "told twice, or after leaving"),
                }
            }
            held.retain(|id| !closed.contains(id));
            prop_assert_eq!(bed.pool.counts().streams, held.len());
            for view in bed.pool.views(bed.now) {
                prop_assert!(view.streams <= LIMITS.streams);
            }
        }
        bed.pool.lost();
        let told = bed.pool.effects().len();
        prop_assert_eq!(told, waiting.len(), "whoever still waited is told");
    }
}

#[test]
fn a_build_that_hangs_blames_the_last_relay_that_may_be_silent() {
    // Fields: the number of relays that answered the build, whether the guard answered another build afterwards, and
    // the fault that the request gets.
    for (reached, heard_later, want) in [
        (0, false, LeaseFault::FirstHop),
        (0, true, LeaseFault::FirstHop),
        (1, true, LeaseFault::Middle),
        (1, false, LeaseFault::FirstHop),
        (2, true, LeaseFault::Unreachable),
        (2, false, LeaseFault::FirstHop),
    ] {
        let mut bed = Bed::new(Limits { burst: 1, rate: 0.02, ..LIMITS });
        let LeaseAnswer::Wait(waiter) = bed.ask(1, 1) else { panic!("there is no circuit") };
        for attempt in 1..=ATTEMPTS {
            let build = loop {
                match bed.builds()[..] {
                    [build, ..] => break build,
                    _ => bed.pass(Duration::from_secs(5)),
                }
            };
            let circuit = bed.launch(build);
            if reached > 0 {
                bed.pool.extended(circuit, reached, bed.now);
            }
            if heard_later {
                bed.now += Duration::from_secs(1);
                bed.pool.extended(CircuitId(9999), 1, bed.now);
            }
            bed.now += LIMITS.build;
            bed.pool.tick(bed.now);
            let refused = bed.pool.effects.contains(&Effect::Refuse { waiter, fault: want });
            assert_eq!(refused, attempt == ATTEMPTS, "{reached} {heard_later}, attempt {attempt}");
        }
    }
}
