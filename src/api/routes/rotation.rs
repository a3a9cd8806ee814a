//! What a caller does with the exits of a route: take another one (rotate), report that a site refuses one, and ask which
//! one served last.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::super::Wiring;
use super::super::error::{ApiError, Problem};
use super::super::exits::ExitShown;
use super::super::extract::{Body, Named, Nothing, Params};
use super::super::timestamp::Timestamp;
use super::owner::{self, Owned, OwnerQuery};
use crate::admin::BadField;
use crate::exit::ExitId;
use crate::gateway::outbound::rotate::{ReportFault, RotateFault};
use crate::net::Host;
use crate::route::HolderRef;
use crate::route::selector::Mode;

/// How long a caller waits for a verified exit. A rotation makes a few checks, and each of them builds a circuit.
const ROTATE_DEADLINE: Duration = Duration::from_secs(60);

/// What a rotation changed.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Rotated {
    /// The address before; null if no exit had been chosen.
    before: Option<String>,
    /// The address now, as a check has just seen it.
    after: Option<String>,
    /// The exit before.
    before_exit: Option<String>,
    /// The exit now.
    exit: ExitShown,
}

/// A report that a site refuses an exit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Report {
    /// The site that refused.
    #[schema(example = "shop.example")]
    site: String,
    /// The exit by id or address; without it, the exit of the session or the pin.
    exit: Option<String>,
    /// The session that used the exit.
    session: Option<String>,
    /// The name of the client's key, where there are keys.
    key: Option<String>,
    /// What went wrong: `blocked`, `captcha`, …
    #[schema(example = "captcha")]
    outcome: Option<String>,
}

/// The ban that a report made.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct BanShown {
    site: String,
    exit: String,
    until: Timestamp,
}

/// The exit that served last.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Last {
    /// Where this is known from: the `session`, the `pin`, or the last connection of the `route`.
    by: &'static str,
    /// The id of the exit.
    id: String,
    /// The address that sites saw.
    ip: Option<String>,
    /// What is known of the exit now; null if it is gone.
    exit: Option<ExitShown>,
}

/// Moves to another exit with another address, after a check of it. When the answer arrives, clients use the new exit.
#[utoipa::path(post, path = "/proxies/{route}/rotate", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username"), OwnerQuery),
    request_body = Option<Nothing>,
    responses((status = 200, body = Rotated), (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn rotate(
    State(wiring): State<Wiring>,
    Named(route): Named,
    Params(query): Params<OwnerQuery>,
    _: Nothing,
) -> Result<Response, ApiError> {
    let Owned { wish, key } = owner::resolve(&wiring, &route, &query)?;
    let _permit = wiring.slow()?;
    let rotated = wiring.outbound.rotate(&key, &wish, Instant::now() + ROTATE_DEADLINE).await.map_err(refused)?;
    let snapshot = wiring.state.snapshot();
    let exit = snapshot
        .catalog
        .get(rotated.after.id())
        .map_or_else(|| ExitShown::of(&rotated.after), |exit| ExitShown::of(exit));
    let answer = Rotated {
        before: rotated.before_ip.map(|ip| ip.to_string()),
        after: rotated.after_ip.map(|ip| ip.to_string()),
        before_exit: rotated.before.map(|exit| exit.to_string()),
        exit,
    };
    Ok(Json(answer).into_response())
}

fn refused(fault: RotateFault) -> ApiError {
    let message = fault.to_string();
    match fault {
        RotateFault::NoOther(refusal) => {
            let funnel = super::super::explain::funnel_steps(&refusal.funnel);
            ApiError::new(StatusCode::CONFLICT, "no_other_exit", message).with(json!({ "funnel": funnel }))
        }
        RotateFault::NoneGood { tried, .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "none_verified", message).with(json!({ "tried": tried }))
        }
        RotateFault::Slow => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "rotate_slow", message),
    }
}

/// Reports that a site refuses an exit: routes do not use it for that site for a while.
#[utoipa::path(post, path = "/proxies/{route}/report", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username")),
    request_body = Report,
    responses((status = 200, body = BanShown), (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn report(
    State(wiring): State<Wiring>,
    Named(route): Named,
    Body(fields): Body,
) -> Result<Response, ApiError> {
    let Report { site, exit, session, key, outcome } = read(&fields)?;
    let host = Host::parse(&site).map_err(|why| BadField::new("site", format!("is no host: {why}")))?;
    let Owned { wish, key } = owner::resolve(&wiring, &route, &OwnerQuery { session, key })?;
    let banned = wiring.outbound.report(&key, &wish, &host, exit.as_deref(), outcome.as_deref()).await;
    let banned = banned.map_err(|fault| match fault {
        ReportFault::UnknownExit(_) => BadField::new("exit", "names no known exit; GET /exits lists them").into(),
        ReportFault::WhichExit => {
            BadField::new("exit", "is missing, and no session or pin says which exit served: send `exit` or `session`")
                .into()
        }
        ReportFault::Outcome => {
            BadField::new("outcome", "says what went wrong in at most 64 characters, such as `blocked`").into()
        }
        ReportFault::Ours => ApiError::internal("a ban could not be kept"),
    })?;
    let shown = BanShown {
        site: banned.site.as_str().to_owned(),
        exit: banned.exit.to_string(),
        until: Timestamp(banned.until),
    };
    Ok(Json(shown).into_response())
}

/// Reads the body field by field; an error then names the field.
fn read(fields: &Map<String, Value>) -> Result<Report, BadField> {
    for (field, value) in fields {
        let known = ["site", "exit", "session", "key", "outcome"].contains(&field.as_str());
        match value {
            _ if !known => {
                return Err(BadField::new(field, "is not known; the fields are site, exit, session, key and outcome"));
            }
            Value::String(_) => {}
            Value::Null if field != "site" => {}
            _ => return Err(BadField::new(field, "must be a string")),
        }
    }
    let read = serde_json::from_value(Value::Object(fields.clone()));
    read.map_err(|_| BadField::new("site", "is missing: the host that refused, such as \"shop.example\""))
}

/// Which exit served last: by the session, the pin, or the route's last connection.
#[utoipa::path(get, path = "/proxies/{route}/last", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username"), OwnerQuery),
    responses((status = 200, body = Last), (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn last(
    State(wiring): State<Wiring>,
    Named(route): Named,
    Params(query): Params<OwnerQuery>,
) -> Result<Response, ApiError> {
    let Owned { wish, key } = owner::resolve(&wiring, &route, &query)?;
    let (memory, now) = (wiring.state.memory(), wiring.state.now());
    let holder = HolderRef { key: &key, scope: &wish.scope, session: wish.selector.session.as_ref() };
    let strict = wish.selector.mode == Mode::Strict;
    let pin = || memory.pins().of(holder, now).map(|pin| ("pin", pin.exit, Some(pin.ip.into())));
    let session = || memory.sessions().of(holder, now).map(|exit| ("session", exit, None));
    let found = match (strict, holder.session) {
        (true, _) => pin(),
        (false, Some(_)) => session(),
        (false, None) => used_last(&wiring, wish.label(), &wish.scope),
    };
    let unused = || ApiError::missing("nothing has used this yet, or too long ago");
    let (by, id, ip): (_, ExitId, Option<std::net::IpAddr>) = found.ok_or_else(unused)?;
    let snapshot = wiring.state.snapshot();
    let exit = snapshot.catalog.get(&id);
    let ip = ip.or_else(|| exit.and_then(|exit| exit.ip())).map(|ip| ip.to_string());
    Ok(Json(Last { by, id: id.to_string(), ip, exit: exit.map(|exit| ExitShown::of(exit)) }).into_response())
}

/// What the last connection of a route used; of a selector without a name only those that are alive are known.
fn used_last(wiring: &Wiring, label: &str, scope: &str) -> Option<(&'static str, ExitId, Option<std::net::IpAddr>)> {
    let alive = || {
        wiring
            .connections
            .list()
            .into_iter()
            .rev()
            .find_map(|row| row.standing().way.filter(|way| *way.scope == *scope))
    };
    let (exit, ip) = match alive() {
        Some(way) => (way.exit, way.ip),
        None if label == scope => wiring.outbound.figures(label)?.figures().last()?,
        None => return None,
    };
    Some(("route", exit, ip))
}
