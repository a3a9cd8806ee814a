//! The budget of each echo server: how many requests checks may make to it. Pure.
//!
//! Echo servers belong to other people. So the budget limits the checks that the tester makes by itself, however many
//! exits routes want. Checks that a person orders are counted too, but the budget does not delay them. The testers of
//! Tor exits, of own addresses and of upstream exits use the same echo servers, so they share one budget.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::check_rate::CheckRate;
use crate::config::Check;
use crate::exit::Moment;

/// How many hours of the budget may be used at the same time after a pause. With the default configuration, this is
/// enough for one first check of every exit.
const BURST_HOURS: u32 = 8;

/// How many requests each echo server gets at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EchoTerms {
    /// Requests to each server per hour, on average.
    pub per_hour: f64,
}

#[derive(Debug)]
struct Server {
    rate: CheckRate,
    requests: u64,
}

/// The budgets of all echo servers. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct EchoBudget(Arc<Mutex<Vec<Server>>>);

impl EchoBudget {
    /// Returns the budget that `check.echo_per_hour` gives to each server in `check.echo`.
    pub fn of(check: &Check) -> Self {
        Self::new(EchoTerms { per_hour: check.echo_per_hour }, check.echo.len())
    }

    pub(super) fn new(terms: EchoTerms, servers: usize) -> Self {
        let each = Duration::try_from_secs_f64(3600.0 / terms.per_hour).unwrap_or(Duration::MAX);
        let burst = each.saturating_mul((terms.per_hour * f64::from(BURST_HOURS)).max(1.0) as u32);
        let servers = (0..servers).map(|_| Server { rate: CheckRate::new(each, burst), requests: 0 }).collect();
        Self(Arc::new(Mutex::new(servers)))
    }

    /// Counts one request to the server with this index.
    pub(super) fn spend(&self, server: usize, now: Moment) {
        self.with(|servers| {
            let Some(server) = servers.get_mut(server) else { return };
            server.requests += 1;
            server.rate.take(now);
        });
    }

    /// Returns the time from which every echo server may get one more request.
    pub(super) fn next(&self) -> Moment {
        self.with(|servers| servers.iter().map(|server| server.rate.next()).max().unwrap_or_default())
    }

    /// Returns the time from which every echo server has at least half of its budget left. Checks that can wait leave
    /// the other half to checks that routes need.
    pub(super) fn next_half(&self) -> Moment {
        self.with(|servers| servers.iter().map(|server| server.rate.next_half()).max().unwrap_or_default())
    }

    /// Returns how many requests the server with this index has got since the gateway started.
    pub fn requests(&self, server: usize) -> u64 {
        self.with(|servers| servers.get(server).map_or(0, |server| server.requests))
    }

    /// Returns how many requests the server with this index may get now.
    pub fn left(&self, server: usize, now: Moment) -> u64 {
        self.with(|servers| servers.get(server).map_or(0, |server| server.rate.left(now)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Server>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_788_314_400_000_000);

    #[test]
    fn each_server_has_a_budget_of_its_own_that_fills_again() {
        let budget = EchoBudget::new(EchoTerms { per_hour: 10.0 }, 2);
        assert_eq!((budget.left(0, START), budget.left(1, START), budget.left(2, START)), (80, 80, 0));
        (0..40).for_each(|_| budget.spend(0, START));
        assert!(budget.next() <= START && budget.next_half() <= START, "half is left");
        budget.spend(0, START);
        assert_eq!(budget.next_half(), START.after(Duration::from_secs(360)), "one more request takes six minutes");
        (0..39).for_each(|_| budget.spend(0, START));
        assert_eq!((budget.left(0, START), budget.requests(0), budget.requests(1)), (0, 80, 0));
        assert_eq!(budget.next(), START.after(Duration::from_secs(360)));
        let later = START.after(Duration::from_secs(3600));
        assert_eq!((budget.left(0, later), budget.left(1, later)), (10, 80));
        assert_eq!(EchoBudget::new(EchoTerms { per_hour: 1.0 }, 0).next(), Moment(0));
        budget.clone().spend(1, START);
        assert_eq!(budget.requests(1), 1, "testers that share a budget count together");
    }
}
