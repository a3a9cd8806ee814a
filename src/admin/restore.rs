//! Restores the routes that the API had created before a restart: reads them from the store into the route table.

use std::sync::Arc;

use super::spec::{RouteRules, RouteSpec};
use crate::route::RouteTable;
use crate::route::selector::RouteName;
use crate::route::table::{Origin, Route};
use crate::store;

/// Adds the routes in `stored` to `table`, and returns the table. A stored route that this configuration no longer
/// allows is not added, but it stays in the store.
pub fn restored(stored: &[store::Route], mut table: RouteTable, rules: &RouteRules) -> RouteTable {
    for stored in stored {
        if RouteName::for_new_route(&stored.name, table.words()).is_err() {
            let advice = "as a username it means this route; create the route again under another name";
            tracing::warn!(route = stored.name, advice, "a stored route has a name that is also a selector");
        }
        let route = read(stored, &table, rules);
        if let Err(why) = route.and_then(|route| table.put(route).map_err(|clash| clash.to_string())) {
            tracing::error!(route = stored.name, why, "a stored route cannot be opened again; it stays in the store");
        }
    }
    table
}

fn read(stored: &store::Route, table: &RouteTable, rules: &RouteRules) -> Result<Route, String> {
    let fields = serde_json::from_str(&stored.asked).map_err(|why| why.to_string())?;
    // The port and the name of a stored route are left out here, because they must not be validated again. The port may
    // be outside gateway.route_ports now, but clients still use it. The name may be a selector, because earlier
    // versions allowed such names.
    let spec = RouteSpec { port: None, name: None, ..RouteSpec::read(&fields).map_err(|bad| bad.to_string())? };
    let (selector, policy) = spec.validate_stored(table, rules).map_err(|bad| bad.to_string())?;
    let name = RouteName::parse(&stored.name, &selector, table.words()).map_err(|why| why.to_string())?;
    let (port, created, expires) = (stored.port, stored.created, stored.expires);
    Ok(Route { name, selector, port, policy: Arc::new(policy), origin: Origin::Api, created, expires })
}
