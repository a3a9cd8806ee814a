//! `/connections`: lists the open connections of clients with the exit of each, and cuts a connection.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::extract::{Named, Params, bad_query, limit};
use crate::gateway::connection_table::{ConnectionEntry, ConnectionTable};
use crate::gateway::protocol::Protocol;

/// An open connection of a client.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connection {
    id: u64,
    /// `shared` for the shared port, or the name of the route whose port the client connected to.
    listener: String,
    /// The client: the address that a trusted PROXY header names, else the socket's.
    #[schema(value_type = String, example = "127.0.0.1:50412")]
    client: std::net::SocketAddr,
    tls: bool,
    /// `socks4`, `socks5`, `connect` or `http`; null until the first bytes show it.
    protocol: Option<&'static str>,
    /// The username. Shown only with `log.targets = true`, like the target.
    username: Option<String>,
    target: Option<String>,
    /// The route's name, or `implicit`.
    route: Option<String>,
    /// The route's name or the canonical selector, as narrowed.
    scope: Option<String>,
    /// The exit that serves the connection, or served it last.
    exit: Option<String>,
    #[schema(value_type = Option<String>)]
    exit_ip: Option<std::net::IpAddr>,
    /// True while a stream to the target is open.
    streaming: bool,
    requests: u32,
    bytes_up: u64,
    bytes_down: u64,
    age_seconds: u64,
}

/// A page of connections, in the order in which they were accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// How many there are, also beyond this page.
    total: usize,
    connections: Vec<Connection>,
    /// The value of `after` for the next page.
    next: Option<u64>,
}

/// A connection that was cut.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CutOff {
    id: u64,
    #[schema(example = "cut")]
    state: &'static str,
}

/// The query of `GET /connections`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionQuery {
    /// Only connections of this route; `implicit` for those without a route.
    route: Option<String>,
    /// Only connections to this port: `shared`, or the name of a route.
    listener: Option<String>,
    /// The most connections in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only connections after this id: the `next` of the answer before.
    after: Option<u64>,
}

impl Connection {
    fn of(row: &ConnectionEntry) -> Self {
        let now = row.state();
        let (username, target) = now.named.unzip();
        let way = now.served_by.as_ref();
        Self {
            id: row.id,
            listener: row.listener.to_string(),
            client: now.client,
            tls: now.tls,
            protocol: now.protocol.map(Protocol::as_str),
            username,
            target: target.filter(|target| !target.is_empty()),
            route: way.map(|way| way.label.to_string()),
            scope: way.map(|way| way.scope.to_string()),
            exit: way.map(|way| way.exit.to_string()),
            exit_ip: way.and_then(|way| way.ip),
            streaming: now.streaming,
            requests: now.requests,
            bytes_up: row.traffic().up(),
            bytes_down: row.traffic().down(),
            age_seconds: row.age().as_secs(),
        }
    }
}

fn list_of(connections: &ConnectionTable, query: &ConnectionQuery, limit: usize) -> Connections {
    let passes = |row: &ConnectionEntry| {
        query.listener.as_deref().is_none_or(|listener| *row.listener == *listener)
            && query.route.as_deref().is_none_or(|route| row.state().served_by.is_some_and(|way| *way.label == *route))
    };
    let all: Vec<_> = connections.list().into_iter().filter(|row| passes(row)).collect();
    let rest: Vec<_> = all.iter().filter(|row| query.after.is_none_or(|after| row.id > after)).collect();
    let next = (rest.len() > limit).then(|| rest[limit - 1].id);
    let connections = rest.into_iter().take(limit).map(|row| Connection::of(row)).collect();
    Connections { total: all.len(), connections, next }
}

/// Lists the open connections.
#[utoipa::path(get, path = "/connections", tag = "traffic", params(ConnectionQuery),
    responses((status = 200, body = Connections), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(query): Params<ConnectionQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    if query.after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(bad_query("`after` is the id of a connection").with(json!({ "field": "after" })));
    }
    tagged(&headers, &list_of(&wiring.connections, &query, limit))
}

/// Cuts a connection.
#[utoipa::path(delete, path = "/connections/{id}", tag = "traffic",
    params(("id" = u64, Path, description = "The id of the connection")),
    responses((status = 202, body = CutOff), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn cut(State(wiring): State<Wiring>, Named(id): Named) -> Result<Response, ApiError> {
    let row = id.parse().ok().and_then(|id| wiring.connections.get(id));
    let row =
        row.ok_or_else(|| ApiError::missing("no connection with this id is open; GET /connections lists them"))?;
    row.cut();
    Ok((StatusCode::ACCEPTED, Json(CutOff { id: row.id, state: "cut" })).into_response())
}
