//! The members of the sample of guards: how they are drawn, whether they are listed, how long they stay, and when a
//! guard that is down is tried again.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::super::netdir::weight::{self, Position};
use super::super::netdir::{Flags, Netdir, Relay};
use super::bias::Bias;
use super::settings::past;
use super::{Exclude, GuardState, is_excluded, seconds};
use crate::exit::Fingerprint;

/// One guard of the sample (the guards among which an engine chooses). All times are in seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Candidate {
    #[serde(with = "super::hex")]
    pub(super) id: Fingerprint,
    pub(super) added: u64,
    #[serde(default)]
    pub(super) confirmed: Option<u64>,
    #[serde(default)]
    pub(super) unlisted_since: Option<u64>,
    /// True if this guard was dropped because circuits through it failed selectively.
    #[serde(default)]
    pub(super) dropped: bool,
    #[serde(default)]
    pub(super) bias: Bias,
    /// True if the guard could be used at the last choice: it was listed and neither dropped nor excluded.
    #[serde(skip)]
    pub(super) fit: bool,
    #[serde(skip)]
    pub(super) primary: bool,
    #[serde(skip)]
    pub(super) reach: Reach,
    #[serde(skip)]
    pub(super) failing_since: Option<u64>,
    #[serde(skip)]
    pub(super) last_tried: u64,
}

/// Whether a guard could be reached at its last try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    Yes,
    No,
    /// The guard was not tried, or its last try was too long ago.
    #[default]
    Maybe,
}

/// How long to wait before the next try of a guard that is down. Each row has three values in seconds: the longest time
/// that the guard has been down, the wait for a primary guard, and the wait for any other guard. The values are
/// `PRIMARY_GUARDS_RETRY_SCHED` and `GUARDS_RETRY_SCHED` of the specification.
const RETRIES: [(u64, u64, u64); 4] = [
    (6 * 3600, 10 * 60, 3600),
    (4 * 86_400, 90 * 60, 4 * 3600),
    (7 * 86_400, 4 * 3600, 18 * 3600),
    (u64::MAX, 9 * 3600, 36 * 3600),
];

impl Candidate {
    pub(super) fn may_be_up(&mut self) {
        if self.reach == Reach::No {
            self.reach = Reach::Maybe;
        }
    }

    pub(super) fn was_up_once(&mut self) {
        if self.reach == Reach::Yes {
            self.reach = Reach::Maybe;
        }
    }

    /// Returns the time when this guard may be tried again, in seconds since 1970.
    pub(super) fn retry_at(&self) -> u64 {
        let down_for = self.last_tried.saturating_sub(self.failing_since.unwrap_or(self.last_tried));
        let step = RETRIES.iter().find(|(up_to, ..)| down_for <= *up_to);
        let (_, primary, other) = step.unwrap_or(&RETRIES[RETRIES.len() - 1]);
        self.last_tried.saturating_add(if self.primary { *primary } else { *other })
    }
}

/// Returns true if this relay can be the guard for all circuits and all directory downloads.
pub(super) fn is_possible_guard(relay: Relay<'_>) -> bool {
    let needed =
        Flags::GUARD.and(Flags::STABLE).and(Flags::FAST).and(Flags::V2DIR).and(Flags::VALID).and(Flags::RUNNING);
    relay.flags().has(needed)
}

/// Returns true if the consensus is not too old. An old consensus or a wrong clock must not remove members from the
/// sample. Like tor, we accept a consensus for a day before and after its period of validity.
fn is_live(dir: &Netdir, now: u64) -> bool {
    const GRACE: u64 = 86_400;
    let begun = dir.valid_after().is_none_or(|begin| now.saturating_add(GRACE) >= seconds(begin));
    begun && dir.valid_until().is_none_or(|end| now <= seconds(end).saturating_add(GRACE))
}

impl GuardState {
    /// Records which members a new directory lists, and removes members whose lifetime is over.
    pub(super) fn follow<R: Rng + ?Sized>(&mut self, dir: &Netdir, now: u64, rng: &mut R) {
        if !is_live(dir, now) {
            return;
        }
        let settings = &self.settings;
        for candidate in &mut self.sample {
            // If the clock was ahead when this member was added, the stored time is in the future, and the member would
            // stay in the sample for too long.
            candidate.added = candidate.added.min(now);
            candidate.confirmed = candidate.confirmed.map(|since| since.min(now));
            let listed = dir.relay(&candidate.id).is_some_and(is_possible_guard);
            match (listed, candidate.unlisted_since) {
                (true, Some(_)) => candidate.unlisted_since = None,
                (false, None) => candidate.unlisted_since = Some(past(now, settings.unlisted_lifetime / 5, rng)),
                _ => {}
            }
        }
        let older = |than: u64, since: u64| since < now.saturating_sub(than);
        self.sample.retain(|candidate| {
            let gone = candidate.unlisted_since.is_some_and(|since| older(settings.unlisted_lifetime, since));
            let settled = candidate.confirmed.is_some_and(|since| !older(settings.confirmed_lifetime, since));
            !gone && (settled || !older(settings.lifetime, candidate.added))
        });
    }

    pub(super) fn filter(&mut self, dir: &Netdir, exclude: &Exclude<'_>) {
        for candidate in &mut self.sample {
            let relay = dir.relay(&candidate.id).filter(|relay| is_possible_guard(*relay));
            candidate.fit = !candidate.dropped && relay.is_some_and(|relay| !is_excluded(relay, dir, exclude));
        }
    }

    /// Draws new members of the sample of guards until enough members are usable and not down, or until the sample is
    /// full. Returns the number of guards in the directory.
    pub(super) fn extend<R: Rng + ?Sized>(
        &mut self,
        dir: &Netdir,
        now: u64,
        rng: &mut R,
        exclude: &Exclude<'_>,
    ) -> usize {
        let guards: Vec<Relay<'_>> = dir.relays().filter(|relay| is_possible_guard(*relay)).collect();
        let largest = self.settings.largest_sample(guards.len());
        let mut hopeful = self.sample.iter().filter(|candidate| candidate.fit && candidate.reach != Reach::No).count();
        if hopeful >= self.settings.min_fit || self.sample.len() >= largest {
            return guards.len();
        }
        let mut left: Vec<_> = guards.iter().filter(|relay| self.place(relay.fingerprint()).is_none()).collect();
        let mut weights: Vec<u64> = left.iter().map(|relay| relay.weight(Position::Guard)).collect();
        while hopeful < self.settings.min_fit && self.sample.len() < largest {
            let Some(place) = weight::pick(&weights, rng) else { break };
            weights.swap_remove(place);
            let relay = left.swap_remove(place);
            let fit = !is_excluded(*relay, dir, exclude);
            hopeful += usize::from(fit);
            let candidate = Candidate { fit, ..self.candidate(relay.fingerprint(), now, rng) };
            self.sample.push(candidate);
        }
        guards.len()
    }

    pub(super) fn candidate<R: Rng + ?Sized>(&self, id: Fingerprint, now: u64, rng: &mut R) -> Candidate {
        Candidate {
            id,
            added: self.settings.blur(now, rng),
            confirmed: None,
            unlisted_since: None,
            dropped: false,
            bias: Bias::default(),
            fit: true,
            primary: false,
            reach: Reach::Maybe,
            failing_since: None,
            last_tried: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::super::super::netdir::synth::{Fake, WEIGHTS, texts};
    use super::super::{Exclude, Reachable};
    use super::*;

    const NOW: u64 = 1_795_264_200;
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn relays(count: u16) -> Vec<Fake> {
        let guard = |seed| Fake { flags: "Fast Guard Running Stable V2Dir Valid".into(), ..Fake::new(seed) };
        (1..=count).map(guard).collect()
    }

    fn directory(relays: &[Fake]) -> Netdir {
        let (consensus, microdescs) = texts(relays, "", WEIGHTS);
        Netdir::parse(&consensus, &microdescs).unwrap()
    }

    /// Returns a directory without times, which counts as new at any time.
    fn timeless(relays: &[Fake]) -> Netdir {
        let (consensus, microdescs) = texts(relays, "", WEIGHTS);
        Netdir::parse(&consensus.replace("valid-", "x-valid-"), &microdescs).unwrap()
    }

    fn sampled(dir: &Netdir, rng: &mut SmallRng) -> GuardState {
        let mut state = GuardState::default();
        grow(&mut state, dir, rng);
        state
    }

    fn grow(state: &mut GuardState, dir: &Netdir, rng: &mut SmallRng) {
        let reachable = Reachable::default();
        let exclude = Exclude { guards: &[], rules: super::super::Rules::default(), reachable: &reachable };
        state.filter(dir, &exclude);
        state.extend(dir, NOW, rng, &exclude);
    }

    #[test]
    fn a_directory_counts_for_a_day_before_and_after_its_time() {
        let dir = directory(&relays(3));
        let (begin, end) = (seconds(dir.valid_after().unwrap()), seconds(dir.valid_until().unwrap()));
        assert!(begin < NOW && NOW < end);
        for (now, live) in
            [(begin - DAY - 1, false), (begin - DAY, true), (NOW, true), (end + DAY, true), (end + DAY + 1, false)]
        {
            assert_eq!(is_live(&dir, now), live, "{now}");
        }
        assert!(is_live(&timeless(&relays(3)), 0));
    }

    #[test]
    fn a_directory_that_is_long_over_removes_no_guard() {
        let (relays, mut rng) = (relays(30), SmallRng::seed_from_u64(1));
        let mut state = sampled(&timeless(&relays), &mut rng);
        state.follow(&directory(&relays[..1]), NOW + 400 * DAY, &mut rng);
        assert_eq!(state.sample.len(), 20);
        assert!(state.sample.iter().all(|guard| guard.unlisted_since.is_none()));
        state.follow(&timeless(&relays[..1]), NOW + 400 * DAY, &mut rng);
        assert!(state.sample.is_empty(), "a new directory does");
    }

    #[test]
    fn a_guard_that_is_lost_for_twenty_days_leaves_and_one_that_came_back_does_not() {
        let relays = relays(3);
        let (both, none) = (timeless(&relays[..2]), timeless(&relays[2..]));
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut state = sampled(&both, &mut rng);
            state.sample.iter_mut().for_each(|guard| guard.added = NOW);
            for (day, dir) in [(0, &none), (10, &both), (19, &none), (34, &none)] {
                state.follow(dir, NOW + day * DAY, &mut rng);
                assert_eq!(state.sample.len(), 2, "day {day}: lost for 15 to 19 days at most");
            }
            state.follow(&none, NOW + 40 * DAY, &mut rng);
            assert_eq!(state.sample.len(), 0, "lost for 21 days or more");
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut state = sampled(&both, &mut rng);
        state.sample[0].unlisted_since = Some(NOW - 20 * DAY);
        state.sample[1].unlisted_since = Some(NOW - 20 * DAY - 1);
        let stays = state.sample[0].id;
        state.follow(&none, NOW, &mut rng);
        assert_eq!(state.sample.iter().map(|guard| guard.id).collect::<Vec<_>>(), [stays]);
    }

    #[test]
    fn the_time_of_a_loss_is_blurred_by_up_to_four_days() {
        let relays = relays(3);
        let times = (0..100).map(|seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut state = sampled(&timeless(&relays[..2]), &mut rng);
            state.follow(&timeless(&relays[2..]), NOW, &mut rng);
            NOW - state.sample[0].unlisted_since.unwrap()
        });
        let times: Vec<u64> = times.collect();
        assert!(times.iter().all(|ago| *ago <= 4 * DAY) && times.iter().any(|ago| *ago > 3 * DAY), "{times:?}");
    }

    #[test]
    fn guards_that_are_down_are_replaced_up_to_a_limit() {
        let (dir, mut rng) = (timeless(&relays(200)), SmallRng::seed_from_u64(1));
        let mut state = sampled(&dir, &mut rng);
        assert_eq!(state.sample.len(), 20);
        state.sample.iter_mut().take(5).for_each(|guard| guard.reach = Reach::No);
        grow(&mut state, &dir, &mut rng);
        assert_eq!(state.sample.len(), 25, "twenty are not down");
        grow(&mut state, &dir, &mut rng);
        assert_eq!(state.sample.len(), 25);
        for _ in 0..4 {
            state.sample.iter_mut().for_each(|guard| guard.reach = Reach::No);
            grow(&mut state, &dir, &mut rng);
        }
        assert_eq!(state.sample.len(), 40, "a fifth of all guards");
    }

    #[test]
    fn guards_are_tried_again_as_often_as_the_specification_says() {
        let mut rng = SmallRng::seed_from_u64(1);
        let guard = GuardState::default().candidate(Fingerprint([1; 20]), NOW, &mut rng);
        for (down_for, primary, other) in [
            (0, 600, HOUR),
            (6 * HOUR, 600, HOUR),
            (6 * HOUR + 1, 90 * 60, 4 * HOUR),
            (4 * DAY, 90 * 60, 4 * HOUR),
            (4 * DAY + 1, 4 * HOUR, 18 * HOUR),
            (7 * DAY, 4 * HOUR, 18 * HOUR),
            (7 * DAY + 1, 9 * HOUR, 36 * HOUR),
        ] {
            for (primary, wait) in [(true, primary), (false, other)] {
                let failing_since = Some(NOW);
                let guard = Candidate { failing_since, last_tried: NOW + down_for, primary, ..guard.clone() };
                assert_eq!(guard.retry_at(), NOW + down_for + wait, "{down_for} {primary}");
            }
        }
    }
}
