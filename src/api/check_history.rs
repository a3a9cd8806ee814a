//! `/exits/{id}/checks`: the past checks of one exit. They show why the exit counts as good or bad.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::exits::find;
use super::extract::{Named, Params, limit};
use super::timestamp::Timestamp;
use crate::store::{self, Page, Timings};

/// The query of `GET /exits/{id}/checks`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Only checks of this check target. `echo` is the check of the exit itself.
    target: Option<String>,
    /// The most checks in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only checks before this one: the `next` of the answer before.
    before: Option<i64>,
}

/// A past check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PastCheck {
    /// The check target; `echo` is the check of the exit itself.
    target: String,
    at: Timestamp,
    /// `good`, or what failed.
    outcome: String,
    detail: Option<String>,
    #[schema(value_type = Option<String>)]
    ip: Option<IpAddr>,
    /// The HTTP status.
    status: Option<u16>,
    ms: Stages,
}

/// How long the stages of a check took, in milliseconds; null for a stage that was not reached.
#[derive(Debug, Serialize, ToSchema)]
struct Stages {
    circuit: Option<f64>,
    connect: Option<f64>,
    tls: Option<f64>,
    first_byte: Option<f64>,
    total: Option<f64>,
}

/// A page of past checks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PastChecks {
    checks: Vec<PastCheck>,
    /// The value of `before` for the next, older page.
    next: Option<i64>,
}

/// Lists the past checks of an exit, newest first.
#[utoipa::path(get, path = "/exits/{id}/checks", tag = "exits",
    params(("id" = String, Path, description = "The id of the exit, or the address that sites see"), HistoryQuery),
    responses((status = 200, body = PastChecks), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn checks(
    State(wiring): State<Wiring>,
    Named(id): Named,
    Params(query): Params<HistoryQuery>,
) -> Result<Response, ApiError> {
    let exit = find(&wiring.state.snapshot(), &id)?.id().clone();
    let limit = limit(query.limit)?;
    let page = Page { limit: u32::try_from(limit).unwrap_or(u32::MAX), before: query.before };
    let read = wiring.store.checks(&exit, query.target.as_deref(), page).await;
    let list = read.map_err(|_| ApiError::internal("the history of checks cannot be read"))?;
    Ok(Json(answer(list, limit)).into_response())
}

fn answer(list: Vec<store::Check>, limit: usize) -> PastChecks {
    let next = (list.len() == limit).then(|| list.last().map(|check| check.id)).flatten();
    PastChecks { checks: list.into_iter().map(PastCheck::of).collect(), next }
}

impl PastCheck {
    fn of(check: store::Check) -> Self {
        let Timings { circuit, connect, tls, first_byte, total } = check.timings;
        let ms = |took: Option<std::time::Duration>| took.map(|took| took.as_secs_f64() * 1e3);
        Self {
            target: check.target,
            at: Timestamp(check.at),
            outcome: check.outcome,
            detail: (!check.detail.is_empty()).then_some(check.detail),
            ip: check.ip,
            status: check.status,
            ms: Stages {
                circuit: ms(circuit),
                connect: ms(connect),
                tls: ms(tls),
                first_byte: ms(first_byte),
                total: ms(total),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::exit::{ExitId, Moment};

    #[test]
    fn a_full_page_says_where_the_next_begins() {
        let check = |id| store::Check {
            id,
            exit: ExitId::Direct,
            target: "echo".to_owned(),
            at: Moment(1_000_000),
            outcome: "good".to_owned(),
            detail: String::new(),
            ip: None,
            status: Some(200),
            timings: Timings { tls: Some(Duration::from_micros(1500)), ..Timings::default() },
        };
        let page = serde_json::to_value(answer(vec![check(9), check(7)], 2)).unwrap();
        assert_eq!((&page["next"], &page["checks"][0]["ms"]["tls"]), (&json!(7), &json!(1.5)));
        let first = &page["checks"][0];
        assert_eq!((&first["detail"], &first["at"]), (&json!(null), &json!("1970-01-01T00:00:01.000Z")));
        assert_eq!(answer(vec![check(9)], 2).next, None);
    }
}
