//! Decides whether this machine reaches the Tor network, and whether the network or the guard is at fault when an
//! engine's guard is silent. Pure: no I/O.
//!
//! A guard is the first relay of all circuits of an engine (a tor process). While no relay at all answers, a failure
//! says nothing about a guard. If such failures counted, each outage of this machine's network would make engines try
//! one new guard after the other. So a guard is at fault only if another relay answered after the guard fell silent:
//! the guard of another engine, or a guard that was tested.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::engine_id::EngineId;

/// How long a guard may be silent before it counts as at fault: 3/20 of the time-out of a circuit build, which is 3 s
/// with the shipped time-out. A test circuit has the same time limit. The time starts when the guard's silence is
/// confirmed.
const GRACE: (u32, u32) = (3, 20);

/// How long a guard may be silent after tor connected to it anew: 2/5 of the time-out of a circuit build, which is 8 s
/// with the shipped time-out. A new connection needs four round trips before the guard can answer a circuit. Less than
/// the 10 s after which tor connects anew for the second time.
const GRACE_ANEW: (u32, u32) = (2, 5);

/// If a gateway has only one engine and its guard is silent, the engine tests another guard after this number of build
/// time-outs: 40 s with the shipped time-out. Only this test can show whether the network works.
const ALONE: u32 = 2;

/// If the guards of all engines are silent, an engine tests another guard after this number of build time-outs: 30 min
/// with the shipped time-out. The network may work and all of these guards may be blocked.
const TOGETHER: u32 = 90;

/// What is known about the network from one engine.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The time when any relay last answered this engine. `None` if no relay has answered.
    heard: Option<Instant>,
    /// True while the engine's own guard answers.
    proven: bool,
    /// When the engine's own guard was found to be silent. `None` if the guard is not silent.
    silent: Option<Instant>,
    /// When the engine's own guard last answered after questions without an answer. `None` if this never happened.
    recovered: Option<Instant>,
}

/// What is known about the network from all engines.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    engines: BTreeMap<EngineId, Seen>,
}

/// What to do about a guard that is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// No relay answers any engine, so this machine probably has no network. The engine keeps its guard and waits.
    Wait,
    /// The network works, so the guard is at fault.
    Blame,
    /// It is not known whether the network works. A test of another guard shows this.
    TestAnother,
}

/// The facts about a guard that is silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardSilence {
    /// When the silence was confirmed first.
    pub(super) began: Instant,
    /// When the silence was confirmed, or when tor last connected to the guard anew. The guard has to answer after this
    /// time.
    pub(super) since: Instant,
    /// True if tor connected to the guard anew during the silence.
    pub(super) anew: bool,
    /// True if the gateway could connect to the guard's address.
    pub(super) reachable: bool,
}

impl Liveness {
    /// Records that a relay answered this engine. `own` is true if the relay was the engine's own guard.
    pub(super) fn heard(&mut self, engine: EngineId, own: bool, now: Instant) {
        let seen = self.engines.entry(engine).or_default();
        seen.heard = Some(now);
        if own {
            (seen.proven, seen.silent) = (true, None);
        }
    }

    /// Records that the guard of this engine answered after at least one question without an answer.
    pub(super) fn recovered(&mut self, engine: EngineId, now: Instant) {
        self.engines.entry(engine).or_default().recovered = Some(now);
    }

    /// Returns true if a silence of this engine's guard, which began at `began`, may be a part of an outage of the
    /// network: the guard of another engine is silent too, or left questions without an answer until a time after
    /// `began`. After an outage, each connection works again at another time, because TCP sends lost data again after
    /// longer and longer pauses.
    pub(super) fn is_shared(&self, engine: EngineId, began: Instant) -> bool {
        let mut others = self.engines.iter().filter(|(id, _)| **id != engine).map(|(_, seen)| seen);
        others.any(|seen| seen.silent.is_some() || seen.recovered.is_some_and(|recovered| recovered >= began))
    }

    /// Records that the guard of this engine is silent. Returns true if it was the only guard of any engine that still
    /// answered.
    pub(super) fn silent(&mut self, engine: EngineId, now: Instant) -> bool {
        let was_proven = self.is_proven();
        let seen = self.engines.entry(engine).or_default();
        (seen.proven, seen.silent) = (false, Some(now));
        was_proven && !self.is_proven()
    }

    /// Returns true if this engine must test its own guard, to show whether the network works: the guard of another
    /// engine fell silent, and no relay has answered this engine since then.
    pub(super) fn asks(&self, engine: EngineId) -> bool {
        let heard = self.engines.get(&engine).and_then(|seen| seen.heard);
        let others = self.engines.iter().filter(|(id, _)| **id != engine);
        others.filter_map(|(_, seen)| seen.silent).max().is_some_and(|silent| heard.is_none_or(|heard| heard < silent))
    }

    /// Forgets an engine whose tor is not running.
    pub(super) fn forget(&mut self, engine: EngineId) {
        self.engines.remove(&engine);
    }

    /// Returns true if the guard of this engine answers.
    pub(super) fn proves(&self, engine: EngineId) -> bool {
        self.engines.get(&engine).is_some_and(|seen| seen.proven)
    }

    /// Returns true if the guard of at least one engine answers.
    pub(super) fn is_proven(&self) -> bool {
        self.engines.values().any(|seen| seen.proven)
    }

    /// Returns true if any relay answered any engine after this time.
    pub(super) fn is_alive_since(&self, since: Instant) -> bool {
        self.engines.values().any(|seen| seen.heard.is_some_and(|heard| heard > since))
    }

    /// Decides what to do about a silent guard. `timeout` is the time-out of a build.
    pub(super) fn decide(&self, silence: GuardSilence, timeout: Duration, now: Instant) -> Decision {
        let GuardSilence { began, since, anew, reachable } = silence;
        let grace = if anew { GRACE_ANEW } else { GRACE };
        let lasted = now.saturating_duration_since(since);
        let wait = timeout * if self.engines.len() > 1 { TOGETHER } else { ALONE };
        if lasted < timeout * grace.0 / grace.1 {
            Decision::Wait
        } else if self.is_alive_since(since) {
            Decision::Blame
        } else if reachable || now.saturating_duration_since(began) >= wait {
            Decision::TestAnother
        } else {
            Decision::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_guard_is_blamed_only_if_something_else_answered_later() {
        let (mut live, start) = (Liveness::default(), Instant::now());
        let (one, two) = (EngineId(1), EngineId(2));
        let decide = |live: &Liveness, since, now| {
            let since = after(start, since);
            live.decide(GuardSilence { began: since, since, anew: false, reachable: false }, TIMEOUT, after(start, now))
        };
        live.heard(one, true, start);
        live.heard(two, true, after(start, 5));
        assert_eq!(decide(&live, 4, 6), Decision::Wait, "it has 3 s");
        assert_eq!(decide(&live, 4, 7), Decision::Blame);
        assert_eq!(decide(&live, 5, 11), Decision::Wait, "nothing answered later");
        live.heard(one, false, after(start, 8)); // another guard has answered its test
        assert_eq!(decide(&live, 7, 13), Decision::Blame);
    }

    #[test]
    fn another_guard_is_tested_soon_by_a_lonely_engine_and_late_by_several() {
        let (mut live, start) = (Liveness::default(), Instant::now());
        let decide = |live: &Liveness, reachable, now| {
            let silence = GuardSilence { began: start, since: start, anew: reachable, reachable };
            live.decide(silence, TIMEOUT, after(start, now))
        };
        live.heard(EngineId(0), true, start);
        assert_eq!(decide(&live, false, 39), Decision::Wait);
        assert_eq!(decide(&live, false, 40), Decision::TestAnother);
        live.silent(EngineId(1), start);
        assert_eq!(decide(&live, false, 1799), Decision::Wait);
        assert_eq!(decide(&live, false, 1800), Decision::TestAnother);
        assert_eq!(decide(&live, true, 7), Decision::Wait, "a new connection takes a few seconds");
        assert_eq!(decide(&live, true, 8), Decision::TestAnother, "its machine is there, and it says nothing");
        // tor has connected anew every 5 minutes, which makes the silence no shorter.
        let anew = GuardSilence { began: start, since: after(start, 1796), anew: true, reachable: false };
        assert_eq!(live.decide(anew, TIMEOUT, after(start, 1803)), Decision::Wait, "the guard has 8 s to answer");
        assert_eq!(live.decide(anew, TIMEOUT, after(start, 1804)), Decision::TestAnother);
        live.forget(EngineId(1));
        assert_eq!(decide(&live, false, 40), Decision::TestAnother);
    }

    #[test]
    fn an_engine_is_asked_when_the_guard_of_another_is_silent() {
        let (mut live, start) = (Liveness::default(), Instant::now());
        let (one, two) = (EngineId(1), EngineId(2));
        live.heard(one, true, start);
        live.heard(two, true, start);
        assert!(!live.asks(one) && !live.asks(two));
        live.silent(one, after(start, 5));
        assert!(!live.asks(one) && live.asks(two));
        live.heard(two, true, after(start, 5));
        assert!(!live.asks(two), "that is the answer");
        live.silent(one, after(start, 9));
        live.heard(one, false, after(start, 10));
        assert!(live.asks(two), "another guard than its own answered the first engine");
        live.heard(one, true, after(start, 11));
        assert!(!live.asks(two));
        live.silent(EngineId(3), after(start, 12));
        assert!(live.asks(EngineId(4)), "it has heard nothing yet");
    }

    #[test]
    fn a_silence_is_shared_if_another_guard_is_silent_or_recovered_during_it() {
        let (mut live, start) = (Liveness::default(), Instant::now());
        let (one, two) = (EngineId(1), EngineId(2));
        live.heard(one, true, start);
        live.heard(two, true, after(start, 8));
        assert!(!live.is_shared(one, after(start, 5)), "the other guard answers every question");
        live.silent(one, after(start, 9));
        assert!(!live.is_shared(one, after(start, 5)), "its own silence does not count");
        live.silent(two, after(start, 9));
        assert!(live.is_shared(one, after(start, 5)));
        live.heard(two, true, after(start, 12));
        live.recovered(two, after(start, 12));
        assert!(live.is_shared(one, after(start, 5)), "both were silent, and only one answers again");
        assert!(live.is_shared(one, after(start, 12)));
        assert!(!live.is_shared(one, after(start, 13)), "the silence began after the outage");
        live.forget(two);
        assert!(!live.is_shared(one, after(start, 5)));
    }

    #[test]
    fn the_network_is_gone_when_the_last_guard_is_silent() {
        let (mut live, start) = (Liveness::default(), Instant::now());
        assert!(!live.is_proven() && !live.silent(EngineId(0), start), "nothing was proven yet");
        live.heard(EngineId(0), false, start);
        assert!(!live.is_proven(), "another guard is not the one in use");
        live.heard(EngineId(0), true, start);
        live.heard(EngineId(1), true, start);
        assert!(!live.silent(EngineId(0), start) && live.is_proven());
        assert!(live.proves(EngineId(1)) && !live.proves(EngineId(0)) && !live.proves(EngineId(2)));
        live.heard(EngineId(0), false, start);
        assert!(live.silent(EngineId(1), start) && !live.is_proven());
        assert!(!live.silent(EngineId(1), start), "that was told already");
        live.heard(EngineId(1), true, start);
        live.forget(EngineId(1));
        assert!(!live.is_proven());
    }
}
