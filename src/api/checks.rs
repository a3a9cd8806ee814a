//! `/exits/{id}/checks`: the history of one exit's checks, which is what a person looks at to believe a verdict.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Wiring;
use super::ask::{Asked, Named, limit};
use super::error::ApiError;
use super::exits::find;
use super::when::When;
use crate::store::{Check, Page, Timings};

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    target: Option<String>,
    limit: Option<usize>,
    before: Option<i64>,
}

/// `GET /exits/{id}/checks`: newest first; `next` is what `before` has to say for older ones.
pub(super) async fn checks(
    State(wiring): State<Wiring>,
    Named(id): Named,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, ApiError> {
    let exit = find(&wiring.state.snapshot(), &id)?.id().clone();
    let limit = limit(wanted.limit)?;
    let page = Page { limit: u32::try_from(limit).unwrap_or(u32::MAX), before: wanted.before };
    let read = wiring.store.checks(&exit, wanted.target.as_deref(), page).await;
    let list = read.map_err(|_| ApiError::ours("the history of checks cannot be read"))?;
    Ok(Json(answer(&list, limit)).into_response())
}

fn answer(list: &[Check], limit: usize) -> Value {
    let next = (list.len() == limit).then(|| list.last().map(|check| check.id)).flatten();
    json!({ "checks": list.iter().map(shown).collect::<Vec<_>>(), "next": next })
}

fn shown(check: &Check) -> Value {
    let Timings { circuit, connect, tls, first_byte, total } = check.timings;
    let ms = |took: Option<std::time::Duration>| took.map(|took| took.as_secs_f64() * 1e3);
    json!({
        "target": check.target,
        "at": When(check.at),
        "outcome": check.outcome,
        "detail": (!check.detail.is_empty()).then_some(&check.detail),
        "ip": check.ip,
        "status": check.status,
        "ms": {
            "circuit": ms(circuit),
            "connect": ms(connect),
            "tls": ms(tls),
            "first_byte": ms(first_byte),
            "total": ms(total),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exit::{ExitId, Moment};

    #[test]
    fn a_full_page_says_where_the_next_begins() {
        let check = |id| Check {
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
        let said = answer(&[check(9), check(7)], 2);
        assert_eq!(said["next"], 7);
        assert_eq!(said["checks"][0]["ms"]["tls"], 1.5);
        assert_eq!(
            (&said["checks"][0]["detail"], &said["checks"][0]["at"]),
            (&Value::Null, &json!("1970-01-01T00:00:01.000Z"))
        );
        assert_eq!(answer(&[check(9)], 2)["next"], Value::Null);
    }
}
