//! `/proxies`: the routes. The API calls them proxies, because scrapers use this word for what they connect to at a
//! port.
//!
//! The handlers translate between HTTP and [`crate::admin`], which validates, creates, changes and closes routes.
//!
//! Next: `routes/view.rs` (how a route is shown), `routes/rotation.rs` (rotate, report, last), `routes/error.rs` (how
//! errors of `admin` become HTTP answers).

mod error;
mod examples;
mod host;
mod owner;
pub(super) mod pac;
pub(super) mod rotation;
mod view;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::view::{Batch, Proxies, Proxy, RouteViewData};
use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::exits::ExitView;
use super::extract::{self, Body, Named};
use crate::admin::{Created, RouteError, RouteMode, RouteSpec};
use crate::net::{Host, Target};
use crate::route::table::{Entry, Origin};
use crate::route::{self, Ask};
use crate::state::Snapshot;

/// The query of `GET /proxies`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The most routes in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only routes after this name: the `next` of the answer before.
    after: Option<String>,
    /// Only routes whose name begins with this.
    name: Option<String>,
    /// Only routes of the configuration, or only those of the API.
    #[param(inline)]
    origin: Option<OriginFilter>,
    /// Only routes of this mode.
    #[param(inline)]
    mode: Option<RouteMode>,
}

/// Where a route was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OriginFilter {
    Config,
    Api,
}

impl Page {
    fn passes(&self, entry: &Entry) -> bool {
        let route = &entry.route;
        let created_by = match route.origin {
            Origin::Config => OriginFilter::Config,
            Origin::Api => OriginFilter::Api,
        };
        self.name.as_deref().is_none_or(|name| route.name.as_str().starts_with(name))
            && self.origin.is_none_or(|origin| origin == created_by)
            && self.mode.is_none_or(|mode| mode.is(route.selector.mode))
    }
}

/// The query of `DELETE /proxies/{route}`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// End the open connections of the route too.
    force: Option<bool>,
}

/// The query that chooses the form of an answer.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FormatQuery {
    /// `env`: lines for a shell, such as `ALL_PROXY=socks5h://127.0.0.1:20000`.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Env,
}

/// A closed route.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Closed {
    name: String,
    #[schema(example = "closed")]
    state: &'static str,
}

/// The exits that a route uses now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolOf {
    /// The route's name, or the canonical selector.
    route: String,
    exits: Vec<ExitView>,
}

/// The created route, or a list of several if the request had `count`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Answered {
    One(Box<Proxy>),
    Several(Batch),
}

/// Creates a route with a port of its own, or several with `count`. The same name and body again change nothing. While no
/// exit of the route was tested yet, its `state` is `warming`, and its first requests wait. 409 `no_exit` means that no
/// known exit can ever serve it.
#[utoipa::path(post, path = "/proxies", tag = "proxies", params(FormatQuery), request_body = RouteSpec,
    responses((status = 201, body = Answered, headers(("Location" = String, description = "The URL of the route"))),
        (status = 200, body = Answered, description = "The route existed already, created from an equal body"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn create(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    extract::Params(FormatQuery { format }): extract::Params<FormatQuery>,
    Body(fields): Body,
) -> Result<Response, ApiError> {
    let spec = RouteSpec::read(&fields)?;
    let several = spec.count.is_some();
    let Created { names, new } = wiring.routes.create(spec).await?;
    let view = RouteViewData::new(&wiring, &headers);
    let entries: Vec<_> = names.iter().filter_map(|name| view.get(name.as_str())).collect();
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    if format == Some(Format::Env) {
        return Ok((status, env(&view, &entries)).into_response());
    }
    match (several, entries.as_slice()) {
        (false, [entry]) => {
            let at = [(header::LOCATION, format!("/proxies/{}", entry.route.name))];
            Ok((status, at, Json(Answered::One(Box::new(view.whole(entry))))).into_response())
        }
        _ => Ok((status, Json(Answered::Several(view.batch(&entries)))).into_response()),
    }
}

fn env(view: &RouteViewData, entries: &[&Entry]) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], view.env(entries)).into_response()
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
    tagged(&headers, &RouteViewData::new(&wiring, &headers).page(&page, limit))
}

/// One route, by name or port.
#[utoipa::path(get, path = "/proxies/{route}", tag = "proxies",
    params(("route" = String, Path, description = "Name or port"), FormatQuery),
    responses((status = 200, body = Proxy), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn one(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(name): Named,
    extract::Params(FormatQuery { format }): extract::Params<FormatQuery>,
) -> Result<Response, ApiError> {
    let view = RouteViewData::new(&wiring, &headers);
    let entry = find(&view.snapshot, &name)?;
    if format == Some(Format::Env) {
        return Ok(env(&view, &[entry]));
    }
    tagged(&headers, &view.whole(entry))
}

/// Changes a route by a JSON merge patch of the body that created it: `null` removes a field. Open connections stay as
/// they are.
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
    let name = wiring.routes.change(name, patch).await?;
    let view = RouteViewData::new(&wiring, &headers);
    let entry = find(&view.snapshot, name.as_str())?;
    Ok(Json(view.whole(entry)).into_response())
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
    let explanation = route::explain(snapshot.view(), wiring.state.memory(), &ask);
    let exits =
        explanation.pool.iter().filter_map(|id| snapshot.catalog.get(id)).map(|exit| ExitView::of(exit)).collect();
    tagged(&headers, &PoolOf { route: wish.scope.to_string(), exits })
}

/// Closes a route: its port takes no new connections and is free. Open connections may finish, unless `force`.
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
    wiring.routes.close(name, force.unwrap_or(false)).await?;
    Ok((StatusCode::ACCEPTED, Json(Closed { name: closed, state: "closed" })).into_response())
}

/// Returns a target whose host belongs to no site. Each ban belongs to a site, so no ban excludes an exit for this
/// target.
fn nowhere() -> Target {
    Target { host: Host::Name("exit.gate".into()), port: 443 }
}

/// Finds a route by its name or port.
fn find<'s>(snapshot: &'s Snapshot, text: &str) -> Result<&'s Entry, ApiError> {
    let routes = &snapshot.routes;
    let by_port = || text.parse().ok().and_then(|port| routes.by_port(port));
    let found = routes.get(text).or_else(by_port);
    found.map(|entry| &**entry).ok_or_else(|| RouteError::Unknown(text.chars().take(64).collect()).into())
}
