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
fn only_a_circuit_that_died_or_hung_is_replaced() {
    for (fault, again) in [
        (StreamFault::CircuitGone, true),
        (StreamFault::EngineLost, true),
        (StreamFault::Unanswered, true),
        (StreamFault::NotAttached, false),
        (StreamFault::Ended(crate::tor::event::EndReason::Misc), false),
    ] {
        assert_eq!(matches!(Attempt::from(fault), Attempt::Again(_)), again, "{fault:?}");
    }
}
