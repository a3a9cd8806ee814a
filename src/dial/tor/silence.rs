//! Decides whose fault it is that a stream gets no answer. Pure: no I/O, and the clock is passed in.
//!
//! tor reports a stream without an answer after 10 s. The report has no cause, because a dead target, a dead exit and a
//! dead guard look the same to tor. So if an answer takes long, two tests find the cause.
//!
//! First, the engine builds a short test circuit over the first two relays of the circuit (`tor/engine/nudge.rs`),
//! which shows whether these relays work. Second, the dial asks the exit, on the same circuit, for the address of a
//! name. An exit that answers this question works, whatever the answer is. If the exit works, it is the target that
//! does not answer.
//!
//! Next: `dial/tor.rs` makes the tests.

use std::time::Duration;

use tokio::time::Instant;

use crate::dial::tor::Ask;
use crate::dial::{DialError, EngineFault, ExitFault, TargetFault};

/// If a stream has no answer after this time, the first relays and the exit are tested. On the public network nine of
/// ten streams are open by then.
const SLOW_ANSWER: Duration = Duration::from_secs(2);

/// If an exit does not answer its test (a name to look up) within this time, the exit counts as silent. The test
/// circuit of the engine has the same time limit. An answer is one round trip through three relays, which takes less
/// than a second.
const EXIT_ANSWER: Duration = Duration::from_secs(3);

/// If a target does not answer within this time although its exit answers, the target counts as down. The time is
/// shorter than the 10 s after which tor gives up the stream together with its circuit. So the circuit can be used
/// again.
const TARGET_ANSWER: Duration = Duration::from_secs(9);

/// The time limits of a dial for one stream on one circuit: when it tests the relays, and when it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// When the tests of the first relays and of the exit begin.
    pub(super) slow: Instant,
    /// When the target is given up if the exit has answered.
    pub(super) target: Instant,
    /// When the dial gives up the stream, whatever the tests showed.
    pub(super) end: Instant,
    /// How long the exit may take to answer its test.
    pub(super) exit_answer: Duration,
}

impl Limits {
    /// Returns the limits for a stream that starts at the time `now`. `answer` is how long the exit and the target may
    /// take together, and `deadline` is the end of the whole dial. If `answer` is short, all other times are shorter as
    /// well.
    pub(super) fn new(now: Instant, answer: Duration, deadline: Instant) -> Self {
        Self {
            slow: now + SLOW_ANSWER.min(answer / 6),
            target: now + TARGET_ANSWER.min(answer * 3 / 4),
            end: deadline.min(now + answer),
            exit_answer: EXIT_ANSWER.min(answer / 4),
        }
    }

    /// Returns the time by which both tests (of the first relays and of the exit) should have had their answers.
    pub(super) fn early(&self) -> Instant {
        self.slow + self.exit_answer
    }
}

/// What is known when a stream has ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    /// True if tor has attached the stream to its circuit.
    pub(super) attached: bool,
    /// True if the exit has answered on the same circuit after the request for the stream was sent.
    pub(super) exit_answered: bool,
    /// How long the exit has been silent since its test began. `None` if the exit was not tested.
    pub(super) exit_silent: Option<Duration>,
    /// True if the first relay has answered since its test began. `None` if the first relay was not tested, because too
    /// many tests were running.
    pub(super) first_hop_answered: Option<bool>,
}

impl Evidence {
    /// Returns the fault that is certain at the time [`Limits::early`], when both tests should have had their answers.
    /// `None` if the target may still answer: a slow exit may answer late, but an engine or a first relay that does not
    /// answer at all is of no use.
    pub(super) fn early(self) -> Option<DialError> {
        match self {
            Self { exit_answered: true, .. } => None,
            // tor answers each command within milliseconds, so this tor hangs.
            Self { attached: false, .. } => Some(EngineFault::Lost.into()),
            Self { first_hop_answered: Some(false), .. } => Some(EngineFault::FirstHop.into()),
            _ => None,
        }
    }

    /// Returns whose fault the silence is. `what` is the request that got no answer.
    pub(super) fn fault(self, what: &Ask<'_>, limits: &Limits) -> DialError {
        let asked_in_vain = self.exit_silent.is_some_and(|silent| silent >= limits.exit_answer);
        if self.exit_answered {
            return match what {
                Ask::Connect(_) => TargetFault::Timeout.into(),
                // The exit answers, but the name servers that know this name do not.
                Ask::Resolve(_) | Ask::ResolvePtr(_) => TargetFault::NameFailed.into(),
            };
        }
        if !asked_in_vain {
            return DialError::Deadline;
        }
        match self.early() {
            Some(why) => why,
            None if self.first_hop_answered == Some(true) => ExitFault::Hung.into(),
            None => DialError::Deadline,
        }
    }
}

/// Returns the error of a dial that got no other circuit because of `fault`. `before` is the error of its last circuit.
/// `None`: the dial had no circuit yet.
///
/// The result is `before` if the time ran out before another circuit was complete, and `before` blames the exit for its
/// silence, or an engine, or a relay before the exit. In all other cases the result is `fault`.
pub(super) fn without_another_circuit(before: Option<DialError>, fault: DialError) -> DialError {
    match (before, fault) {
        (Some(known @ (DialError::Exit(ExitFault::Hung) | DialError::Engine(_))), DialError::Deadline) => known,
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Host, Target};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn with_the_shipped_limit_a_dead_target_is_known_before_tor_gives_up() {
        let now = Instant::now();
        let far = now + 60 * SECOND;
        let limits = Limits::new(now, 12 * SECOND, far);
        let want = Limits {
            slow: now + 2 * SECOND,
            target: now + 9 * SECOND,
            end: now + 12 * SECOND,
            exit_answer: 3 * SECOND,
        };
        assert_eq!((limits, limits.early()), (want, now + 5 * SECOND));
        // A target that may take longer to answer changes only the field `end` of the limits.
        assert_eq!(Limits::new(now, 20 * SECOND, far), Limits { end: now + 20 * SECOND, ..want });
        // If the whole dial must end early, this also changes only the field `end` of the limits.
        assert_eq!(Limits::new(now, 12 * SECOND, now + SECOND), Limits { end: now + SECOND, ..want });
        let short = Limits::new(now, SECOND * 12 / 10, far);
        let want = Limits {
            slow: now + SECOND / 5,
            target: now + SECOND * 9 / 10,
            end: now + SECOND * 12 / 10,
            exit_answer: SECOND * 3 / 10,
        };
        assert_eq!(short, want, "all times are a tenth");
    }

    #[test]
    fn an_answer_of_the_exit_clears_it_and_only_proven_silence_blames_it() {
        let target: Target = "a.test:80".parse().unwrap();
        let connect = Ask::Connect(&target);
        let limits = Limits::new(Instant::now(), 12 * SECOND, Instant::now() + 60 * SECOND);
        let silent = Evidence {
            attached: true,
            exit_answered: false,
            exit_silent: Some(limits.exit_answer),
            first_hop_answered: Some(true),
        };
        for (evidence, want) in [
            (silent, DialError::Exit(ExitFault::Hung)),
            (Evidence { first_hop_answered: Some(false), ..silent }, EngineFault::FirstHop.into()),
            (Evidence { attached: false, ..silent }, EngineFault::Lost.into()),
            (Evidence { attached: false, first_hop_answered: Some(false), ..silent }, EngineFault::Lost.into()),
            // If the first relay was not tested, or the test of the exit began too late or never, nobody is blamed.
            (Evidence { first_hop_answered: None, ..silent }, DialError::Deadline),
            (Evidence { exit_silent: Some(limits.exit_answer - SECOND), ..silent }, DialError::Deadline),
            (Evidence { exit_silent: None, ..silent }, DialError::Deadline),
            (Evidence { exit_silent: None, attached: false, ..silent }, DialError::Deadline),
            (Evidence { exit_answered: true, ..silent }, TargetFault::Timeout.into()),
            (Evidence { exit_answered: true, first_hop_answered: Some(false), ..silent }, TargetFault::Timeout.into()),
            (Evidence { exit_answered: true, exit_silent: None, ..silent }, TargetFault::Timeout.into()),
        ] {
            assert_eq!(evidence.fault(&connect, &limits), want, "{evidence:?}");
        }
        for (evidence, want) in [
            (silent, None),
            (Evidence { first_hop_answered: Some(false), ..silent }, Some(EngineFault::FirstHop.into())),
            (Evidence { first_hop_answered: None, ..silent }, None),
            (Evidence { attached: false, ..silent }, Some(EngineFault::Lost.into())),
            (Evidence { exit_answered: true, first_hop_answered: Some(false), attached: false, ..silent }, None),
        ] {
            assert_eq!(evidence.early(), want, "{evidence:?}");
        }
        let name = Host::parse("a.test").unwrap();
        let answered = Evidence { exit_answered: true, ..silent };
        for what in [Ask::Resolve(&name), Ask::ResolvePtr([192, 0, 2, 1].into())] {
            assert_eq!(answered.fault(&what, &limits), TargetFault::NameFailed.into(), "{what:?}");
        }
    }

    #[test]
    fn a_circuit_that_does_not_come_is_the_exits_fault_only_after_silence() {
        let hung = DialError::Exit(ExitFault::Hung);
        let died = DialError::Exit(ExitFault::Died);
        for (before, fault, want) in [
            (Some(hung), DialError::Deadline, hung),
            (Some(hung), EngineFault::FirstHop.into(), EngineFault::FirstHop.into()),
            (Some(hung), EngineFault::Busy.into(), EngineFault::Busy.into()),
            (Some(died), DialError::Deadline, DialError::Deadline),
            (Some(EngineFault::Middle.into()), DialError::Deadline, EngineFault::Middle.into()),
            (None, DialError::Deadline, DialError::Deadline),
            (None, ExitFault::Unreachable.into(), ExitFault::Unreachable.into()),
        ] {
            assert_eq!(without_another_circuit(before, fault), want, "{before:?} {fault:?}");
        }
    }
}
