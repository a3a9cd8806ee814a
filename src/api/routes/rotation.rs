//! What a caller can do with the exits of a route: switch to another exit (rotate), report that a site refuses an exit,
//! and ask which exit served last.

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
use super::super::exits::ExitView;
use super::super::extract::{Body, Named, Nothing, Params};
use super::super::timestamp::Timestamp;
use super::owner::{self, Owned, OwnerQuery};
use crate::admin::{BadField, no_exit_reason};
use crate::exit::ExitId;
use crate::gateway::outbound::rotate::{ReportFault, RotateFault};
use crate::net::Host;
use crate::route::no_plan::NoPlan;
use crate::route::selector::Mode;
use crate::route::table::Wish;
use crate::route::{HolderRef, Memory, Why};
use crate::state::Snapshot;

/// How long a caller waits for an exit that has passed a check. A rotation makes a few checks, and each of them builds
/// a circuit.
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
    exit: ExitView,
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
    exit: Option<ExitView>,
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
    let rotated = wiring.outbound.rotate(&key, &wish, Instant::now() + ROTATE_DEADLINE).await;
    let rotated = rotated.map_err(|fault| refused(&wish, fault, wiring.tor.is_some()))?;
    let snapshot = wiring.state.snapshot();
    let exit = snapshot
        .catalog
        .get(rotated.after.id())
        .map_or_else(|| ExitView::of(&rotated.after), |exit| ExitView::of(exit));
    let answer = Rotated {
        before: rotated.before_ip.map(|ip| ip.to_string()),
        after: rotated.after_ip.map(|ip| ip.to_string()),
        before_exit: rotated.before.map(|exit| exit.to_string()),
        exit,
    };
    Ok(Json(answer).into_response())
}

/// Creates the error for a failed rotation. It contains the name of the route, the number of its exits, and what the
/// user can do.
fn refused(wish: &Wish, fault: RotateFault, tor: bool) -> ApiError {
    let message = format!("`{}` was not rotated: {fault}", wish.scope);
    match fault {
        RotateFault::NoOther(refusal) => {
            let message = no_other_exit(wish, &refusal, tor);
            let funnel = super::super::explain::funnel_steps(&refusal.funnel);
            ApiError::new(StatusCode::CONFLICT, "no_other_exit", message).with(json!({ "funnel": funnel }))
        }
        RotateFault::NoneGood { tried, .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "none_verified", message).with(json!({ "tried": tried }))
        }
        RotateFault::Slow => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "rotate_slow", message),
    }
}

fn no_other_exit(wish: &Wish, refusal: &NoPlan, tor: bool) -> String {
    let NoPlan { why, funnel, .. } = refusal;
    let name = &wish.scope;
    if *why != Why::AllFailed {
        let why = no_exit_reason(why, wish.policy.sources(&wish.selector), tor);
        return format!("`{name}` was not rotated: {why} ({funnel})");
    }
    let fit = funnel.steps.last().map_or(0, |(_, left)| *left);
    let less = if wish.is_pooled() { ", give the route a smaller `pool` so that some are left over," } else { "" };
    format!(
        "`{name}` was not rotated: it already uses every exit that fits, {fit} in all ({funnel}); wait for more exits to be \
         tested{less} or choose a wider selector"
    )
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
    // The rules of the route decide which exit served the site. If a rule refuses the site, the route itself counts.
    let query = OwnerQuery { session, key, host: Some(site) };
    let Owned { wish, key } = owner::resolve(&wiring, &route, &query)
        .or_else(|_| owner::resolve(&wiring, &route, &OwnerQuery { host: None, ..query }))?;
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

/// Reads the body field by field, because an error must name the wrong field.
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
    let pin = || memory.pins().of(holder, now).map(|pin| ("pin", pin.exit, Some(pin.ip)));
    let session = || memory.sessions().of(holder, now).map(|exit| ("session", exit, None));
    let found = match (strict, holder.session) {
        (true, _) => pin(),
        (false, Some(_)) => session(),
        (false, None) => used_last(&wiring, wish.label(), &wish.scope)
            .or_else(|| rotated_to(&wiring.state.snapshot(), memory, holder).map(|(exit, ip)| ("route", exit, ip))),
    };
    let unused = || ApiError::missing(not_used(&wish));
    let (by, id, ip): (_, ExitId, Option<std::net::IpAddr>) = found.ok_or_else(unused)?;
    let snapshot = wiring.state.snapshot();
    let exit = snapshot.catalog.get(&id);
    let ip = ip.or_else(|| exit.and_then(|exit| exit.ip())).map(|ip| ip.to_string());
    Ok(Json(Last { by, id: id.to_string(), ip, exit: exit.map(|exit| ExitView::of(exit)) }).into_response())
}

/// Returns the exit of the last connection. For a username without a route there are no counters, so only its open
/// connections are known.
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

/// Returns the exit that a username in `rotate` mode used last. In all other modes there is none.
fn rotated_to(
    snapshot: &Snapshot,
    memory: &Memory,
    holder: HolderRef<'_>,
) -> Option<(ExitId, Option<std::net::IpAddr>)> {
    let seed = memory.last(holder)?;
    let exit = snapshot.catalog.iter().find(|exit| exit.seed() == seed)?;
    Some((exit.id().clone(), exit.ip()))
}

fn not_used(wish: &Wish) -> String {
    let name = &wish.scope;
    if *wish.label() == **name || wish.selector.mode == Mode::Strict || wish.selector.session.is_some() {
        return format!("`{name}` was not used yet, or too long ago");
    }
    format!(
        "`{name}` has no route of its own, so its exit is known while a connection is open and after that no more; \
         create a route for it, or add `-session-…`"
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::super::owner::wish;
    use super::*;
    use crate::exit::Moment;
    use crate::route::memory::Bounds;
    use crate::route::no_plan::{Funnel, Step};
    use crate::route::{Ask, decide};

    #[test]
    fn the_last_exit_of_a_rotating_username_is_known_after_its_connection() {
        let snapshot = fixture::snapshot(&["US", "US", "DE"]);
        let (memory, now) = (Memory::new(Bounds::default()), Moment(1_000_000));
        let target = "shop.example:443".parse().unwrap();
        let wish = wish(&snapshot, "us-rotate", None).unwrap();
        let holder = HolderRef { key: "", scope: &wish.scope, session: None };
        assert_eq!(rotated_to(&snapshot, &memory, holder), None);
        let ask = Ask { wish: &wish, key: "", target: &target, now, avoid: &[], plain: false };
        let plan = decide(snapshot.view(), &memory, &ask, &mut rand::rng()).unwrap();
        let (exit, ip) = rotated_to(&snapshot, &memory, holder).unwrap();
        assert_eq!((&exit, ip), (plan.first().id(), plan.first().ip()));
    }

    #[test]
    fn a_rotation_that_found_no_other_exit_says_how_many_there_are_and_what_to_do() {
        let snapshot = fixture::snapshot(&["US", "US", "DE"]);
        let funnel = Funnel { steps: vec![(Step::Known, 8), (Step::Tested, 5)] };
        let refusal = NoPlan { why: Why::AllFailed, funnel, untested: Vec::new() };
        let text = no_other_exit(&wish(&snapshot, "nonus", None).unwrap(), &refusal, true);
        assert_eq!(
            text,
            "`nonus` was not rotated: it already uses every exit that fits, 5 in all (8 known -> 5 tested); wait for more exits to be \
             tested, give the route a smaller `pool` so that some are left over, or choose a wider selector"
        );
        assert!(!no_other_exit(&wish(&snapshot, "us-strict", None).unwrap(), &refusal, true).contains("pool"));
    }
}
