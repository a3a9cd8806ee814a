//! `/proxies`: routes, by the name under which a scraper knows what is at their ports.
//!
//! Next: `routes/spec.rs` (the body), `api/orders.rs` (who opens the port), `routes/view.rs` (the answer),
//! `routes/rotation.rs` (what is done to a route's exits).

mod duration;
mod owner;
pub(super) mod pac;
pub(super) mod rotation;
mod spec;
mod view;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

pub use duration::{Patience, Span};
pub use spec::{RouteSpec, Rules, Wrong};

use self::view::{Batch, Proxies, Proxy, Showing};
use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::exits::Shown;
use super::explain::funnel;
use super::extract::{self, Body, Named};
use super::orders::{Opened, Order, OrderFault, Wanted};
use crate::exit::Moment;
use crate::net::{Host, Target};
use crate::route::refusal::Step;
use crate::route::table::{Entry, Origin, Route};
use crate::route::{self, Ask, Memory, Why};
use crate::state::Snapshot;

/// How long an order may wait for those before it. Arbitrary: a thousand of them take a few seconds.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// Says why nothing would serve this route now, if that is so. It is one of `many` that want an address each.
pub fn unserved(snapshot: &Snapshot, memory: &Memory, route: &Route, many: usize, now: Moment) -> Option<OrderFault> {
    let wish = snapshot.routes.preview(route.clone()).ok()?;
    let ask = Ask { wish: &wish, key: "", target: &nowhere(), now, avoid: &[], plain: false };
    let said = route::explain(snapshot.view(), memory, &ask);
    // The last step counts what no pin has; routes that are not open yet have no pin.
    let free = said.funnel.steps.last().filter(|(step, _)| *step == Step::Free && route.policy.exclusive);
    let short = free.is_some_and(|(_, free)| *free < many).then_some(Why::Exclusive);
    let why = said.why.or(short)?.to_string();
    let funnel = serde_json::json!(funnel(&said.funnel));
    Some(OrderFault::NoExit { why, text: said.funnel.to_string(), funnel })
}

/// What `GET /proxies` may be asked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Entries of one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Those after this name.
    after: Option<String>,
    /// Only those whose name begins so.
    name: Option<String>,
    /// Only those of the configuration, or of the API.
    #[param(inline)]
    origin: Option<Made>,
    /// Only those that keep exits so.
    #[param(inline)]
    mode: Option<spec::Kept>,
}

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Made {
    Config,
    Api,
}

impl Page {
    fn passes(&self, entry: &Entry) -> bool {
        let route = &entry.route;
        let made = match route.origin {
            Origin::Config => Made::Config,
            Origin::Api => Made::Api,
        };
        self.name.as_deref().is_none_or(|name| route.name.as_str().starts_with(name))
            && self.origin.is_none_or(|origin| origin == made)
            && self.mode.is_none_or(|mode| mode.is(route.selector.mode))
    }
}

/// What `DELETE /proxies/{route}` may be asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// End its tunnels too.
    force: Option<bool>,
}

/// How an answer is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Written {
    /// `env`: lines for a shell, such as `ALL_PROXY=socks5h://127.0.0.1:20000`.
    #[param(inline)]
    format: Option<Format>,
}

/// A way to write an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Env,
}

/// A route that takes nothing new.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Closed {
    name: String,
    #[schema(example = "closed")]
    state: &'static str,
}

/// The exits of a route.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolOf {
    /// The route's name, or the canonical selector.
    route: String,
    exits: Vec<Shown>,
}

/// A route made by `POST`, or several where `count` was said.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Answered {
    One(Box<Proxy>),
    Several(Batch),
}

/// Makes a route with a port of its own; with `count` so many, each with IPs of its own. The same name and body again is
/// the same route.
#[utoipa::path(post, path = "/proxies", tag = "proxies", params(Written), request_body = RouteSpec,
    responses((status = 201, body = Answered, headers(("Location" = String, description = "Where it is"))),
        (status = 200, body = Answered, description = "It was there already, asked for in the same words"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn create(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    extract::Params(Written { format }): extract::Params<Written>,
    Body(fields): Body,
) -> Result<Response, ApiError> {
    let asked = RouteSpec::read(&fields)?;
    let several = asked.count.is_some();
    let wanted = {
        let (snapshot, rules) = (wiring.state.snapshot(), wiring.rules.load());
        let judge = |asked: RouteSpec| {
            let (selector, policy) = asked.judged(&snapshot.routes, &rules)?;
            Ok::<_, Wrong>(Wanted { asked, selector, policy })
        };
        asked.each()?.into_iter().map(judge).collect::<Result<Vec<_>, _>>()?
    };
    let Opened { names, new } = order(&wiring, |answer| Order::Open(wanted, answer)).await?;
    let showing = Showing::new(&wiring, &headers);
    let entries: Vec<_> = names.iter().filter_map(|name| showing.get(name.as_str())).collect();
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    if format == Some(Format::Env) {
        return Ok((status, env(&showing, &entries)).into_response());
    }
    match (several, entries.as_slice()) {
        (false, [entry]) => {
            let at = [(header::LOCATION, format!("/proxies/{}", entry.route.name))];
            Ok((status, at, Json(Answered::One(Box::new(showing.one(entry))))).into_response())
        }
        _ => Ok((status, Json(Answered::Several(showing.batch(&entries)))).into_response()),
    }
}

fn env(showing: &Showing, entries: &[&Entry]) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], showing.env(entries)).into_response()
}

/// Routes, by name.
#[utoipa::path(get, path = "/proxies", tag = "proxies", params(Page),
    responses((status = 200, body = Proxies), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    extract::Params(page): extract::Params<Page>,
) -> Result<Response, ApiError> {
    let limit = extract::limit(page.limit)?;
    tagged(&headers, &Showing::new(&wiring, &headers).page(&page, limit))
}

/// One route, by name or port.
#[utoipa::path(get, path = "/proxies/{route}", tag = "proxies",
    params(("route" = String, Path, description = "Name or port"), Written),
    responses((status = 200, body = Proxy), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn one(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(name): Named,
    extract::Params(Written { format }): extract::Params<Written>,
) -> Result<Response, ApiError> {
    let showing = Showing::new(&wiring, &headers);
    let entry = find(&showing.snapshot, &name)?;
    if format == Some(Format::Env) {
        return Ok(env(&showing, &[entry]));
    }
    tagged(&headers, &showing.one(entry))
}

/// Another body laid over the one that made the route (a merge patch: `null` takes a word back). Connections that are
/// open go on as they are.
#[utoipa::path(patch, path = "/proxies/{route}", tag = "proxies",
    params(("route" = String, Path, description = "Name or port")), request_body = RouteSpec,
    responses((status = 200, body = Proxy), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn change(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(name): Named,
    Body(patch): Body,
) -> Result<Response, ApiError> {
    let name = find(&wiring.state.snapshot(), &name)?.route.name.to_string();
    let name = order(&wiring, |answer| Order::Change { name, patch, answer }).await?;
    let showing = Showing::new(&wiring, &headers);
    let entry = find(&showing.snapshot, name.as_str())?;
    Ok(Json(showing.one(entry)).into_response())
}

/// The exits that a route, or a username, uses now.
#[utoipa::path(get, path = "/proxies/{route}/exits", tag = "proxies",
    params(("route" = String, Path, description = "Name, port, or percent-encoded username")),
    responses((status = 200, body = PoolOf), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn exits(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(route): Named,
) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    let wish = owner::wish(&snapshot, &route, None)?;
    let ask = Ask { wish: &wish, key: "", target: &nowhere(), now, avoid: &[], plain: false };
    let said = route::explain(snapshot.view(), wiring.state.memory(), &ask);
    let exits = said.pool.iter().filter_map(|id| snapshot.catalog.get(id)).map(|exit| Shown::of(exit)).collect();
    tagged(&headers, &PoolOf { route: wish.scope.to_string(), exits })
}

/// Closes a route: it takes nothing new from now on, and its port is free; tunnels may finish, unless `force`.
#[utoipa::path(delete, path = "/proxies/{route}", tag = "proxies",
    params(("route" = String, Path, description = "Name or port"), Force),
    responses((status = 202, body = Closed), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn delete(
    State(wiring): State<Wiring>,
    Named(name): Named,
    extract::Params(Force { force }): extract::Params<Force>,
) -> Result<Response, ApiError> {
    let name = find(&wiring.state.snapshot(), &name)?.route.name.to_string();
    let closed = name.clone();
    order(&wiring, |answer| Order::Close { name, force: force.unwrap_or(false), answer }).await?;
    Ok((StatusCode::ACCEPTED, Json(Closed { name: closed, state: "closed" })).into_response())
}

/// No site in particular: an exit that serves the web stands for all.
fn nowhere() -> Target {
    Target { host: Host::Name("exit.gate".into()), port: 443 }
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
    let gone = |()| ApiError::ours("nobody takes orders for routes any more");
    // An order that was taken is carried out, so it is the place in the queue that is waited for and not the order.
    let place = tokio::time::timeout(ORDER_DEADLINE, wiring.orders.reserve()).await.map_err(|_| {
        ApiError::too_much("too_many_orders", "too many routes are being made and changed at once; try again", 1)
    })?;
    place.map_err(|_| gone(()))?.send(make(answer));
    Ok(outcome.await.map_err(|_| gone(()))??)
}
