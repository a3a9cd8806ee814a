//! The meters of all routes. The meters of a route are made at the route's first use.
//!
//! The labels are the names of routes and the word `implicit`. Therefore the size of this map depends on the
//! configuration and never on what clients send.

use std::sync::Arc;

use dashmap::DashMap;

use super::super::meters::RouteMeters;

/// The meters of each route. The key is the route's label. A guard of a map entry must be dropped in the statement that
/// took the guard. A second call of the map while a guard is held would deadlock.
#[derive(Debug, Default)]
pub(super) struct AllRouteMeters(DashMap<Box<str>, Arc<RouteMeters>>);

impl AllRouteMeters {
    /// Returns the meters of the route with this label, and makes them if they do not exist.
    pub(super) fn of(&self, label: &str) -> Arc<RouteMeters> {
        if let Some(found) = self.get(label) {
            return found;
        }
        self.0.entry(label.into()).or_insert_with(|| Arc::new(RouteMeters::new(label))).clone()
    }

    /// Returns the meters of the route with this label. Returns `None` if the route was never used.
    pub(super) fn get(&self, label: &str) -> Option<Arc<RouteMeters>> {
        self.0.get(label).map(|meters| meters.value().clone())
    }

    /// Drops the meters of all labels for which `used` returns false. The metric series of the dropped meters end.
    /// Returns the meters of the other labels.
    pub(super) fn retain(&self, used: impl Fn(&str) -> bool) -> Vec<Arc<RouteMeters>> {
        self.0.retain(|label, _| used(label));
        self.0.iter().map(|meters| meters.value().clone()).collect()
    }
}
