//! Every URL of the API, on one page.

use axum::Router;
use axum::middleware::from_fn;
use http::StatusCode;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::error::ApiError;
use super::{
    Wiring, auth, check_history, checks, connections, engines, events, exits, explain, health, list, openapi,
    request_id, routes, sources,
};
use crate::lifecycle::Tasks;

/// All of them, and what they say of themselves. `extra` is what other rooms serve on the same port (the console).
pub(super) fn router(wiring: Wiring, tasks: Tasks, extra: Router) -> Router {
    let (router, described) = described(wiring, tasks).split_for_parts();
    router
        .merge(openapi::router(described))
        .merge(extra)
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(request_id::follow))
}

/// The URLs with their descriptions.
fn described(wiring: Wiring, tasks: Tasks) -> OpenApiRouter {
    let events = OpenApiRouter::new().routes(routes!(events::events)).with_state((wiring.clone(), tasks));
    urls().with_state(wiring).merge(events)
}

fn urls() -> OpenApiRouter<Wiring> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(json(routes!(health::reload)))
        .routes(json(routes!(routes::list, routes::create)))
        .routes(json(routes!(routes::one, routes::change, routes::delete)))
        .routes(routes!(routes::exits))
        .routes(routes!(routes::rotation::last))
        .routes(json(routes!(routes::rotation::rotate)))
        .routes(json(routes!(routes::rotation::report)))
        .routes(routes!(routes::pac::pac))
        .routes(routes!(exits::list))
        .routes(routes!(exits::one))
        .routes(json(routes!(exits::check)))
        .routes(routes!(check_history::checks))
        .routes(routes!(exits::countries))
        .routes(routes!(list::list))
        .routes(routes!(list::random))
        .routes(routes!(list::stats))
        .routes(json(routes!(checks::list, checks::begin)))
        .routes(routes!(explain::explain))
        .routes(routes!(engines::list))
        .routes(routes!(sources::list))
        .routes(json(routes!(sources::refresh)))
        .routes(routes!(connections::list))
        .routes(routes!(connections::cut))
}

/// A URL that takes writes.
fn json(url: UtoipaMethodRouter<Wiring>) -> UtoipaMethodRouter<Wiring> {
    url.map(|methods| methods.route_layer(from_fn(auth::json_only)))
}

/// What the URLs say of themselves, without anything behind them.
#[cfg(test)]
pub(super) fn description() -> utoipa::openapi::OpenApi {
    let mut all = urls().into_openapi();
    all.merge(OpenApiRouter::new().routes(routes!(events::events)).into_openapi());
    all
}

async fn nowhere() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_url",
        "there is nothing at this URL; /openapi.json lists what there is",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this URL does not take that method")
}
