//! Why an order for a route was refused.

use crate::route::refusal::Funnel;

/// A field of a spec whose value is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct BadField {
    pub field: String,
    /// The rest of the sentence that begins with the field's name.
    pub why: String,
}

impl BadField {
    pub fn new(field: &str, why: impl Into<String>) -> Self {
        Self { field: field.to_owned(), why: why.into() }
    }
}

/// Why an order was not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("there is no route `{0}`; see /proxies")]
    Unknown(String),
    #[error("the route `{0}` belongs to the configuration: change it there, and reload")]
    ReadOnly(String),
    #[error(
        "the name `{0}` is taken by a route that another request created; choose another name, or delete that route"
    )]
    NameTaken(String),
    #[error(transparent)]
    BadField(#[from] BadField),
    #[error("{name} cannot be the name of this route: {why}")]
    BadName { name: String, why: String },
    #[error("port {port} belongs to the route `{route}`; leave `port` out to get a free one")]
    PortOfRoute { port: u16, route: String },
    #[error("port {0} is in use by another program; leave `port` out to get a free one")]
    PortInUse(u16),
    #[error("gateway.route_ports has no free port; delete routes, or widen the range")]
    NoPortLeft,
    /// No exit would serve the route now; the funnel counts what is left after each condition.
    #[error("no exit would serve this route: {why} ({funnel})")]
    NoExit { why: String, funnel: Funnel },
    #[error("too many routes are being created and changed at once; try again")]
    Busy,
    /// The store or the worker failed; the log says why.
    #[error("the route could not be stored; the log says why")]
    Internal,
}
