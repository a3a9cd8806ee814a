//! `/history`: the figures of the last 24 hours, one value per minute, from the gateway's own memory.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::extract::{Params, bad_query};
use super::timestamp::Timestamp;
use crate::exit::Moment;
use crate::lifecycle::Tasks;
use crate::telemetry::history::{AtFault, EVERY, MINUTES, Minute, TOTALS};

const MINUTE: Duration = Duration::from_secs(60);

/// The query of `GET /history`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SpanQuery {
    /// The number of minutes, up to now.
    #[param(minimum = 1, maximum = 1440, default = 1440)]
    minutes: Option<usize>,
}

/// The figures of the last 24 hours. Each list has one value per minute, oldest first; the last minute is not over yet. A value is null if the gateway took no reading in that minute. A restart of the gateway empties the lists.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct HistoryShown {
    /// The beginning of the first minute; null right after the start of the gateway, when the lists are empty.
    from: Option<Timestamp>,
    /// The length of one step of the lists.
    #[schema(example = 60)]
    step_seconds: u64,
    /// Requests that ended, with the failed ones.
    requests: Vec<Option<u32>>,
    /// Failed requests by who was at fault: `client` (a wrong request, a wrong key, a limit, a forbidden target), `no_exit` (no exit matched or was usable), `gateway` (the gateway or an engine), `exit`, `target`, or `unknown` (the deadline passed first).
    #[schema(value_type = BTreeMap<String, Vec<Option<u32>>>)]
    failed: BTreeMap<&'static str, Vec<Option<u32>>>,
    /// Usable exits: the smallest number in that minute.
    usable_exits: Vec<Option<u32>>,
    /// The median time from a request to its open stream, in milliseconds; null if no stream was opened.
    open_p50_ms: Vec<Option<u32>>,
    /// The time below which 95 % of the streams were opened, in milliseconds; null if no stream was opened.
    open_p95_ms: Vec<Option<u32>>,
}

/// The figures of the last 24 hours, one value per minute: requests, failures by who was at fault, usable exits, and the time to open a stream.
#[utoipa::path(get, path = "/history", tag = "gateway", params(SpanQuery),
    responses((status = 200, body = HistoryShown), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn history(
    State(wiring): State<Wiring>,
    Params(query): Params<SpanQuery>,
) -> Result<Response, ApiError> {
    let minutes = query.minutes.unwrap_or(MINUTES);
    if !(1..=MINUTES).contains(&minutes) {
        let message = format!("`minutes` is a number from 1 to {MINUTES}");
        return Err(bad_query(message).with(json!({ "field": "minutes" })));
    }
    Ok(Json(HistoryShown::of(&wiring.history.last(minutes))).into_response())
}

impl HistoryShown {
    fn of(minutes: &[Option<Minute>]) -> Self {
        let each = |pick: &dyn Fn(&Minute) -> u32| minutes.iter().map(|one| one.as_ref().map(pick)).collect();
        // The history begins with a minute that had a reading, or, if fewer minutes were requested, with any minute.
        let known = minutes.iter().enumerate().find_map(|(at, minute)| Some((at, minute.as_ref()?.number)));
        let begin = known.map(|(at, number)| u64::from(number).saturating_sub(at as u64));
        let moment = |number: u64| Timestamp(Moment(0).after(MINUTE * u32::try_from(number).unwrap_or(u32::MAX)));
        let failed = AtFault::ALL.map(|fault| (fault.as_str(), each(&|minute| minute.failed[fault as usize])));
        Self {
            from: begin.map(moment),
            step_seconds: MINUTE.as_secs(),
            requests: each(&|minute| minute.requests),
            failed: failed.into(),
            usable_exits: each(&|minute| minute.usable),
            open_p50_ms: minutes.iter().map(|one| one.and_then(|minute| minute.open_p50)).collect(),
            open_p95_ms: minutes.iter().map(|one| one.and_then(|minute| minute.open_p95)).collect(),
        }
    }
}

/// Adds a reading to the history every few seconds, until the gateway stops.
pub(super) async fn watch(wiring: Wiring, tasks: Tasks) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopping() => return,
            _ = tick.tick() => {
                let usable: usize = wiring.state.snapshot().catalog.countries().map(|(_, count)| count.usable).sum();
                let minute = wiring.state.now().0 / MINUTE.as_micros() as u64;
                let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
                wiring.history.add(count(minute), TOTALS.read(), u32::try_from(usable).unwrap_or(u32::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::history::{History, Totals};

    #[test]
    fn lists_have_one_value_per_minute_and_null_for_gaps() {
        let totals = Totals::new();
        let history = History::new(totals.read());
        totals.ended(Some(AtFault::Target));
        totals.opened(Duration::from_millis(20));
        history.add(29_000_000, totals.read(), 8);
        history.add(29_000_002, totals.read(), 9);
        let shown = |minutes| serde_json::to_value(HistoryShown::of(&history.last(minutes))).unwrap();
        let all = shown(MINUTES);
        assert_eq!((&all["from"], &all["step_seconds"]), (&json!("2025-02-19T21:20:00.000Z"), &json!(60)));
        assert_eq!(all["requests"], json!([1, null, 0]));
        assert_eq!((&all["failed"]["target"], &all["failed"]["exit"]), (&json!([1, null, 0]), &json!([0, null, 0])));
        assert_eq!(all["usable_exits"], json!([8, null, 9]));
        assert_eq!((&all["open_p50_ms"], &all["open_p95_ms"]), (&json!([18, null, null]), &json!([24, null, null])));
        let two = shown(2);
        assert_eq!((&two["from"], &two["requests"]), (&json!("2025-02-19T21:21:00.000Z"), &json!([null, 0])));
    }

    #[test]
    fn right_after_the_start_there_is_nothing() {
        let none = serde_json::to_value(HistoryShown::of(&[])).unwrap();
        assert_eq!((&none["from"], &none["requests"]), (&json!(null), &json!([])));
    }
}
