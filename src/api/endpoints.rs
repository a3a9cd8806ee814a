//! Every URL of the API, with its method and its handler.
//!
//! Each handler describes its request and its answers (`#[utoipa::path]`), and `/openapi.json` is made from these
//! descriptions. To add an endpoint, write the handler and add a line to the table.
//!
//! The same port also serves `/openapi.json`, `/docs` and its files (`api/openapi.rs`), and the console at `/` and
//! below `/console/` (`src/console.rs`). `api/auth.rs` decides which URLs need a token.

use axum::Router;
use axum::middleware::from_fn;
use http::StatusCode;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::error::ApiError;
use super::routes::{self as proxies, pac, rotation};
use super::{
    Wiring, auth, bans, check_history, checks, connections, engines, events, exits, explain, health, history, keys,
    list, openapi, sources,
};

/// Generates the function `urls()`, the router with its OpenAPI description, and the list of the table's lines for the
/// test below.
macro_rules! endpoints {
    ($($method:ident $url:literal => $($handler:ident)::+;)+) => {
        fn urls() -> OpenApiRouter<Wiring> {
            OpenApiRouter::with_openapi(openapi::base())
                $(.routes(endpoint(stringify!($method), routes!($($handler)::+))))+
        }

        #[cfg(test)]
        const TABLE: &[(&str, &str)] = &[$((stringify!($method), $url)),+];
    };
}

endpoints! {
    GET    "/health"                  => health::health;
    GET    "/ready"                   => health::ready;
    GET    "/metrics"                 => health::metrics;
    POST   "/reload"                  => health::reload;
    GET    "/history"                 => history::history;

    GET    "/proxies"                 => proxies::list;
    POST   "/proxies"                 => proxies::create;
    GET    "/proxies/{route}"         => proxies::one;
    PATCH  "/proxies/{route}"         => proxies::change;
    DELETE "/proxies/{route}"         => proxies::delete;
    GET    "/proxies/{route}/exits"   => proxies::exits;
    GET    "/proxies/{route}/last"    => rotation::last;
    POST   "/proxies/{route}/rotate"  => rotation::rotate;
    POST   "/proxies/{route}/report"  => rotation::report;
    GET    "/proxy.pac"               => pac::pac;

    GET    "/exits"                   => exits::list;
    GET    "/exits/{id}"              => exits::one;
    POST   "/exits/{id}/check"        => exits::check;
    GET    "/exits/{id}/checks"       => check_history::checks;
    DELETE "/exits/{id}/condemnation" => exits::pardon;
    GET    "/countries"               => exits::countries;
    GET    "/checks"                  => checks::list;
    POST   "/checks"                  => checks::begin;
    GET    "/explain"                 => explain::explain;

    GET    "/bans"                    => bans::list;
    POST   "/bans"                    => bans::make;
    DELETE "/bans/{site}"             => bans::lift_site;
    DELETE "/bans/{site}/{exit}"      => bans::lift_one;
    GET    "/keys"                    => keys::list;
    POST   "/keys"                    => keys::create;
    GET    "/keys/{name}"             => keys::one;
    PATCH  "/keys/{name}"             => keys::change;
    DELETE "/keys/{name}"             => keys::delete;

    GET    "/list"                    => list::list;
    GET    "/random"                  => list::random;
    GET    "/stats"                   => list::stats;

    GET    "/engines"                 => engines::list;
    GET    "/sources"                 => sources::list;
    POST   "/sources/{name}/refresh"  => sources::refresh;

    GET    "/connections"             => connections::list;
    DELETE "/connections/{id}"        => connections::cut;
    GET    "/events"                  => events::events;
}

/// Adds the check for JSON to a handler that takes a body. A page of another site cannot send JSON (`api/auth.rs`).
fn endpoint(method: &str, url: UtoipaMethodRouter<Wiring>) -> UtoipaMethodRouter<Wiring> {
    match method {
        "POST" | "PATCH" | "PUT" => url.map(|methods| methods.route_layer(from_fn(auth::json_only))),
        _ => url,
    }
}

/// Returns a router with all endpoints, their OpenAPI description, and the routes in `extra`: the console, which is
/// served on the same port.
pub(super) fn router(wiring: Wiring, extra: Router) -> Router {
    let (router, description) = urls().with_state(wiring).split_for_parts();
    router
        .merge(openapi::router(description))
        .merge(extra)
        .fallback(unknown_url)
        .method_not_allowed_fallback(wrong_method)
}

/// Returns the OpenAPI description of all endpoints.
#[cfg(test)]
pub(super) fn description() -> utoipa::openapi::OpenApi {
    urls().into_openapi()
}

async fn unknown_url() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_url",
        "there is nothing at this URL; /openapi.json lists what there is",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this URL does not take that method")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_and_the_description_have_the_same_endpoints() {
        let table: BTreeSet<(String, String)> =
            TABLE.iter().map(|(method, url)| (method.to_lowercase(), (*url).to_owned())).collect();
        assert_eq!(table.len(), TABLE.len(), "a line of the table stands twice");
        let description = serde_json::to_value(description()).unwrap();
        let described: BTreeSet<(String, String)> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(url, item)| item.as_object().unwrap().keys().map(|method| (method.clone(), url.clone())))
            .collect();
        assert_eq!(table, described);
    }
}
