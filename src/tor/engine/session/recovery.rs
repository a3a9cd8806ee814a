//! Decides when tor must connect to its guard anew, after an outage of the network or a sleep of this machine. Pure: no
//! I/O.
//!
//! When the network comes back, tor's TCP connection to the guard is still in the retransmission back-off of the
//! operating system. After an outage of 150 s the next retransmission may be 100 s away. tor has no command that closes
//! one connection, but `DisableNetwork 1` and then `0` closes all of them, with all circuits and streams. So that is
//! done only if nothing useful can be lost: after a long silence, and when a new connection to the guard's own address
//! was possible while the old one stayed silent. A new connection is not tried where it must not go beside tor (bridges,
//! a proxy in torrc). Where it is not possible, as behind a firewall that lets only tor out, tor connects anew from time
//! to time.

use std::time::Duration;

use tokio::time::Instant;

/// A silence shorter than this share of the time-out of a build changes nothing: 20 s with the shipped time-out. Until
/// then the retransmission of the old connection is not far away.
const SHORT: u32 = 1;

/// While streams exist, the silence must be this many time-outs long: 60 s. A client that still waits then is rare.
const SHORT_WITH_STREAMS: u32 = 3;

/// Without a test connection, tor connects anew after this many time-outs: 60 s.
const BLIND: u32 = 3;

/// The longest pause between two new connections, in time-outs: 5 min.
const LONGEST: u32 = 15;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Try whether a new connection to the guard's address is possible.
    Probe,
    /// Make tor connect anew.
    Reconnect,
}

/// A silence as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) since: Instant,
    /// True if streams exist.
    pub(super) streams: bool,
    /// True if a test connection beside tor is allowed.
    pub(super) may_probe: bool,
}

/// What was done about the present silence.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// True while a probe runs.
    probing: bool,
    /// True if the last probe reached the guard's address.
    reached: bool,
    slept: bool,
    /// New connections because a probe reached the guard: their number and the time of the last one.
    probed: (u32, Option<Instant>),
    /// New connections without a probe, likewise.
    blind: (u32, Option<Instant>),
}

impl Recovery {
    /// Records that this machine slept. If the guard is silent after that, tor connects anew at once, because the relay
    /// and every router between have forgotten the old connection.
    pub(super) fn slept(&mut self) {
        self.slept = true;
    }

    /// Records the result of a probe.
    pub(super) fn reached(&mut self, reached: bool) {
        (self.probing, self.reached) = (false, reached);
    }

    /// Returns true if the last new connection was made because a probe had reached the guard's address.
    pub(super) fn was_reached(&self) -> bool {
        self.probed.1.is_some() && self.probed.1 >= self.blind.1
    }

    /// Forgets everything, because the guard answered.
    pub(super) fn heard(&mut self) {
        *self = Self::default();
    }

    /// Returns what to do about a silence. `timeout` is the time-out of a build.
    pub(super) fn step(&mut self, silence: Silence, timeout: Duration, now: Instant) -> Step {
        let since = |at: Instant| now.saturating_duration_since(at);
        let pause = |first: Duration, count: u32| (first * 2u32.pow(count.min(10))).min(timeout * LONGEST);
        let due = since(silence.since) >= timeout * if silence.streams { SHORT_WITH_STREAMS } else { SHORT };
        let (count, last) = self.probed;
        let rested = last.is_none_or(|last| since(last) >= pause(timeout / 4, count));
        if self.slept || (due && rested && self.reached) {
            (self.slept, self.reached, self.probed) = (false, false, (count + 1, Some(now)));
            return Step::Reconnect;
        }
        let (count, last) = self.blind;
        let last = last.max(self.probed.1).unwrap_or(silence.since);
        if since(last) >= pause(timeout * BLIND, count) {
            self.blind = (count + 1, Some(now));
            return Step::Reconnect;
        }
        if due && rested && silence.may_probe && !self.probing {
            self.probing = true;
            return Step::Probe;
        }
        Step::Nothing
    }
}

/// Returns how long this machine slept between two ticks, if it did. `wall` and `steady` are the times that passed by
/// the clock of the day and by the clock that may stop during a sleep. A tick of a busy machine may come late, so less
/// than `least` is no sleep.
pub(super) fn sleep_between(wall: Duration, steady: Duration, least: Duration) -> Option<Duration> {
    Some(wall.max(steady)).filter(|gap| *gap >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A silence that began at `start`, and what is done about it in each second of it.
    fn steps(recovery: &mut Recovery, silence: Silence, seconds: std::ops::Range<u64>) -> Vec<(u64, Step)> {
        let at = |second| (second, recovery.step(silence, TIMEOUT, silence.since + Duration::from_secs(second)));
        seconds.map(at).filter(|(_, step)| *step != Step::Nothing).collect()
    }

    fn silence(streams: bool, may_probe: bool) -> Silence {
        Silence { since: Instant::now(), streams, may_probe }
    }

    #[test]
    fn a_short_silence_changes_nothing_and_a_long_one_is_probed() {
        for (streams, from) in [(false, 20), (true, 60)] {
            let (mut recovery, silence) = (Recovery::default(), silence(streams, true));
            assert_eq!(steps(&mut recovery, silence, 0..from), []);
            assert_eq!(steps(&mut recovery, Silence { streams, ..silence }, from..from + 1).len(), 1);
        }
        let (mut recovery, silence) = (Recovery::default(), silence(false, true));
        assert_eq!(steps(&mut recovery, silence, 0..30), [(20, Step::Probe)], "one probe at a time");
        recovery.reached(false);
        assert_eq!(steps(&mut recovery, silence, 30..40), [(30, Step::Probe)]);
        recovery.reached(true);
        assert_eq!(steps(&mut recovery, silence, 40..44), [(40, Step::Reconnect)], "and no probe soon after that");
        // The guard accepts connections and stays silent: each new connection is made after a longer pause.
        let mut reconnects = Vec::new();
        for second in 44..1000 {
            for (second, step) in steps(&mut recovery, silence, second..second + 1) {
                recovery.reached(true);
                reconnects.extend((step == Step::Reconnect).then_some(second));
            }
        }
        let pauses: Vec<_> = reconnects.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(reconnects.len() < 16 && pauses.iter().all(|pause| *pause <= 320), "{reconnects:?}");
    }

    #[test]
    fn without_a_probe_tor_connects_anew_from_time_to_time() {
        let mut recovery = Recovery::default();
        let steps = steps(&mut recovery, silence(false, false), 0..1300);
        let want = [60, 180, 420, 720, 1020].map(|second| (second, Step::Reconnect));
        assert_eq!(steps, want);
    }

    #[test]
    fn after_a_sleep_tor_connects_anew_at_once_and_once() {
        let (mut recovery, silence) = (Recovery::default(), silence(true, true));
        recovery.slept();
        assert_eq!(steps(&mut recovery, silence, 3..10), [(3, Step::Reconnect)]);
        recovery.slept();
        recovery.heard();
        assert_eq!(steps(&mut recovery, silence, 3..10), [], "the guard answered");
    }

    #[test]
    fn a_gap_by_either_clock_is_a_sleep() {
        let seconds = Duration::from_secs;
        assert_eq!(sleep_between(seconds(3600), seconds(1), seconds(30)), Some(seconds(3600)));
        assert_eq!(sleep_between(seconds(40), seconds(40), seconds(30)), Some(seconds(40)));
        assert_eq!(sleep_between(seconds(1), seconds(30), seconds(30)), Some(seconds(30)));
        assert_eq!(sleep_between(seconds(29), seconds(29), seconds(30)), None);
    }
}
