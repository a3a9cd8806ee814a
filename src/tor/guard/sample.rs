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
