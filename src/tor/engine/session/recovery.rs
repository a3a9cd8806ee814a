//! Decides when tor must connect to its guard anew, after an outage of the network or a sleep of this machine. Pure: no
//! I/O.
//!
//! When the network comes back, tor's TCP connection to the guard (the first relay of all circuits) may stay silent for
//! a long time: after an outage of 150 s, the next retransmission of the operating system may be 100 s away. A new
//! connection would work immediately. tor has no command that closes one connection, but `DisableNetwork 1` and then
//! `0` closes all of them, with all circuits and streams.
//!
//! So tor is made to connect anew only if nothing useful can be lost: after a long silence, or when the gateway itself
//! could connect to the guard's address while tor's old connection stayed silent.
//!
//! The gateway does not try to connect by itself if all connections must go through tor (bridges, a proxy in torrc).
//! The attempt may also fail behind a firewall that lets only tor out. In both cases tor is made to connect anew from
//! time to time.

use std::time::Duration;

use tokio::time::Instant;

/// A silence of the guard that is shorter than this part of the build time-out (10 s with the shipped time-out) has no
/// consequence. After an outage of this length, TCP sends lost data again within the same time, and no new connection
/// is needed.
const SHORT: f64 = 0.5;

/// While streams exist, the silence must last for this number of build time-outs before tor connects anew: 60 s with
/// the shipped time-out. A client that still waits after that time is rare.
const SHORT_WITH_STREAMS: f64 = 3.0;

/// Without a successful probe of the guard's address, tor connects anew after this number of build time-outs: 60 s with
/// the shipped time-out.
const BLIND: u32 = 3;

/// The longest pause between two new connections of tor, as a number of build time-outs: 5 min with the shipped
/// time-out.
const LONGEST: u32 = 15;

/// What to do now about a silent guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Test whether the gateway can connect to the guard's address.
    Probe,
    /// Let tor close its connections and connect to the guard again.
    Reconnect,
}

/// The facts about the present silence of the guard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) since: Instant,
    /// True if client streams or other streams exist, which a new connection would end.
    pub(super) streams: bool,
    /// True if the gateway may connect to the guard's address without tor.
    pub(super) may_probe: bool,
}

/// What was already done about the present silence.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// True while a probe (a connection of the gateway to the guard's address) runs.
    probing: bool,
    /// True if the last probe reached the guard's address.
    reached: bool,
    /// True if tor was last made to connect anew because a probe had reached the guard's address.
    by_probe: bool,
    slept: bool,
    /// How many times tor was made to connect anew after a successful probe or a sleep, and when this last happened.
    probed: (u32, Option<Instant>),
    /// How many times tor was made to connect anew without a successful probe, and when this last happened.
    blind: (u32, Option<Instant>),
}

impl Recovery {
    /// Records that this machine slept. If the guard is silent after that, tor connects anew immediately, because the
    /// guard and the routers on the way have forgotten the old connection. A probe from before the sleep says nothing
    /// about the network after the sleep.
    pub(super) fn slept(&mut self) {
        (self.slept, self.reached) = (true, false);
    }

    /// Records whether a probe could connect to the guard's address.
    pub(super) fn reached(&mut self, reached: bool) {
        (self.probing, self.reached) = (false, reached);
    }

    /// Returns true if tor was last made to connect anew because a probe had reached the guard's address.
    pub(super) fn was_reached(&self) -> bool {
        self.by_probe
    }

    /// Returns when tor was last made to connect anew during the present silence. `None` if this did not happen.
    pub(super) fn last_forced_reconnect(&self) -> Option<Instant> {
        self.probed.1.max(self.blind.1)
    }

    /// Forgets the present silence, because the guard answered.
    pub(super) fn heard(&mut self) {
        *self = Self::default();
    }

    /// Returns what to do about a silence. `timeout` is the time-out of a circuit build.
    pub(super) fn step(&mut self, silence: Silence, timeout: Duration, now: Instant) -> Step {
        let since = |at: Instant| now.saturating_duration_since(at);
        let pause = |first: Duration, count: u32| (first * 2u32.pow(count.min(10))).min(timeout * LONGEST);
        let due = since(silence.since) >= timeout.mul_f64(if silence.streams { SHORT_WITH_STREAMS } else { SHORT });
        let (count, last) = self.probed;
        let rested = last.is_none_or(|last| since(last) >= pause(timeout / 4, count));
        if self.slept || (due && rested && self.reached) {
            self.by_probe = self.reached;
            (self.slept, self.reached, self.probed) = (false, false, (count + 1, Some(now)));
            return Step::Reconnect;
        }
        let (count, last) = self.blind;
        let last = last.max(self.probed.1).unwrap_or(silence.since);
        if since(last) >= pause(timeout * BLIND, count) {
            (self.by_probe, self.blind) = (false, (count + 1, Some(now)));
            return Step::Reconnect;
        }
        if due && rested && silence.may_probe && !self.probing {
            self.probing = true;
            return Step::Probe;
        }
        Step::Nothing
    }
}

/// Returns how long this machine slept between two ticks. `None` if it did not sleep. `wall` is the time between the
/// ticks by the clock of the day. `steady` is the time between the ticks by the monotonic clock, which may stop during
/// a sleep. A difference below `least` is no sleep, because a busy machine makes ticks late.
pub(super) fn sleep_between(wall: Duration, steady: Duration, least: Duration) -> Option<Duration> {
    Some(wall.max(steady)).filter(|gap| *gap >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Returns what is done in each of these seconds of a silence.
    fn steps(recovery: &mut Recovery, silence: Silence, seconds: std::ops::Range<u64>) -> Vec<(u64, Step)> {
        let at = |second| (second, recovery.step(silence, TIMEOUT, silence.since + Duration::from_secs(second)));
        seconds.map(at).filter(|(_, step)| *step != Step::Nothing).collect()
    }

    fn silence(streams: bool, may_probe: bool) -> Silence {
        Silence { since: Instant::now(), streams, may_probe }
    }

    #[test]
    fn a_short_silence_changes_nothing_and_a_long_one_is_probed() {
        for (streams, from) in [(false, 10), (true, 60)] {
            let (mut recovery, silence) = (Recovery::default(), silence(streams, true));
            assert_eq!(steps(&mut recovery, silence, 0..from), []);
            assert_eq!(steps(&mut recovery, Silence { streams, ..silence }, from..from + 1).len(), 1);
        }
        let (mut recovery, silence) = (Recovery::default(), silence(false, true));
        assert_eq!(steps(&mut recovery, silence, 0..30), [(10, Step::Probe)], "one probe at a time");
        recovery.reached(false);
        assert_eq!(steps(&mut recovery, silence, 30..40), [(30, Step::Probe)]);
        recovery.reached(true);
        assert_eq!(recovery.last_forced_reconnect(), None);
        assert_eq!(steps(&mut recovery, silence, 40..44), [(40, Step::Reconnect)], "and no probe soon after that");
        assert_eq!(recovery.last_forced_reconnect(), Some(silence.since + Duration::from_secs(40)));
        // The guard accepts connections and stays silent. So tor connects anew again and again, each time after a
        // longer pause.
        let mut reconnects = Vec::new();
        for second in 44..1000 {
            for (second, step) in steps(&mut recovery, silence, second..second + 1) {
                recovery.reached(true);
                reconnects.extend((step == Step::Reconnect).then_some(second));
            }
        }
        assert_eq!(reconnects[..3], [51, 71, 111], "the pauses double: 10 s, 20 s, 40 s");
        let pauses: Vec<_> = reconnects.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(reconnects.len() < 16 && pauses.iter().all(|pause| *pause <= 320), "{reconnects:?}");
    }

    #[test]
    fn without_a_probe_tor_connects_anew_from_time_to_time() {
        let mut recovery = Recovery::default();
        let steps = steps(&mut recovery, silence(false, false), 0..1300);
        let want = [60, 180, 420, 720, 1020].map(|second| (second, Step::Reconnect));
        assert_eq!(steps, want);
        assert!(recovery.last_forced_reconnect().is_some());
        recovery.heard();
        assert_eq!(recovery.last_forced_reconnect(), None);
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
    fn only_a_probe_shows_that_the_guards_address_can_be_reached() {
        let (mut recovery, silence) = (Recovery::default(), silence(false, true));
        assert!(!recovery.was_reached());
        recovery.slept();
        assert_eq!(steps(&mut recovery, silence, 0..1), [(0, Step::Reconnect)]);
        assert!(!recovery.was_reached(), "after a sleep tor connects anew without a probe");
        assert_eq!(steps(&mut recovery, silence, 1..11), [(10, Step::Probe)]);
        recovery.reached(true);
        assert_eq!(steps(&mut recovery, silence, 11..12), [(11, Step::Reconnect)]);
        assert!(recovery.was_reached());
        // A probe from before the sleep says nothing about the network after the sleep.
        recovery.reached(true);
        recovery.slept();
        assert_eq!(steps(&mut recovery, silence, 12..13), [(12, Step::Reconnect)]);
        assert!(!recovery.was_reached());
        recovery.reached(false);
        let last = steps(&mut recovery, silence, 600..601);
        assert!(last == [(600, Step::Reconnect)] && !recovery.was_reached(), "without a successful probe: {last:?}");
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
