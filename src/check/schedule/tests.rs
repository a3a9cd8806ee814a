use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::echo_budget::EchoTerms;
use super::*;
use crate::exit::{Fingerprint, Verdict};

const START: Moment = Moment(1_788_314_400_000_000);
const SECOND: Duration = Duration::from_secs(1);
const TERMS: Terms = Terms {
    every: Duration::from_secs(1800),
    stale_after: Duration::from_secs(6 * 3600),
    per_second: 1000.0,
    concurrency: 3,
};
const RESERVE_EVERY: Duration = Duration::from_secs(2 * 3600);
const NEW: LastCheck = LastCheck { checked: None, verdict: Verdict::Untested };

fn exit(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn good(ago: u32) -> LastCheck {
    LastCheck { checked: Some(Moment(START.0 - SECOND.as_micros() as u64 * u64::from(ago))), verdict: Verdict::Good }
}

/// A schedule in which nobody wants any exit.
fn unwanted(terms: Terms, exits: &[(u8, LastCheck)]) -> Schedule {
    limited(terms, 1_000_000.0, exits)
}

/// The same, with a budget of this many echo requests per hour.
fn limited(terms: Terms, per_hour: f64, exits: &[(u8, LastCheck)]) -> Schedule {
    let mut schedule = Schedule::new(terms, EchoBudget::new(EchoTerms { per_hour }, 1));
    schedule.list(exits.iter().map(|(n, past)| (exit(*n), *past)));
    schedule
}

fn want(schedule: &mut Schedule, wanted: &[(u8, Want)], now: Moment) {
    let wanted = wanted.iter().map(|(n, want)| (exit(*n), *want)).collect();
    schedule.want_only(&wanted, |_| None, now);
}

/// A schedule in which routes use every exit.
fn schedule(terms: Terms, exits: &[(u8, LastCheck)]) -> Schedule {
    let mut schedule = unwanted(terms, exits);
    want(&mut schedule, &exits.iter().map(|(n, _)| (*n, Want::Used)).collect::<Vec<_>>(), START);
    schedule
}

fn order(schedule: &mut Schedule, now: Moment) -> Vec<u8> {
    let mut order = Vec::new();
    while let Some(ExitId::Tor(Fingerprint(id))) = schedule.next(now) {
        order.push(id[0]);
    }
    order
}

#[test]
fn urgent_ones_come_first_then_used_then_ordered_then_reserves() {
    let all = [(1, good(9000)), (2, good(9000)), (3, NEW), (4, good(1900)), (5, NEW), (6, good(10)), (7, good(9000))];
    let mut schedule = unwanted(Terms { concurrency: 10, ..TERMS }, &all);
    let reserves = [(1, Want::Reserve), (3, Want::Reserve), (5, Want::Reserve), (6, Want::Reserve)];
    want(&mut schedule, &[&reserves[..], &[(4, Want::Used)]].concat(), START);
    assert!(schedule.urgent(&exit(5), START) && !schedule.urgent(&exit(99), START));
    assert!(schedule.soon(&exit(2), START) && !schedule.soon(&exit(99), START));
    assert_eq!(order(&mut schedule, START), [5, 4, 2, 1, 3], "6 is not due, and nobody wants 7");
    assert_eq!(schedule.wake(), Some(START.after(RESERVE_EVERY - 10 * SECOND)));
    assert_eq!(order(&mut schedule, START.after(RESERVE_EVERY)), [6]);
}

#[test]
fn exits_that_nobody_wants_trickle_in_the_order_of_their_ranks() {
    let exits: Vec<_> = (1..=200).map(|n| (n, NEW)).collect();
    let mut schedule = unwanted(Terms { concurrency: 500, ..TERMS }, &exits);
    assert_eq!(order(&mut schedule, START), [0; 0], "without a rank an exit is not checked");
    let rank = |id: &ExitId| (1..=200).find(|n| exit(*n) == *id).map(|n| u32::from(200 - n));
    schedule.want_only(&HashMap::new(), rank, START);
    let first = order(&mut schedule, START);
    assert_eq!((first.len(), first[0], first[63]), (64, 200, 137));
    assert_eq!(schedule.waiting(START), 0, "they do not wait");
    assert_eq!(order(&mut schedule, START.after(TERMS.stale_after / TRICKLE)), [136]);
    assert_eq!(order(&mut schedule, START.after(TERMS.stale_after)).len(), TRICKLE as usize - 1);
    for n in 137..=200 {
        schedule.ended(&exit(n), Ended::Good, START, 0.5);
    }
    let much_later = START.after(TERMS.stale_after * 50);
    assert!(order(&mut schedule, much_later).iter().all(|n| *n < 137), "a good one is not checked again");
    schedule.forget_verdict(&exit(200), much_later);
    schedule.want_only(&HashMap::new(), |id| (*id == exit(200)).then_some(1), much_later);
    assert_eq!(order(&mut schedule, much_later.after(TERMS.stale_after))[0], 200, "but when its verdict is too old");
}

#[test]
fn the_budget_of_echo_servers_holds_back_reserves_first_and_orders_never() {
    let terms = Terms { concurrency: 100, ..TERMS };
    let mut schedule = limited(terms, 10.0, &(1..=9).map(|n| (n, NEW)).collect::<Vec<_>>());
    let all = |from: u8| [(from, Want::Used), (from + 1, Want::Reserve)];
    want(&mut schedule, &all(1), START);
    (0..40).for_each(|_| schedule.asked_echo(0, START));
    assert_eq!(order(&mut schedule, START), [1, 2], "half of the budget is left");
    want(&mut schedule, &all(3), START);
    schedule.asked_echo(0, START);
    assert_eq!(order(&mut schedule, START), [3]);
    (0..39).for_each(|_| schedule.asked_echo(0, START));
    want(&mut schedule, &all(5), START);
    schedule.urgent(&exit(7), START);
    schedule.soon(&exit(8), START);
    assert_eq!(order(&mut schedule, START), [8], "a person's order is carried out");
    assert_eq!((schedule.echoes().left(0, START), schedule.echoes().requests(0)), (0, 80));
    let minutes = |n: u32| START.after(60 * n * SECOND);
    assert_eq!(schedule.wake(), Some(minutes(6)));
    assert_eq!(order(&mut schedule, minutes(6)), [7, 5]);
}

#[test]
fn without_uplink_one_check_runs_at_a_time() {
    let exits: Vec<_> = (1..=9).map(|n| (n, NEW)).collect();
    let mut schedule = schedule(TERMS, &exits);
    schedule.set_uplink(false);
    schedule.urgent(&exit(5), START);
    assert_eq!(order(&mut schedule, START), [5], "not even for live requests");
    assert_eq!(schedule.wake(), None);
    schedule.ended(&exit(5), Ended::Open, START, 0.5);
    assert_eq!(schedule.wake(), Some(START.after(UPLINK_RETRY)));
    assert_eq!(order(&mut schedule, START.after(UPLINK_RETRY)).len(), 1);
    schedule.set_uplink(true);
    assert_eq!(order(&mut schedule, START.after(UPLINK_RETRY)).len(), 2, "as many as at any time");
}

#[test]
fn an_outage_makes_the_next_check_of_a_bad_exit_no_later() {
    let mut schedule = schedule(TERMS, &[(1, good(2000))]);
    let mut now = START;
    let end = |schedule: &mut Schedule, how, now: &mut Moment| {
        *now = schedule.wake().unwrap().max(*now);
        assert_eq!(schedule.next(*now), Some(exit(1)));
        schedule.ended(&exit(1), how, *now, 0.5);
    };
    for _ in 0..9 {
        end(&mut schedule, Ended::Open, &mut now);
    }
    end(&mut schedule, Ended::Bad, &mut now);
    assert_eq!(schedule.wake(), Some(now.after(Duration::from_secs(60))), "as after the first failure");
    end(&mut schedule, Ended::Open, &mut now);
    end(&mut schedule, Ended::Bad, &mut now);
    assert_eq!(schedule.wake(), Some(now.after(Duration::from_secs(120))), "as after the second");
}

#[test]
fn a_client_waits_only_for_an_exit_that_was_never_good() {
    let mut schedule = schedule(TERMS, &[(1, good(2000)), (2, NEW), (3, NEW)]);
    for id in [1, 2] {
        schedule.urgent(&exit(id), START);
    }
    assert_eq!(order(&mut schedule, START).len(), 3);
    let awaited = [1, 2, 3, 9].map(|id| schedule.is_awaited(&exit(id)));
    assert_eq!(awaited, [false, true, false, false]);
    schedule.ended(&exit(2), Ended::Good, START, 0.5);
    assert!(!schedule.is_awaited(&exit(2)), "the client has its answer");
}

#[test]
fn traffic_counts_as_a_check_until_the_address_is_old() {
    let mut schedule = schedule(TERMS, &[(1, good(2000))]);
    assert_eq!(schedule.next(START), Some(exit(1)));
    assert!(!schedule.needs_check(&exit(1), START));
    schedule.proven(&exit(1), START, 0.5);
    assert_eq!(schedule.wake(), Some(START.after(TERMS.every)));
    let old = START.after(Duration::from_secs(12 * 3600 - 2000));
    assert!(schedule.needs_check(&exit(1), old) && !schedule.needs_check(&exit(1), Moment(old.0 - 1)));
    for ask in [Schedule::force, Schedule::soon] {
        ask(&mut schedule, &exit(1), START);
        assert_eq!(schedule.next(START), Some(exit(1)));
        assert!(schedule.needs_check(&exit(1), START), "a person wants a check");
        schedule.ended(&exit(1), Ended::Good, START, 0.5);
        assert!(!schedule.needs_check(&exit(1), START), "the check was made");
    }
    schedule.again(&exit(1), START);
    assert_eq!(schedule.next(START), Some(exit(1)));
    assert!(schedule.needs_check(&exit(1), START), "another exit's check needs it");
    schedule.ended(&exit(1), Ended::Bad, START, 0.5);
    assert!(schedule.needs_check(&exit(1), START) && schedule.needs_check(&exit(9), START));
}

#[test]
fn checks_that_traffic_saves_use_no_rate() {
    let mut schedule = schedule(Terms { per_second: 1.0, ..TERMS }, &[(1, good(2000)), (2, good(2000))]);
    assert_eq!(schedule.next(START), Some(exit(1)));
    assert_eq!(schedule.next(START), None);
    schedule.proven(&exit(1), START, 0.5);
    assert_eq!(schedule.next(START), Some(exit(2)));
}

#[test]
fn urgent_checks_may_exceed_the_limit_of_checks_at_once() {
    let exits: Vec<_> = (1..=60).map(|n| (n, NEW)).collect();
    let mut schedule = schedule(TERMS, &exits);
    assert_eq!(order(&mut schedule, START).len(), 3);
    assert_eq!((schedule.wake(), schedule.running()), (None, 3));
    (20..60).for_each(|n| _ = schedule.urgent(&exit(n), START));
    assert_eq!(order(&mut schedule, START).len(), URGENT_BEYOND);
    assert_eq!(schedule.wake(), None);
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
    assert_eq!(order(&mut schedule, START).len(), 1);
}

#[test]
fn the_rate_holds_back_all_but_urgent_checks() {
    let exits: Vec<_> = (1..=60).map(|n| (n, NEW)).collect();
    let mut schedule = schedule(Terms { per_second: 2.0, concurrency: 50, ..TERMS }, &exits);
    assert_eq!(order(&mut schedule, START).len(), 2);
    assert_eq!(schedule.wake(), Some(START.after(SECOND / 2)));
    (40..45).for_each(|n| _ = schedule.urgent(&exit(n), START));
    assert_eq!(order(&mut schedule, START).len(), 5);
    assert_eq!(schedule.wake(), Some(START.after(SECOND * 3)), "what urgent checks took is waited for");
    assert_eq!(order(&mut schedule, START.after(SECOND * 3)).len(), 1);
}

#[test]
fn an_exit_that_fails_is_checked_more_and_more_seldom() {
    let ends =
        [Ended::Bad, Ended::Bad, Ended::Bad, Ended::Good, Ended::Open, Ended::Open, Ended::Bad, Ended::TargetDown];
    for (want_as, most) in [(Want::Reserve, 8 * TERMS.every), (Want::Used, TERMS.every / 5)] {
        let mut schedule = unwanted(TERMS, &[(1, NEW)]);
        want(&mut schedule, &[(1, want_as)], START);
        let mut now = START;
        let mut pauses = Vec::new();
        let mut again = |schedule: &mut Schedule, how| {
            assert_eq!(order(schedule, now), [1]);
            schedule.ended(&exit(1), how, now, 0.5);
            let due = schedule.wake().unwrap();
            pauses.push(due.since(now).as_secs());
            now = due;
        };
        ends.iter().for_each(|how| again(&mut schedule, *how));
        (0..20).for_each(|_| again(&mut schedule, Ended::Bad));
        let every = if want_as == Want::Used { 1800 } else { 7200 };
        assert_eq!(pauses[..8], [60, 120, 240, every, 2, 4, 60, 60]);
        assert_eq!(pauses[27], most.as_secs());
    }
}

#[test]
fn due_times_are_spread_and_used_exits_come_sooner() {
    for (as_what, dice, seconds) in [(Want::Reserve, 0.0, 6480), (Want::Reserve, 1.0, 7920), (Want::Used, 0.5, 1800)] {
        let mut schedule = unwanted(TERMS, &[(1, NEW)]);
        want(&mut schedule, &[(1, as_what)], START);
        order(&mut schedule, START);
        schedule.ended(&exit(1), Ended::Good, START, dice);
        assert_eq!(schedule.wake().unwrap().since(START).as_secs(), seconds);
    }
    let rare = Terms { every: Duration::from_secs(5 * 3600), ..TERMS };
    assert_eq!(rare.reserve_every(), rare.every, "a reserve is not checked more often than a member");
}

#[test]
fn urgent_checks_of_one_exit_have_a_gap_and_forced_ones_do_not() {
    let [gap, open_gap] = [10 * SECOND, SECOND];
    let mut schedule = schedule(TERMS, &[(1, NEW)]);
    order(&mut schedule, START);
    assert!(schedule.urgent(&exit(1), START), "it is being tested");
    schedule.ended(&exit(1), Ended::Bad, START, 0.5);
    assert_eq!(order(&mut schedule, START), [0; 0], "the request waited for that check");
    schedule.urgent(&exit(1), START);
    assert_eq!(schedule.wake(), Some(START.after(gap)), "it is checked, and not at once");
    schedule.force(&exit(1), START);
    assert_eq!(order(&mut schedule, START), [1]);
    schedule.ended(&exit(1), Ended::Open, START, 0.5);
    schedule.urgent(&exit(1), START);
    assert_eq!(schedule.wake(), Some(START.after(open_gap)));
    assert_eq!(order(&mut schedule, START.after(open_gap)), [1]);
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
    schedule.urgent(&exit(1), START);
    assert_eq!(schedule.wake(), Some(START.after(TERMS.every)), "it is good, and needs no check");
}

#[test]
fn an_exit_marked_again_during_its_check_is_checked_once_more() {
    let mut schedule = schedule(TERMS, &[(1, NEW), (2, good(10))]);
    assert_eq!(order(&mut schedule, START), [1]);
    schedule.again(&exit(1), START);
    schedule.again(&exit(2), START);
    assert!(schedule.soon(&exit(1), START), "a caller who only wants a result gets that of the check that runs");
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
    assert_eq!(order(&mut schedule, START), [1, 2]);
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
    assert_eq!(order(&mut schedule, START), [0; 0]);
}

#[test]
fn something_new_to_check_makes_wanted_exits_due() {
    let mut schedule = unwanted(Terms { concurrency: 9, ..TERMS }, &[(1, good(10)), (2, good(20)), (3, good(5))]);
    want(&mut schedule, &[(1, Want::Used), (2, Want::Reserve)], START);
    schedule.hurry(START);
    assert_eq!(order(&mut schedule, START), [1, 2]);
    assert_eq!((schedule.ended_at(&exit(3)), schedule.ended_at(&exit(9))), (good(5).checked, None));
}

#[test]
fn an_exit_that_leaves_is_not_checked_and_the_others_keep_their_order() {
    let mut schedule = schedule(TERMS, &[(1, NEW), (2, good(10)), (3, NEW)]);
    assert_eq!(schedule.next(START), Some(exit(1)));
    schedule.list([(exit(2), NEW), (exit(4), NEW)]);
    want(&mut schedule, &[(2, Want::Used), (4, Want::Used)], START);
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
    assert!(schedule.knows(&exit(4)) && !schedule.knows(&exit(1)));
    assert_eq!((order(&mut schedule, START), schedule.waiting(START)), (vec![4], 0));
    assert_eq!(schedule.running(), 1);
    schedule.hurry(START);
    assert_eq!(order(&mut schedule, START), [2]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Urgent(u8),
    Use(u8, u8),
    List(u8),
    Next,
    End(u8, u8),
    Wait(u16),
    Hurry,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..20u8).prop_map(Step::Urgent),
        (0..20u8, 0..20u8).prop_map(|(a, b)| Step::Use(a, b)),
        (0..20u8).prop_map(Step::List),
        Just(Step::Next),
        (0..20u8, 0..4u8).prop_map(|(n, how)| Step::End(n, how)),
        (0..2000u16).prop_map(Step::Wait),
        Just(Step::Hurry),
    ]
}

proptest! {
    /// After any sequence of steps, each exit is either being checked or in exactly one class.
    #[test]
    fn no_exit_is_lost_or_queued_twice(steps in prop::collection::vec(step(), 0..200)) {
        let mut schedule = schedule(TERMS, &[]);
        let (mut now, mut running) = (START, BTreeSet::new());
        for step in steps {
            match step {
                Step::Urgent(n) => _ = schedule.urgent(&exit(n), now),
                Step::Use(a, b) => want(&mut schedule, &[(a, Want::Used), (b, Want::Reserve)], now),
                Step::List(n) => schedule.list((0..n).map(|n| (exit(n), NEW))),
                Step::Next => if let Some(id) = schedule.next(now) {
                    prop_assert!(running.insert(id), "tested twice at once");
                },
                Step::End(n, how) => if running.remove(&exit(n)) {
                    let how = [Ended::Good, Ended::Bad, Ended::Open, Ended::TargetDown][usize::from(how)];
                    schedule.ended(&exit(n), how, now, 0.5);
                },
                Step::Wait(seconds) => now = now.after(SECOND * u32::from(seconds)),
                Step::Hurry => schedule.hurry(now),
            }
            let idle = schedule.queue.iter().filter(|(id, _)| !running.contains(*id)).count();
            prop_assert_eq!(schedule.queue.queued(), idle);
            prop_assert_eq!(schedule.running(), running.len());
        }
    }
}
