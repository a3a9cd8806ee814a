//! Who is missing from which consensus, and who restarts when.
//!
//! The network loses 1.2 % of its relays from one hour to the next, and yet the median exit is half a year old: a few
//! relays come and go all the time. So nine of ten disappearances are those of `flaky` relays, about a seventh of all.
//! Half of those who vanish are back in the next hour, the others after two hours to half a day.
//!
//! Nothing is remembered from hour to hour: whether a relay vanished in an hour is a hash of both, and who is listed
//! follows from the last half day's hashes. So any hour can be asked for at any time.

use super::Model;
use super::draw::hash;

/// The part of all disappearances that flaky relays have.
const BY_FLAKY: f64 = 0.9;

/// The longest absence, in hours.
const LONGEST: u64 = 12;

/// The mean absence, in hours, as [`absence`] draws it.
const MEAN_ABSENCE: f64 = 2.3;

/// Relays that restart together: an operator's, in lots of this many.
const LOT: usize = 60;

pub(super) fn is_listed(model: &Model, place: usize, hour: u64) -> bool {
    let first = hour.saturating_sub(LONGEST - 1).max(1);
    let probability = probability(model, place);
    !(first..=hour).any(|began| {
        let vanished = hash(model.seed, place as u64, began) < probability;
        vanished && hour < began + absence(model.seed, place, began)
    })
}

/// The chance that a relay vanishes in an hour.
fn probability(model: &Model, place: usize) -> f64 {
    const FLAKY_PART: f64 = 0.15; // by the chances in `build.rs`
    if !model.relays()[place].flaky {
        return model.churn * (1.0 - BY_FLAKY) / (1.0 - FLAKY_PART);
    }
    // Who is absent cannot vanish, so those who are there do so more often: p · exp(-absence · p) is what shows. It is
    // largest at p = 1 / absence, where some 2.5 % of all relays vanish in an hour.
    let shows = model.churn * BY_FLAKY / FLAKY_PART;
    let next = |p: f64| (shows * (MEAN_ABSENCE * p).exp()).min(1.0 / MEAN_ABSENCE);
    (0..16).fold(shows, |p, _| next(p))
}

/// For how many hours: one for every second disappearance, else up to half a day, short times more often.
fn absence(seed: u64, place: usize, began: u64) -> u64 {
    let number = hash(!seed, place as u64, began);
    if number < 0.5 { 1 } else { 2 + ((number * 2.0 - 1.0).powi(4) * (LONGEST - 2) as f64) as u64 }
}

/// Exits restart in 15 % of all days, others in 6 %.
pub(super) fn restarts(model: &Model, hour: u64) -> Vec<usize> {
    let mut seen = std::collections::HashMap::new();
    let places = model.relays().iter().enumerate();
    let restarting = places.filter(|(_, relay)| {
        let member = seen.entry(relay.family).or_insert(0);
        *member += 1;
        let lot = u64::from(relay.family) << 16 | (*member / LOT) as u64;
        let a_day = if relay.flags.exit { 0.15 } else { 0.06 };
        hash(model.seed.rotate_left(17), lot, hour) < a_day / 24.0
    });
    restarting.map(|(place, _)| place).collect()
}
