//! `/proxies`: routes, by the name under which a scraper knows what is at their ports.
//!
//! Next: `proxies/asked.rs` (the body), `api/orders.rs` (who opens the port), `proxies/shown.rs` (the answer).

mod asked;
mod shown;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

pub use asked::{Asked, Rules, Wrong};

use self::shown::Showing;
use super::Wiring;
use super::ask::{self, Body, Named};
use super::error::ApiError;
use super::exits::Shown;
use super::explain::funnel;
use super::orders::{Opened, Order, OrderFault, Wanted};
use crate::exit::Moment;
use crate::net::{Host, Target};
use crate::route::explain::Step;
use crate::route::table::{Entry, Route};
use crate::route::{self, Ask, Memory, Why};
use crate::state::Snapshot;

/// Says why nothing would serve this route now, if that is so. It is one of `many` that want an address each.
pub fn unserved(snapshot: &Snapshot, memory: &Memory, route: &Route, many: usize, now: Moment) -> Option<OrderFault> {
    let routes = snapshot.routes.with(route.clone()).ok()?;
    let wish = routes.resolve("", Some(route.name.as_str())).ok()?;
    // No site in particular: an exit that serves the web stands for all.
    let target = Target { host: Host::Name("exit.gate".into()), port: 443 };
    let ask = Ask { wish: &wish, key: "", target: &target, now, avoid: &[] };
    let view = route::View { routes: &routes, ..snapshot.view() };
    let said = route::explain(view, memory, &ask);
    // The last step counts what no pin has; routes that are not open yet have no pin.
    let free = said.funnel.steps.last().filter(|(step, _)| *step == Step::Free && route.policy.exclusive);
    let short = free.is_some_and(|(_, free)| *free < many).then_some(Why::Exclusive);
    let why = said.why.or(short)?.to_string();
    Some(OrderFault::NoExit { why, text: said.funnel.to_string(), funnel: funnel(&said.funnel) })
}

/// What `GET /proxies` may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

/// What `DELETE /proxies/{route}` may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Force {
    force: Option<bool>,
}

/// `POST /proxies`.
pub(super) async fn create(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Body(fields): Body,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&fields)?;
    let several = asked.count.is_some();
    let wanted = {
        let (snapshot, rules) = (wiring.state.snapshot(), wiring.rules.load());
        let judge = |asked: Asked| {
            let (selector, policy) = asked.judged(&snapshot.routes, &rules)?;
            Ok::<_, Wrong>(Wanted { asked, selector, policy })
        };
        asked.each()?.into_iter().map(judge).collect::<Result<Vec<_>, _>>()?
    };
    let Opened { names, new } = order(&wiring, |answer| Order::Open(wanted, answer)).await?;
    let showing = Showing::new(&wiring, &headers);
    let entries: Vec<_> = names.iter().filter_map(|name| showing.get(name.as_str())).collect();
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    match (several, entries.as_slice()) {
        (false, [entry]) => {
            let at = [(header::LOCATION, format!("/proxies/{}", entry.route.name))];
            Ok((status, at, Json(showing.one(entry))).into_response())
        }
        _ => {
            let list: Vec<_> = entries.iter().map(|entry| showing.one(entry)).collect();
            Ok((status, Json(json!({ "total": list.len(), "proxies": list }))).into_response())
        }
    }
}

/// `GET /proxies`.
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    ask::Asked(page): ask::Asked<Page>,
) -> Result<Response, ApiError> {
    let limit = ask::limit(page.limit)?;
    let showing = Showing::new(&wiring, &headers);
    Ok(Json(showing.page(limit, page.after.as_deref())).into_response())
}

/// `GET /proxies/{route}`, by name or port.
pub(super) async fn one(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let showing = Showing::new(&wiring, &headers);
    let entry = find(&showing.snapshot, &name)?;
    Ok(Json(showing.one(entry)).into_response())
}

/// `GET /proxies/{route}/exits`: the pool now.
pub(super) async fn exits(State(wiring): State<Wiring>, Named(name): Named) -> Result<Response, ApiError> {
    let snapshot = wiring.state.snapshot();
    let entry = find(&snapshot, &name)?;
    let members = entry.pool.members().iter().filter_map(|member| member.exit(&snapshot.catalog));
    let list: Vec<_> = members.map(|exit| Shown::of(exit)).collect();
    Ok(Json(json!({ "route": entry.route.name.as_str(), "exits": list })).into_response())
}

/// `DELETE /proxies/{route}`: takes nothing new from now on; tunnels may finish, unless `force`.
pub(super) async fn delete(
    State(wiring): State<Wiring>,
    Named(name): Named,
    ask::Asked(Force { force }): ask::Asked<Force>,
) -> Result<Response, ApiError> {
    let name = find(&wiring.state.snapshot(), &name)?.route.name.to_string();
    let closed = name.clone();
    order(&wiring, |answer| Order::Close { name, force: force.unwrap_or(false), answer }).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "name": closed, "state": "closed" }))).into_response())
}

/// The route of this name or port.
fn find<'s>(snapshot: &'s Snapshot, text: &str) -> Result<&'s Entry, ApiError> {
    let routes = &snapshot.routes;
    let by_port = || text.parse().ok().and_then(|port| routes.by_port(port));
    let found = routes.get(text).or_else(by_port);
    found.map(|entry| &**entry).ok_or_else(|| OrderFault::Unknown(text.chars().take(64).collect()).into())
}

async fn order<T>(
    wiring: &Wiring,
    make: impl FnOnce(oneshot::Sender<Result<T, OrderFault>>) -> Order,
) -> Result<T, ApiError> {
    let (answer, outcome) = oneshot::channel();
    let gone = |_| ApiError::ours("nobody takes orders for routes any more");
    wiring.orders.send(make(answer)).await.map_err(|_| gone(()))?;
    Ok(outcome.await.map_err(|_| gone(()))??)
}
