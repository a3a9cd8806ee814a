//! Metrics of the checks of Tor exits.

use std::collections::BTreeMap;

use metrics::{counter, gauge, histogram};

use super::evaluator::{PageHealth, SITE};
use super::exit_update;
use super::round::{EchoRound, SiteRound};
use crate::exit::ExitId;
use crate::telemetry::metrics as names;

/// Counts the echo probes of one check in the metrics. The metric handles are looked up each time, because there are
/// only a few checks per second.
pub(super) fn round(exit: &ExitId, round: &EchoRound) {
    let (source, outcome) = (exit.source().as_str(), exit_update::outcome(&round.conclusion));
    counter!(names::CHECKS, "source" => source, "outcome" => outcome).increment(1);
    if let Some(latency) = exit_update::latency(round) {
        histogram!(names::CHECK_OPEN_SECONDS, "source" => source).record(latency);
    }
}

/// Counts one answer of a site in the metrics.
pub(super) fn site(name: &str, round: &SiteRound) {
    let outcome = match round.result {
        None => "ours",
        Some(Ok(())) => "good",
        Some(Err(miss)) => miss.as_str(),
    };
    counter!(names::CHECKS_OF_SITES, "check" => name.to_owned(), "outcome" => outcome).increment(1);
}

/// Sets the gauges of how many pages are suspended because they fail for most good exits.
pub(super) fn page_health(all: &[PageHealth]) {
    let mut suspended: BTreeMap<String, f64> = BTreeMap::new();
    for page in all {
        let check = if page.kind == SITE { page.name.to_string() } else { page.kind.to_owned() };
        *suspended.entry(check).or_default() += f64::from(u8::from(page.suspended.is_some()));
    }
    let budgets = || all.iter().filter_map(|page| page.budget);
    counter!(names::ECHO_REQUESTS).absolute(budgets().map(|(requests, _)| requests).sum());
    gauge!(names::ECHO_BUDGET).set(budgets().map(|(_, left)| left).min().unwrap_or_default() as f64);
    for (check, count) in suspended {
        gauge!(names::CHECKS_SUSPENDED, "check" => check).set(count);
    }
}

/// Sets the gauges of how many checks run, and how many exits are due.
pub(super) fn load(running: usize, waiting: usize) {
    gauge!(names::CHECKS_RUNNING).set(running as f64);
    gauge!(names::CHECKS_WAITING).set(waiting as f64);
}
