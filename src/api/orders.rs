//! What the API asks of whoever owns the ports: routes to open and to close.
//!
//! A port belongs to the runtime of the relays and not to the API's, and a route must be durable before it listens, so
//! neither is done here. One order after the other is taken, so that two that want the same name or port cannot both
//! have it.

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::error::ApiError;
use super::routes::{RouteSpec, Wrong};
use crate::route::Policy;
use crate::route::selector::{RouteName, Selector};

/// One order, and where its answer goes.
pub enum Order {
    /// Open these, all or none.
    Open(Vec<Wanted>, oneshot::Sender<Result<Opened, OrderFault>>),
    /// Make this one another: a merge patch of the body that it was asked for with.
    Change {
        /// Which.
        name: String,
        /// What is said anew; `null` takes a word back.
        patch: Map<String, Value>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<RouteName, OrderFault>>,
    },
    /// Close this one.
    Close {
        /// Which.
        name: String,
        /// End its tunnels too.
        force: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(), OrderFault>>,
    },
}

/// A route that somebody asked for, judged.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What was said.
    pub asked: RouteSpec,
    /// What it asks of exits.
    pub selector: Selector,
    /// How they are chosen, kept and reached.
    pub policy: Policy,
}

/// Routes that are open now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Their names.
    pub names: Vec<RouteName>,
    /// False if they were open already, asked for in the same words.
    pub new: bool,
}

/// Why an order was not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderFault {
    /// There is no such route.
    #[error("there is no route `{0}`; see /proxies")]
    Unknown(String),
    /// The configuration's route is the configuration's.
    #[error("the route `{0}` is the configuration's: change it there, and reload")]
    ReadOnly(String),
    /// Another body made a route of that name.
    #[error("there is a route `{0}` already, and it was asked for in other words; choose another name, or delete it")]
    NameTaken(String),
    /// A field of a change says something wrong.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// The name is not one.
    #[error("{0} cannot be the name of this route: {1}")]
    BadName(String, String),
    /// Another route has the port.
    #[error("port {port} belongs to the route `{route}`; leave `port` out to get a free one")]
    PortOfRoute {
        /// The port.
        port: u16,
        /// Whose it is.
        route: String,
    },
    /// Another program has the port.
    #[error("port {0} cannot be had: another program listens there; leave `port` out to get a free one")]
    PortInUse(u16),
    /// All ports are in use.
    #[error("gateway.route_ports has no port left; delete routes, or widen it")]
    NoPortLeft,
    /// Nothing would serve it.
    #[error("no exit would serve this: {why} ({text})")]
    NoExit {
        /// The reason.
        why: String,
        /// The counts in words.
        text: String,
        /// The counts, step by step.
        funnel: Value,
    },
    /// Something of ours broke.
    #[error("the route could not be kept")]
    Ours,
}

impl From<OrderFault> for ApiError {
    fn from(fault: OrderFault) -> Self {
        let (status, code, details) = match &fault {
            OrderFault::Unknown(_) => (StatusCode::NOT_FOUND, "not_found", json!({})),
            OrderFault::ReadOnly(_) => (StatusCode::CONFLICT, "read_only", json!({})),
            OrderFault::NameTaken(_) => (StatusCode::CONFLICT, "name_taken", json!({ "field": "name" })),
            OrderFault::Wrong(wrong) => return wrong.clone().into(),
            OrderFault::BadName(..) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_field", json!({ "field": "name" })),
            OrderFault::PortOfRoute { .. } | OrderFault::PortInUse(_) => {
                (StatusCode::CONFLICT, "port_taken", json!({ "field": "port" }))
            }
            OrderFault::NoPortLeft => (StatusCode::CONFLICT, "no_port_left", json!({})),
            OrderFault::NoExit { funnel, .. } => (StatusCode::CONFLICT, "no_exit", json!({ "funnel": funnel })),
            OrderFault::Ours => return ApiError::ours("an order for a route failed"),
        };
        Self::new(status, code, fault.to_string()).with(details)
    }
}
