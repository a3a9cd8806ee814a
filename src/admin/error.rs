//! The reasons why an order to create, change or close a route is refused.

use crate::route::no_plan::Funnel;

/// The error for a field of a spec that has a wrong value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct BadField {
    pub field: String,
    /// What is wrong, as the rest of a sentence that begins with the field's name.
    pub why: String,
}

impl BadField {
    pub fn new(field: &str, why: impl Into<String>) -> Self {
        Self { field: field.to_owned(), why: why.into() }
    }
}

/// Why an order (to create, change or close a route) failed. After any of these errors, nothing has changed.
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
    /// No known exit can ever serve the route. `funnel` has the number of exits that are left after each filter step.
    #[error("no exit would serve this route: {why} ({funnel})")]
    NoExit { why: String, funnel: Funnel },
    /// Rules of other routes lead to the route that a caller wants to delete.
    #[error("rules of `{by}` lead to the route `{name}`; change these rules first")]
    InUse { name: String, by: String },
    #[error("too many routes are being created and changed at once; try again")]
    Busy,
    #[error(
        "the disk of the gateway does not answer: nothing was changed. Try again when it answers; the log and the alert \
         ExitgateStoreFailing say more"
    )]
    DiskHangs,
    /// The store or the worker failed. The cause is in the log.
    #[error("the route could not be stored; the log says why")]
    Internal,
}
