//! What each route counts, fetched once a route.
//!
//! Labels are names of routes and the word `implicit`, so that this map grows with what an operator made and never with
//! what a client says.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::super::record::RouteMeters;

#[derive(Debug, Default)]
pub(super) struct Meters(RwLock<HashMap<Box<str>, Arc<RouteMeters>>>);

impl Meters {
    /// The counters of the route with this label.
    pub(super) fn of(&self, label: &str) -> Arc<RouteMeters> {
        if let Some(found) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(label) {
            return found.clone();
        }
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(label.into()).or_insert_with(|| Arc::new(RouteMeters::new(label))).clone()
    }
    /// The counters of this label, if anything has been counted there.
    pub(super) fn peek(&self, label: &str) -> Option<Arc<RouteMeters>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(label).cloned()
    }

    /// Those of labels that are still in use; the others' series end with them.
    pub(super) fn keep(&self, used: impl Fn(&str) -> bool) -> Vec<Arc<RouteMeters>> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.retain(|label, _| used(label));
        map.values().cloned().collect()
    }
}
