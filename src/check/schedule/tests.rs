use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::exit::Fingerprint;

const START: Moment = Moment(1_788_314_400_000_000);
const SECOND: Duration = Duration::from_secs(1);
const TERMS: Terms = Terms { every: Duration::from_secs(1800), per_second: 1000.0, concurrency: 3 };
const NEW: LastCheck = LastCheck { checked: None, verdict: Verdict::Untested };

fn exit(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn good(ago: u32) -> LastCheck {
    LastCheck { checked: Some(Moment(START.0 - SECOND.as_micros() as u64 * u64::from(ago))), verdict: Verdict::Good }
}

fn schedule(terms: Terms, exits: &[(u8, LastCheck)]) -> Schedule {
    let mut schedule = Schedule::new(terms);
    schedule.list(exits.iter().map(|(n, past)| (exit(*n), *past)), START);
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
fn urgent_ones_come_first_then_used_then_new_then_the_oldest() {
    let mut schedule = schedule(
        Terms { concurrency: 10, ..TERMS },
        &[(1, good(3000)), (2, good(9000)), (3, NEW), (4, good(1900)), (5, NEW), (6, good(10)), (7, good(500))],
    );
    schedule.use_only(&[exit(4), exit(7)].into(), START);
    assert!(schedule.urgent(&exit(5), START) && !schedule.urgent(&exit(99), START));
    assert_eq!(order(&mut schedule, START), [5, 4, 7, 3, 2, 1], "6 is not due; 7 is, because it is in use");
    assert_eq!(schedule.wake(), Some(START.after(TERMS.every - 10 * SECOND)));
    assert_eq!(order(&mut schedule, START.after(TERMS.every)), [6]);
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
    let mut schedule = schedule(TERMS, &[(1, NEW)]);
    let mut now = START;
    let mut pauses = Vec::new();
    for how in [Ended::Bad, Ended::Bad, Ended::Bad, Ended::Good, Ended::Open, Ended::Open, Ended::Bad] {
        assert_eq!(order(&mut schedule, now), [1]);
        schedule.ended(&exit(1), how, now, 0.5);
        let due = schedule.wake().unwrap();
        pauses.push(due.since(now).as_secs());
        now = due;
    }
    assert_eq!(pauses, [60, 120, 240, 1800, 2, 4, 240]);
    for _ in 0..20 {
        order(&mut schedule, now);
        schedule.ended(&exit(1), Ended::Bad, now, 0.5);
        now = schedule.wake().unwrap();
    }
    order(&mut schedule, now);
    schedule.ended(&exit(1), Ended::Bad, now, 0.5);
    assert_eq!(schedule.wake().unwrap().since(now), TERMS.every * SELDOM);
}

#[test]
fn due_times_are_spread_and_used_exits_come_sooner() {
    for (used, dice, seconds) in [(false, 0.0, 1620), (false, 1.0, 1980), (true, 0.5, 450)] {
        let mut schedule = schedule(TERMS, &[(1, NEW)]);
        if used {
            schedule.use_only(&[exit(1)].into(), START);
        }
        order(&mut schedule, START);
        schedule.ended(&exit(1), Ended::Good, START, dice);
        assert_eq!(schedule.wake().unwrap().since(START).as_secs(), seconds);
    }
}

#[test]
fn urgent_checks_of_one_exit_have_a_gap_and_forced_ones_do_not() {
    let [gap, open_gap] = URGENT_GAPS;
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
fn an_exit_that_leaves_is_not_checked_and_the_others_keep_their_order() {
    let mut schedule = schedule(TERMS, &[(1, NEW), (2, good(10)), (3, NEW)]);
    assert_eq!(schedule.next(START), Some(exit(1)));
    schedule.list([(exit(2), NEW), (exit(4), NEW)], START);
    schedule.ended(&exit(1), Ended::Good, START, 0.5);
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
        (0..20u8, 0..3u8).prop_map(|(n, how)| Step::End(n, how)),
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
                Step::Use(a, b) => schedule.use_only(&[exit(a), exit(b)].into(), now),
                Step::List(n) => schedule.list((0..n).map(|n| (exit(n), NEW)), now),
                Step::Next => if let Some(id) = schedule.next(now) {
                    prop_assert!(running.insert(id), "tested twice at once");
                },
                Step::End(n, how) => if running.remove(&exit(n)) {
                    let how = [Ended::Good, Ended::Bad, Ended::Open][usize::from(how)];
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
