//! Detects a guard that makes circuits fail selectively.
//!
//! A hostile guard can make all circuits fail except those whose exit belongs to the same attacker. So two rates are
//! kept for each guard. The build rate is the share of circuits that were completed, of those that the guard answered.
//! The use rate is the share of complete circuits that worked at their first use. The counts are halved from time to
//! time, so a rate describes the last few hundred circuits.
//!
//! The thresholds are those of tor's path-bias defence, and the consensus may change them. For the build rate, over at
//! least 150 circuits, there is a notice below 70 %, a warning below 50 %, and the level extreme below 30 %. For the
//! use rate, over at least 20 circuits, there is a notice below 80 % and the level extreme below 60 %.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::netdir::Netdir;
use crate::exit::Fingerprint;

/// An alarm: a guard that is suspected of making circuits fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub guard: Fingerprint,
    pub failing: Failing,
    pub level: Level,
    /// The number of recent circuits that succeeded.
    pub succeeded: u32,
    /// The number of all recent circuits.
    pub attempted: u32,
}

/// The kind of failure that happens too many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failing {
    /// Circuits get past the guard but are not completed.
    Builds,
    /// Circuits are completed, but destroyed when they are used.
    Uses,
}

/// How far the success rate is below normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// More failures than usual. The usual cause is an overloaded network.
    Notice,
    /// Many more failures than usual. The cause is the network, the guard or an attack.
    Warning,
    /// So many failures that another guard should be used.
    Extreme,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guard, succeeded, attempted, .. } = self;
        let outcome = match self.failing {
            Failing::Builds => "were completed",
            Failing::Uses => "were of use",
        };
        let judgement = match self.level {
            Level::Notice => "fewer than usual: the Tor network may be overloaded",
            Level::Warning => "very few: overload, a failing guard, or an attack",
            Level::Extreme => "so few that the guard may be choosing which circuits to let through",
        };
        write!(f, "of the last {attempted} circuits past guard {guard} only {succeeded} {outcome}, {judgement}")
    }
}

/// The numbers of successes and of attempts. Both numbers are halved from time to time, so old results lose weight.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Tally {
    attempts: f64,
    successes: f64,
}

impl Tally {
    fn note(&mut self, success: bool, scale_at: f64, factor: f64) {
        self.attempts += 1.0;
        self.successes += f64::from(u8::from(success));
        if self.attempts > scale_at {
            self.attempts *= factor;
            self.successes *= factor;
        }
    }

    /// Returns true if there were at least `least` attempts and the share of successes is smaller than `rate`.
    fn is_below(&self, rate: f64, least: f64) -> bool {
        self.attempts > least && self.successes / self.attempts < rate
    }

    fn counts(&self) -> (u32, u32) {
        (self.successes.round() as u32, self.attempts.round() as u32)
    }
}

/// The success rates of builds and of uses for one guard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Bias {
    builds: Tally,
    uses: Tally,
}

impl Bias {
    pub(super) fn note_build(&mut self, built: bool, limits: &Limits) {
        self.builds.note(built, limits.scale_builds, limits.scale_factor);
    }

    pub(super) fn note_use(&mut self, carried: bool, limits: &Limits) {
        self.uses.note(carried, limits.scale_uses, limits.scale_factor);
    }

    /// Returns the more serious alarm of the two rates, if there is one.
    pub(super) fn alarm(&self, guard: Fingerprint, limits: &Limits) -> Option<Alarm> {
        let builds = limits.build_rates.iter().rev().find(|(_, rate)| self.builds.is_below(*rate, limits.least_builds));
        let uses = limits.use_rates.iter().rev().find(|(_, rate)| self.uses.is_below(*rate, limits.least_uses));
        let alarm = |failing, tally: &Tally, level| {
            let (succeeded, attempted) = tally.counts();
            Alarm { guard, failing, level, succeeded, attempted }
        };
        let builds = builds.map(|(level, _)| alarm(Failing::Builds, &self.builds, *level));
        let uses = uses.map(|(level, _)| alarm(Failing::Uses, &self.uses, *level));
        builds.into_iter().chain(uses).max_by_key(|alarm| alarm.level)
    }
}

/// The thresholds of the alarms. The consensus can change each of them.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    build_rates: [(Level, f64); 3],
    use_rates: [(Level, f64); 2],
    least_builds: f64,
    least_uses: f64,
    scale_builds: f64,
    scale_uses: f64,
    scale_factor: f64,
    pub(super) drop_guards: bool,
}

impl Limits {
    pub(super) fn of(dir: &Netdir) -> Self {
        Self::read(|name, default, min, max| f64::from(dir.param_or(name, default, min..=max)))
    }

    fn read(param: impl Fn(&str, i32, i32, i32) -> f64) -> Self {
        let percent = |name, default| param(name, default, 0, 100) / 100.0;
        let divisor = param("pb_scalefactor", 2, 2, i32::MAX);
        Self {
            build_rates: [
                (Level::Notice, percent("pb_noticepct", 70)),
                (Level::Warning, percent("pb_warnpct", 50)),
                (Level::Extreme, percent("pb_extremepct", 30)),
            ],
            use_rates: [
                (Level::Notice, percent("pb_noticeusepct", 80)),
                (Level::Extreme, percent("pb_extremeusepct", 60)),
            ],
            least_builds: param("pb_mincircs", 150, 5, i32::MAX),
            least_uses: param("pb_minuse", 20, 3, i32::MAX),
            scale_builds: param("pb_scalecircs", 300, 10, i32::MAX),
            scale_uses: param("pb_scaleuse", 100, 10, i32::MAX),
            scale_factor: (param("pb_multfactor", 1, 1, i32::MAX) / divisor).min(1.0),
            drop_guards: param("pb_dropguards", 0, 0, 1) > 0.5,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::read(|_, default, _, _| f64::from(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_results_lose_weight_beyond_the_limit() {
        let mut tally = Tally::default();
        (0..10).for_each(|n| tally.note(n % 2 == 0, 10.0, 0.5));
        assert_eq!((tally.successes, tally.attempts), (5.0, 10.0), "up to the limit all results count");
        tally.note(true, 10.0, 0.5);
        assert_eq!((tally.successes, tally.attempts), (3.0, 5.5));
        (0..20).for_each(|_| tally.note(true, 10.0, 0.5));
        assert!(tally.attempts <= 10.0);
    }

    #[test]
    fn a_rate_is_judged_after_enough_attempts() {
        let tally = |successes, attempts| Tally { attempts, successes };
        assert!(!tally(0.0, 20.0).is_below(0.6, 20.0), "not more attempts than the least number");
        assert!(tally(0.0, 21.0).is_below(0.6, 20.0));
        assert!(!tally(20.0, 40.0).is_below(0.5, 20.0), "exactly the rate");
        assert!(tally(19.0, 40.0).is_below(0.5, 20.0));
    }
}
