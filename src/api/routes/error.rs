//! Translates the errors of [`crate::admin`] into answers of the API: the HTTP status, the code, and the details.

use http::StatusCode;
use serde_json::json;

use super::super::error::ApiError;
use super::super::explain::funnel_steps;
use crate::admin::{BadField, RouteError};

impl From<BadField> for ApiError {
    fn from(bad: BadField) -> Self {
        let details = json!({ "field": bad.field });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", bad.to_string()).with(details)
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let (status, code, details) = match &error {
            RouteError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found", json!({})),
            RouteError::ReadOnly(_) => (StatusCode::CONFLICT, "read_only", json!({})),
            RouteError::NameTaken(_) => (StatusCode::CONFLICT, "name_taken", json!({ "field": "name" })),
            RouteError::BadField(bad) => return bad.clone().into(),
            RouteError::BadName { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_field", json!({ "field": "name" })),
            RouteError::PortOfRoute { .. } | RouteError::PortInUse(_) => {
                (StatusCode::CONFLICT, "port_taken", json!({ "field": "port" }))
            }
            RouteError::NoPortLeft => (StatusCode::CONFLICT, "no_port_left", json!({})),
            RouteError::NoExit { funnel, .. } => {
                (StatusCode::CONFLICT, "no_exit", json!({ "funnel": funnel_steps(funnel) }))
            }
            RouteError::InUse { .. } => (StatusCode::CONFLICT, "route_in_use", json!({})),
            RouteError::Busy => return Self::too_much("too_many_orders", error.to_string(), 1),
            RouteError::DiskHangs => (StatusCode::SERVICE_UNAVAILABLE, "disk_hangs", json!({})),
            RouteError::Internal => return Self::internal("an order for a route failed"),
        };
        Self::new(status, code, error.to_string()).with(details)
    }
}
