//! What is done to the exits of a route: another one, a word about one, and which one it was.

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
use super::super::exits::Shown;
use super::super::extract::{Body, Named, Nothing, Params};
use super::super::timestamp::Timestamp;
use super::owner::{self, Meant, Whose};
use super::spec::Wrong;
use crate::exit::ExitId;
use crate::gateway::outbound::rotate::{ReportFault, RotateFault};
use crate::net::Host;
use crate::route::HolderRef;
use crate::route::selector::Mode;

/// How long somebody waits for a verified exit at most: a few tests of exits, each of which builds a circuit.
const ROTATE_DEADLINE: Duration = Duration::from_secs(60);

/// A rotation that came about.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Rotated {
    /// The address before, if there was one.
    before: Option<String>,
    /// The address now, as a check has just seen it.
    after: Option<String>,
    /// The exit before.
    before_exit: Option<String>,
    /// The exit now.
    exit: Shown,
}

/// What a scraper says of an exit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Report {
    /// The site that refused.
    #[schema(example = "shop.example")]
    site: String,
    /// The exit, by id or address; without it, the one of the session or the pin.
    exit: Option<String>,
    /// The session whose exit it was.
    session: Option<String>,
    /// The name of the client's key, where there are keys.
    key: Option<String>,
    /// What went wrong: `blocked`, `captcha`, …
    #[schema(example = "captcha")]
    outcome: Option<String>,
}

/// A ban that came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct BanShown {
    site: String,
    exit: String,
    until: Timestamp,
}

/// Which exit served.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Last {
    /// `session`, `pin`, or `route`: what of the three says so.
    by: &'static str,
    /// Its id.
    id: String,
    /// The address that sites saw.
    ip: Option<String>,
    /// What is known of it now, if it still is.
    exit: Option<Shown>,
}

/// Another exit, verified, with another address. The answer comes when clients already use it.
#[utoipa::path(post, path = "/proxies/{route}/rotate", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username"), Whose),
    request_body = Option<Nothing>,
    responses((status = 200, body = Rotated), (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn rotate(
    State(wiring): State<Wiring>,
    Named(route): Named,
    Params(whose): Params<Whose>,
    _: Nothing,
) -> Result<Response, ApiError> {
    let Meant { wish, key } = owner::meant(&wiring, &route, &whose)?;
    let _turn = wiring.slow()?;
    let turned = wiring.outbound.rotate(&key, &wish, Instant::now() + ROTATE_DEADLINE).await.map_err(refused)?;
    let snapshot = wiring.state.snapshot();
    let exit = snapshot.catalog.get(turned.after.id()).map_or_else(|| Shown::of(&turned.after), |exit| Shown::of(exit));
    let answer = Rotated {
        before: turned.before_ip.map(|ip| ip.to_string()),
        after: turned.after_ip.map(|ip| ip.to_string()),
        before_exit: turned.before.map(|exit| exit.to_string()),
        exit,
    };
    Ok(Json(answer).into_response())
}

fn refused(fault: RotateFault) -> ApiError {
    let message = fault.to_string();
    match fault {
        RotateFault::NoOther(refusal) => {
            let funnel = super::super::explain::funnel(&refusal.funnel);
            ApiError::new(StatusCode::CONFLICT, "no_other_exit", message).with(json!({ "funnel": funnel }))
        }
        RotateFault::NoneGood { tried, .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "none_verified", message).with(json!({ "tried": tried }))
        }
        RotateFault::Slow => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "rotate_slow", message),
    }
}

/// A site refuses an exit: it is not used for that site for a while, by no route.
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
    let host = Host::parse(&site).map_err(|why| Wrong::new("site", format!("is no host: {why}")))?;
    let Meant { wish, key } = owner::meant(&wiring, &route, &Whose { session, key })?;
    let banned = wiring.outbound.report(&key, &wish, &host, exit.as_deref(), outcome.as_deref()).await;
    let banned = banned.map_err(|fault| match fault {
        ReportFault::UnknownExit(_) => Wrong::new("exit", "is none that is known; see /exits").into(),
        ReportFault::WhichExit => {
            Wrong::new("exit", "is missing, and no session or pin says which one it was: name it, or `session`").into()
        }
        ReportFault::Outcome => Wrong::new("outcome", "says what went wrong, in at most 64 characters").into(),
        ReportFault::Ours => ApiError::ours("a ban could not be kept"),
    })?;
    let shown = BanShown {
        site: banned.site.as_str().to_owned(),
        exit: banned.exit.to_string(),
        until: Timestamp(banned.until),
    };
    Ok(Json(shown).into_response())
}

/// Reads the body field by field, so that the refusal can name one.
fn read(fields: &Map<String, Value>) -> Result<Report, Wrong> {
    for (field, value) in fields {
        let known = ["site", "exit", "session", "key", "outcome"].contains(&field.as_str());
        match value {
            _ if !known => return Err(Wrong::new(field, "is not known; there are site, exit, session, key, outcome")),
            Value::String(_) => {}
            Value::Null if field != "site" => {}
            _ => return Err(Wrong::new(field, "is a text")),
        }
    }
    let read = serde_json::from_value(Value::Object(fields.clone()));
    read.map_err(|_| Wrong::new("site", "is missing: the host that refused, such as \"shop.example\""))
}

/// Which exit served: a session, a pin, or the route's last connection.
#[utoipa::path(get, path = "/proxies/{route}/last", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username"), Whose),
    responses((status = 200, body = Last), (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn last(
    State(wiring): State<Wiring>,
    Named(route): Named,
    Params(whose): Params<Whose>,
) -> Result<Response, ApiError> {
    let Meant { wish, key } = owner::meant(&wiring, &route, &whose)?;
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
    Ok(Json(Last { by, id: id.to_string(), ip, exit: exit.map(|exit| Shown::of(exit)) }).into_response())
}

/// What the last connection of a route used; of a selector without a name only those that are alive are known.
fn used_last(wiring: &Wiring, label: &str, scope: &str) -> Option<(&'static str, ExitId, Option<std::net::IpAddr>)> {
    let alive = || {
        wiring
            .connections
            .list()
            .into_iter()
            .rev()
            .find_map(|row| row.state().served_by.filter(|way| *way.scope == *scope))
    };
    let (exit, ip) = match alive() {
        Some(way) => (way.exit, way.ip),
        None if label == scope => wiring.outbound.figures(label)?.figures().last()?,
        None => return None,
    };
    Some(("route", exit, ip))
}
