//! Tests of the parts of a dial that do not need a tor process.

use super::*;

#[test]
fn spans_are_between_the_moments_they_name() {
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let timings = Timings {
        started: start,
        leased: after(20),
        sent: after(21),
        seen: Some(after(22)),
        attached: Some(after(25)),
        replied: after(40),
    };
    assert_eq!(timings.circuit_wait(), Duration::from_millis(20));
    assert_eq!(timings.before(), Duration::from_millis(1));
    assert_eq!(timings.attach(), Some(Duration::from_millis(3)));
    assert_eq!(timings.connect(), Duration::from_millis(19));
    assert_eq!(Timings { seen: None, ..timings }.attach(), None);
}

#[test]
fn another_circuit_is_tried_only_if_the_circuit_or_its_engine_failed() {
    for (why, again) in [
        (DialError::Exit(ExitFault::Died), true),
        (DialError::Exit(ExitFault::Hung), true),
        (EngineFault::Lost.into(), true),
        (EngineFault::FirstHop.into(), true),
        (EngineFault::Middle.into(), true),
        (EngineFault::Protocol.into(), false),
        (EngineFault::Exhausted.into(), false),
        (DialError::Exit(ExitFault::Policy), false),
        (TargetFault::Timeout.into(), false),
        (TargetFault::Refused.into(), false),
        (DialError::Deadline, false),
    ] {
        assert_eq!(another_circuit_may_help(why), again, "{why:?}");
    }
}
