//! The meters of every route, made at a route's first use.
//!
//! Labels are names of routes and the word `implicit`, so this map grows with what an operator configured and never with
//! what clients send.

use std::sync::Arc;

use dashmap::DashMap;

use super::super::meters::RouteMeters;

/// No guard of an entry outlives the statement that took it: a second call of the map would deadlock.
#[derive(Debug, Default)]
pub(super) struct AllRouteMeters(DashMap<Box<str>, Arc<RouteMeters>>);

impl AllRouteMeters {
    /// The meters of the route with this label.
    pub(super) fn of(&self, label: &str) -> Arc<RouteMeters> {
        if let Some(found) = self.get(label) {
            return found;
        }
        self.0.entry(label.into()).or_insert_with(|| Arc::new(RouteMeters::new(label))).clone()
    }

    /// The meters of this label, if anything has been counted there.
    pub(super) fn get(&self, label: &str) -> Option<Arc<RouteMeters>> {
        self.0.get(label).map(|meters| meters.value().clone())
    }

    /// Drops the meters of labels that are no longer in use, whose series end with them, and returns the others.
    pub(super) fn retain(&self, used: impl Fn(&str) -> bool) -> Vec<Arc<RouteMeters>> {
        self.0.retain(|label, _| used(label));
        self.0.iter().map(|meters| meters.value().clone()).collect()
    }
}
