//! `/connections`: who is connected now, through which exit, and how to end one.

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

/// One connection that is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connection {
    id: u64,
    /// `shared`, or the name of the route whose own port it came to.
    listener: String,
    /// Who it is: the address that a trusted peer names, else the socket's.
    #[schema(value_type = String, example = "127.0.0.1:50412")]
    client: std::net::SocketAddr,
    tls: bool,
    /// `socks4`, `socks5`, `connect` or `http`, once that is known.
    protocol: Option<&'static str>,
    /// The user name; only with `log.targets`, like the target.
    username: Option<String>,
    target: Option<String>,
    /// The route's name, or `implicit`.
    route: Option<String>,
    /// The route's name or the canonical selector, as narrowed.
    scope: Option<String>,
    /// The exit that serves it, or served it last.
    exit: Option<String>,
    #[schema(value_type = Option<String>)]
    exit_ip: Option<std::net::IpAddr>,
    /// A stream to its target is open.
    streaming: bool,
    requests: u32,
    bytes_up: u64,
    bytes_down: u64,
    age_seconds: u64,
}

/// Connections in the order in which they came.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// How many there are, beyond this page too.
    total: usize,
    connections: Vec<Connection>,
    /// What `after` says for the rest.
    next: Option<u64>,
}

/// A connection that was cut.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CutOff {
    id: u64,
    #[schema(example = "cut")]
    state: &'static str,
}

/// What may be asked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only those of this route; `implicit` for those of none.
    route: Option<String>,
    /// Only those that came in here: `shared`, or a route's own port by its name.
    listener: Option<String>,
    /// Entries of one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Those after this one.
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

fn list_of(connections: &ConnectionTable, wanted: &Wanted, limit: usize) -> Connections {
    let passes = |row: &ConnectionEntry| {
        wanted.listener.as_deref().is_none_or(|listener| *row.listener == *listener)
            && wanted.route.as_deref().is_none_or(|route| row.state().served_by.is_some_and(|way| *way.label == *route))
    };
    let all: Vec<_> = connections.list().into_iter().filter(|row| passes(row)).collect();
    let rest: Vec<_> = all.iter().filter(|row| wanted.after.is_none_or(|after| row.id > after)).collect();
    let next = (rest.len() > limit).then(|| rest[limit - 1].id);
    let connections = rest.into_iter().take(limit).map(|row| Connection::of(row)).collect();
    Connections { total: all.len(), connections, next }
}

/// Connections that are alive.
#[utoipa::path(get, path = "/connections", tag = "traffic", params(Wanted),
    responses((status = 200, body = Connections), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(wanted): Params<Wanted>,
) -> Result<Response, ApiError> {
    let limit = limit(wanted.limit)?;
    if wanted.after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(bad_query("`after` is the number of a connection").with(json!({ "field": "after" })));
    }
    tagged(&headers, &list_of(&wiring.connections, &wanted, limit))
}

/// Cuts one connection.
#[utoipa::path(delete, path = "/connections/{id}", tag = "traffic",
    params(("id" = u64, Path, description = "Its number in the list")),
    responses((status = 202, body = CutOff), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn cut(State(wiring): State<Wiring>, Named(id): Named) -> Result<Response, ApiError> {
    let row = id.parse().ok().and_then(|id| wiring.connections.get(id));
    let row = row.ok_or_else(|| ApiError::missing("no connection with this number is alive; see /connections"))?;
    row.cut();
    Ok((StatusCode::ACCEPTED, Json(CutOff { id: row.id, state: "cut" })).into_response())
}
