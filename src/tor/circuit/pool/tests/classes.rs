//! Tests of the classes of builds, and of the requests that are refused because their build would begin too late.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn tester() -> Requester {
    Requester { isolation: iso(u64::MAX), class: BuildClass::Check }
}

impl Bed {
    fn check(&mut self, exit: u8) -> LeaseAnswer {
        self.ask_for(exit, tester(), 60 * SECOND)
    }

    /// Returns the exits of the builds that the pool began, in order.
    fn begun(&mut self) -> Vec<u8> {
        let effects = self.pool.effects();
        effects
            .iter()
            .filter_map(|e| if let Effect::Build { key, .. } = e { Some(key.exit.0[0]) } else { None })
            .collect()
    }
}

#[test]
fn a_client_does_not_wait_behind_checks_and_spares() {
    let mut bed = Bed::new(LIMITS);
    (100..150).for_each(|exit| _ = bed.check(exit));
    assert_eq!(bed.begun(), [100, 101], "most of the burst stays");
    bed.pool.want((50..90).map(|exit| (key(exit), 1)).collect(), bed.now);
    assert_eq!(bed.begun(), [50, 51, 52], "half of the burst stays");
    (1..=5).for_each(|exit| _ = bed.ask(exit, 7));
    assert_eq!(bed.begun(), [1, 2, 3, 4, 5]);
    (6..=10).for_each(|exit| _ = bed.ask(exit, 7));
    for exit in 6..=10 {
        bed.pass(SECOND);
        assert_eq!(bed.begun(), [exit], "the next token is the client's");
    }
}

#[test]
fn checks_and_spares_get_their_share_while_clients_take_everything() {
    let mut bed = Bed::new(LIMITS);
    for client in 0..600 {
        bed.pool.ask(
            key(1),
            Requester { isolation: iso(client), ..tester_as_client() },
            bed.now + 86_400 * SECOND,
            bed.now,
        );
    }
    bed.pool.want((50..90).map(|exit| (key(exit), 1)).collect(), bed.now);
    (100..150).for_each(|exit| _ = bed.check(exit));
    let first = bed.begun();
    assert!(first.len() == 10 && first.iter().all(|exit| *exit == 1), "{first:?}");
    let mut begun = Vec::new();
    for _ in 0..90 {
        bed.pass(SECOND);
        begun.extend(bed.begun());
    }
    let of = |class: std::ops::Range<u8>| begun.iter().filter(|exit| class.contains(exit)).count();
    assert_eq!(begun.len(), 90);
    assert_eq!((of(50..90), of(100..150), of(1..2)), (11, 11, 68));
}

fn tester_as_client() -> Requester {
    Requester { class: BuildClass::Live, ..tester() }
}

#[test]
fn a_check_takes_no_spare_and_its_circuit_is_closed_soon() {
    let mut bed = Bed::new(LIMITS);
    bed.spares(1, 1);
    assert!(matches!(bed.check(1), LeaseAnswer::Wait(_)), "the spare is for clients");
    let circuit = bed.complete_all()[0].1;
    assert_eq!(bed.pool.counts().spares, 1);
    bed.pool.release(circuit, bed.now);
    bed.pass(CHECK_IDLE / 2);
    assert!(matches!(bed.check(1), LeaseAnswer::Lent(id, _) if id == circuit), "the next request of the check");
    bed.pool.release(circuit, bed.now);
    bed.pass(CHECK_IDLE / 2);
    assert_eq!(bed.pool.effects(), []);
    bed.pass(CHECK_IDLE / 2);
    assert_eq!(bed.pool.effects(), [Effect::Close(circuit)]);
    assert_eq!(bed.pool.counts().spares, 1);
    assert!(bed.lend(1, 7).is_some());
}

#[test]
fn a_check_takes_over_no_spare_that_is_being_built() {
    let mut bed = Bed::new(LIMITS);
    bed.pool.want(BTreeMap::from([(key(1), 1)]), bed.now);
    assert_eq!(bed.builds().len(), 1);
    bed.check(1);
    assert_eq!(bed.builds().len(), 1, "the check has a build of its own");
}

#[test]
fn a_check_costs_two_builds_at_most() {
    let mut bed = Bed::new(LIMITS);
    let LeaseAnswer::Wait(waiter) = bed.check(1) else { panic!() };
    for _ in 0..2 {
        let builds = bed.builds();
        assert_eq!(builds.len(), 1);
        let id = bed.launch(builds[0]);
        bed.pass(SLOW_BUILD + SECOND);
        assert_eq!(bed.builds(), [], "a slow build of a check gets no company");
        bed.pool.gone(id, LeaseFault::Unreachable, bed.now);
    }
    assert_eq!(bed.pool.effects(), [Effect::Refuse { waiter, fault: LeaseFault::Unreachable }]);
}

#[test]
fn a_doomed_circuit_of_a_check_is_not_replaced_by_a_spare() {
    let mut bed = Bed::new(LIMITS);
    bed.check(1);
    let circuit = bed.complete_all()[0].1;
    bed.pool.doom(circuit, bed.now);
    assert!(matches!(bed.check(1), LeaseAnswer::Lent(id, _) if id == circuit));
    assert_eq!(bed.builds(), []);
}

#[test]
fn nudges_are_bounded_and_need_a_token() {
    let mut bed = Bed::new(LIMITS);
    assert_eq!((0..20).filter(|_| bed.pool.may_build(bed.now)).count(), 5);
    (1..=5).for_each(|exit| _ = bed.ask(exit, 7));
    assert_eq!(bed.begun().len(), 5, "the rest of the burst is for clients");
    bed.pass(SECOND);
    assert!(!bed.pool.may_build(bed.now), "half a token of their own");
    bed.pass(SECOND);
    assert!(bed.pool.may_build(bed.now));
}

#[test]
fn a_request_that_would_only_wait_for_nothing_is_refused_at_once() {
    let mut bed = Bed::new(LIMITS);
    let asked: Vec<_> = (0..60).map(|exit| bed.ask_for(exit, client(7), 30 * SECOND)).collect();
    let refused = asked.iter().filter(|asked| **asked == LeaseAnswer::Busy).count();
    assert_eq!(refused, 20, "ten of the burst, and thirty within the patience");
    assert!(asked[..40].iter().all(|asked| matches!(asked, LeaseAnswer::Wait(_))), "the first are admitted");
    assert_eq!(bed.pool.retry_after(bed.now), Duration::from_secs_f64(31.0 / 0.75) + Duration::from_secs(3));
    // Every request that was accepted is served before its deadline.
    let mut served = bed.complete_all().len();
    for _ in 0..30 {
        bed.pass(SECOND);
        served += bed.complete_all().len();
    }
    assert_eq!(served, 40);
}

#[test]
fn the_door_counts_the_quickest_build_and_retry_after_a_slow_one() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    for (exit, took) in [(1, 2), (2, 4)] {
        bed.ask(exit, 7);
        let id = {
            let build = bed.builds()[0];
            bed.launch(build)
        };
        bed.pass(SECOND * took);
        bed.builds(); // starts a second build beside a slow one
        bed.pool.built(id, Arc::from([]), bed.now);
    }
    bed.pass(600 * SECOND);
    bed.pool.effects();
    bed.ask(3, 7); // takes the only token
    bed.ask(4, 7); // waits one second for the next token
    assert_eq!(bed.ask_for(5, client(7), Duration::from_millis(3999)), LeaseAnswer::Busy);
    assert_eq!(bed.pool.retry_after(bed.now), Duration::from_secs_f64(2.0 / 0.75) + 4 * SECOND);
    assert!(matches!(bed.ask_for(5, client(7), 4 * SECOND), LeaseAnswer::Wait(_)), "two tokens and a quick build");
}

#[test]
fn the_door_is_open_to_whoever_needs_no_new_build() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    bed.ask(1, 7);
    (2..40).for_each(|exit| _ = bed.ask(exit, 7));
    let soon = SECOND / 2;
    assert_eq!(bed.ask_for(99, client(7), soon), LeaseAnswer::Busy);
    assert!(matches!(bed.ask_for(1, client(7), soon), LeaseAnswer::Wait(_)), "its build has begun");
    assert!(matches!(bed.ask_for(2, client(7), 2 * SECOND), LeaseAnswer::Wait(_)), "its build is the next");
    assert_eq!(bed.ask_for(2, client(8), 2 * SECOND), LeaseAnswer::Busy, "another key needs another circuit");
    assert_eq!(bed.ask_for(30, client(7), 2 * SECOND), LeaseAnswer::Busy, "its build is far behind");
    bed.complete_all();
    assert!(matches!(bed.ask_for(1, client(7), Duration::ZERO), LeaseAnswer::Lent(..)));
}

#[test]
fn without_a_queue_nobody_is_refused() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    bed.ask(1, 7);
    assert!(matches!(bed.ask_for(2, client(7), SECOND / 10), LeaseAnswer::Wait(_)), "the estimate may be wrong");
    assert_eq!(bed.ask_for(3, client(7), SECOND / 10), LeaseAnswer::Busy);
}

#[test]
fn who_gave_up_is_not_counted_in_the_queue() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    let asked: Vec<_> = (0..40).map(|exit| bed.ask(exit, 7)).collect();
    assert_eq!(bed.ask_for(99, client(7), 30 * SECOND), LeaseAnswer::Busy);
    for asked in &asked[1..] {
        let LeaseAnswer::Wait(waiter) = asked else { panic!() };
        bed.pool.forget(*waiter);
    }
    assert_eq!(bed.pool.queue_wait(key(99), iso(7), bed.now), SECOND);
    assert!(matches!(bed.ask_for(99, client(7), 3 * SECOND), LeaseAnswer::Wait(_)));
}

#[test]
fn a_check_is_never_refused_at_the_door() {
    let mut bed = Bed::new(LIMITS);
    for exit in 0..200 {
        assert!(matches!(bed.check(exit), LeaseAnswer::Wait(_)));
    }
}

#[test]
fn the_wait_in_the_queue_is_zero_where_a_circuit_is_there() {
    let mut bed = Bed::new(Limits { burst: 2, ..LIMITS });
    bed.spares(1, 1);
    bed.ask(2, 7);
    bed.ask(3, 7);
    let wait = |bed: &Bed, exit, isolation| bed.pool.queue_wait(key(exit), iso(isolation), bed.now);
    assert_eq!(wait(&bed, 1, 7), Duration::ZERO, "a spare");
    assert_eq!(wait(&bed, 2, 7), Duration::ZERO, "its build has begun");
    assert_eq!(wait(&bed, 3, 7), SECOND, "its build is the next");
    assert_eq!((wait(&bed, 2, 8), wait(&bed, 4, 7)), (2 * SECOND, 2 * SECOND), "a new build");
    bed.complete_all();
    assert_eq!(wait(&bed, 2, 7), Duration::ZERO, "a circuit with room");
    assert_eq!(wait(&bed, 2, 8), 2 * SECOND, "it belongs to another key");
    for _ in 0..2 {
        bed.ask(2, 7);
    }
    assert_eq!(wait(&bed, 2, 7), 2 * SECOND, "the circuit is full");
}

#[test]
fn a_build_whose_circuit_will_be_full_shortens_no_wait() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    let wait = |bed: &Bed| bed.pool.queue_wait(key(1), iso(7), bed.now);
    (0..2).for_each(|_| _ = bed.ask(1, 7));
    bed.ask(2, 7);
    assert_eq!(wait(&bed), Duration::ZERO, "the build has begun, and its circuit has room for a third stream");
    bed.ask(1, 7);
    assert_eq!(wait(&bed), 2 * SECOND, "a second circuit is needed, and its build comes after that to the other exit");
    // The same, while the build is still in the queue.
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    bed.ask(9, 7); // takes the only token
    (0..3).for_each(|_| _ = bed.ask(1, 7));
    bed.ask(2, 7);
    assert_eq!(wait(&bed), 3 * SECOND, "two builds are in the queue, and neither is for a fourth stream");
}

#[test]
fn a_circuit_that_is_too_old_for_new_streams_shortens_no_wait() {
    let mut bed = Bed::new(Limits { burst: 1, ..LIMITS });
    bed.ask(1, 7);
    bed.complete_all();
    let wait = |bed: &Bed| bed.pool.queue_wait(key(1), iso(7), bed.now);
    bed.pass(LIMITS.dirty - SECOND);
    bed.ask(2, 7);
    assert_eq!(wait(&bed), Duration::ZERO, "the circuit may be used");
    bed.pass(SECOND);
    bed.ask(3, 7);
    bed.ask(4, 7);
    assert!(!wait(&bed).is_zero(), "a download goes on, and new streams need another circuit");
}

#[test]
fn what_is_a_slow_build_follows_the_latest_builds() {
    for (took, slow) in [(0, 1000), (1500, 1500), (9000, 3000)] {
        let mut bed = Bed::new(LIMITS);
        bed.ask(1, 7);
        let build = bed.builds()[0];
        let circuit = bed.launch(build);
        bed.now += Duration::from_millis(took);
        bed.pool.built(circuit, Arc::from([]), bed.now);
        bed.ask(2, 7);
        let build = bed.builds()[0];
        bed.launch(build);
        bed.pass(Duration::from_millis(slow - 1));
        assert_eq!(bed.builds(), [], "{took}");
        bed.pass(Duration::from_millis(1));
        assert_eq!(bed.builds().len(), 1, "{took}");
    }
}

#[test]
fn the_times_of_builds_are_those_of_the_latest() {
    let mut times = BuildTimes::default();
    assert_eq!((times.p95(), times.quickest()), (Duration::from_secs(3), Duration::ZERO), "nothing was measured");
    (1..=100).for_each(|seconds| times.add(SECOND * seconds));
    assert_eq!(times.p95(), 98 * SECOND, "the 38th of the last 40");
    assert_eq!(times.quickest(), 61 * SECOND, "the first of the last 40");
}
