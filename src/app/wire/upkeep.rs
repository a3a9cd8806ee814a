//! Starts the workers that update metrics which are not updated where they change.

use std::sync::Arc;
use std::time::Duration;

use super::exits;
use super::gauges::Gauges;
use crate::api;
use crate::gateway::outbound::Outbound;
use crate::lifecycle::Tasks;
use crate::limit::Limits;
use crate::state::State;
use crate::telemetry::{Telemetry, metrics};
use crate::tor::Tor;

/// The time between two updates of metrics that are not updated where they change: the gauges, the counters that other
/// libraries keep, and the histograms. Any value below the interval at which Prometheus reads metrics (15 s or more) is
/// good.
const UPKEEP: Duration = Duration::from_secs(5);

/// Starts the worker that copies the counters of other parts into the metrics.
pub(super) fn start_upkeep(
    tasks: &Tasks,
    telemetry: &Arc<Telemetry>,
    state: &State,
    limits: &Limits,
    outbound: &Arc<Outbound>,
) {
    let (worker, telemetry, limits, outbound) = (tasks.clone(), telemetry.clone(), limits.clone(), outbound.clone());
    ::metrics::gauge!(metrics::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    tasks.supervise("upkeep", move || {
        let (tasks, telemetry, limits, outbound) =
            (worker.clone(), telemetry.clone(), limits.clone(), outbound.clone());
        async move {
            let mut tick = tokio::time::interval(UPKEEP);
            while !tasks.is_stopping() {
                tokio::select! {
                    () = tasks.stopping() => {}
                    _ = tick.tick() => {}
                }
                telemetry.upkeep();
                outbound.tidy();
                limits.tidy(std::time::Instant::now());
                ::metrics::counter!(metrics::PANICS).absolute(tasks.panics());
                ::metrics::gauge!(metrics::TASKS).set(tasks.running() as f64);
            }
        }
    });
    let (worker, state) = (tasks.clone(), state.clone());
    tasks.supervise("state", move || state.clone().run(worker.clone()));
}

/// Starts the worker that updates the gauges, and logs when the gateway becomes ready or unready.
pub(super) fn start_gauges(
    tasks: &Tasks,
    state: &State,
    tor: Option<Tor>,
    readiness: Arc<dyn Fn() -> api::Readiness + Send + Sync>,
) {
    let (worker, state) = (tasks.clone(), state.clone());
    tasks.supervise("gauges", move || {
        let (tasks, state, tor, readiness) = (worker.clone(), state.clone(), tor.clone(), readiness.clone());
        async move {
            let mut tick = tokio::time::interval(UPKEEP);
            let (mut gauges, mut log) = (Gauges::default(), exits::ReadinessLog::default());
            while !tasks.is_stopping() {
                tokio::select! {
                    () = tasks.stopping() => {}
                    _ = tick.tick() => {
                        gauges.update(&state, tor.as_ref());
                        log.update(&readiness());
                    }
                }
            }
        }
    });
}
