//! Finds out what a URL below `/proxies/{route}/` refers to: a route (by name or port) or the selector of a username.
//! It also finds the client key whose pin or session is meant.
//!
//! A pin or a session belongs to the client key that created it. A caller of the API has no client key, so the query
//! contains the name of the key (`key`). The query may omit this name if at most one key has a pin or a session for
//! this route or username.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::super::Wiring;
use super::super::error::ApiError;
use super::super::extract::bad_query;
use crate::exit::Moment;
use crate::net::Host;
use crate::route::table::Wish;
use crate::route::{Holder, Memory};
use crate::state::Snapshot;

/// The query that names a session, and the key that it belongs to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct OwnerQuery {
    /// A client's session id: the text after `session-` in its username.
    pub(super) session: Option<String>,
    /// The name of the client's key, where there are keys.
    pub(super) key: Option<String>,
    /// A target's host: the rules of the route apply to it, as to a connection to its port 443.
    pub(super) host: Option<String>,
}

/// The selector in a URL, and the name of the client key that owns the pin or session. The name is empty if the URL
/// names no key and the gateway finds no key with such a pin or session.
pub(super) struct Owned {
    pub(super) wish: Wish,
    pub(super) key: Arc<str>,
}

pub(super) fn resolve(wiring: &Wiring, route: &str, query: &OwnerQuery) -> Result<Owned, ApiError> {
    let snapshot = wiring.state.snapshot();
    let wish = wish(&snapshot, route, query.session.as_deref())?;
    let wish = match &query.host {
        Some(host) => for_host(&snapshot, wish, host)?,
        None => wish,
    };
    let key = match &query.key {
        Some(key) => key.as_str().into(),
        None => only_key(wiring.state.memory(), &wish, wiring.state.now())?,
    };
    Ok(Owned { wish, key })
}

/// Applies the rules of the route to a connection to port 443 of this host.
fn for_host(snapshot: &Snapshot, wish: Wish, host: &str) -> Result<Wish, ApiError> {
    let bad = |why: String| bad_query(why).with(json!({ "field": "host" }));
    let host = Host::parse(host).map_err(|why| bad(format!("`host`: {why}")))?;
    snapshot.routes.for_target(wish, &host, Some(443)).map_err(|refused| bad(refused.to_string()))
}

pub(super) fn wish(snapshot: &Snapshot, route: &str, session: Option<&str>) -> Result<Wish, ApiError> {
    let routes = &snapshot.routes;
    let named = routes.get(route).or_else(|| routes.by_port(route.parse().ok()?));
    let session = session.map(|id| format!("session-{id}"));
    if let Some(entry) = named {
        let wish = routes.resolve(session.as_deref().unwrap_or_default(), Some(entry.route.name.as_str()));
        return wish.map_err(|bad| bad_query(bad.to_string()).with(json!({ "field": "session" })));
    }
    // A pin or session of a rule has the scope `route:selector`, which answers and refusals show.
    if let Some(wish) = route.contains(':').then(|| routes.resolve_scope(route)).flatten() {
        return Ok(wish);
    }
    let unknown = |why: String| {
        let text: String = route.chars().take(64).collect();
        ApiError::missing(format!(
            "there is no route `{text}`, and it is no username either: {why}; GET /proxies lists the routes"
        ))
    };
    let whole = routes.resolve(route, None).map_err(|bad| unknown(bad.to_string()))?;
    let Some(session) = session else { return Ok(whole) };
    let wish = routes.resolve(&format!("{route}-{session}"), None);
    wish.map_err(|bad| bad_query(bad.to_string()).with(json!({ "field": "session" })))
}

/// Returns the key that owns the matching pin or session. The key is empty if there is no pin or session. If several
/// keys have one, that is an error.
fn only_key(memory: &Memory, wish: &Wish, now: Moment) -> Result<Arc<str>, ApiError> {
    if wish.is_pooled() {
        return Ok(Arc::from(""));
    }
    let same = |holder: &Holder| holder.scope == wish.scope && holder.session == wish.selector.session;
    let pins = memory.pins().list(now).into_iter().map(|pin| pin.holder);
    let sessions = memory.sessions().list(now).into_iter().map(|session| session.holder);
    let mut keys: Vec<Arc<str>> = pins.chain(sessions).filter(same).map(|holder| holder.key).collect();
    keys.sort();
    keys.dedup();
    match keys.as_slice() {
        [] => Ok(Arc::from("")),
        [key] => Ok(key.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|key| &**key).collect();
            let message = format!("several keys have a pin or session here; name one: ?key={}", names[0]);
            Err(ApiError::new(http::StatusCode::CONFLICT, "several_keys", message).with(json!({ "keys": names })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;
    use crate::route::memory::Bounds;
    use crate::route::{Ask, decide};

    #[test]
    fn a_username_is_accepted_like_a_route() {
        let snapshot = fixture::snapshot(&["US", "US", "DE"]);
        let scope =
            |route: &str, session: Option<&str>| wish(&snapshot, route, session).map(|wish| wish.scope.to_string());
        assert_eq!(scope("us-strict", None).unwrap(), "us-strict");
        assert_eq!(scope("us", Some("a1")).unwrap(), "us");
        assert_eq!(scope("nowhere", None).unwrap_err().code(), "not_found");
        assert_eq!(scope("us", Some("a b")).unwrap_err().code(), "bad_query");
    }

    #[test]
    fn the_rules_of_a_route_apply_to_a_host_and_a_scope_of_a_rule_is_accepted() {
        let mut snapshot = fixture::snapshot(&["US", "US", "DE"]);
        fixture::add_route_with_rules(&mut snapshot);
        let shop = |session| wish(&snapshot, "shop", session).unwrap();
        let ruled = for_host(&snapshot, shop(Some("a")), "www.shop.example").unwrap();
        let session = ruled.selector.session.as_ref().map(ToString::to_string);
        assert_eq!((&*ruled.scope, session.as_deref()), ("shop:us", Some("a")));
        assert_eq!(&*for_host(&snapshot, shop(None), "other.example").unwrap().scope, "shop");
        assert_eq!(for_host(&snapshot, shop(None), "bad.example").unwrap_err().code(), "bad_query");
        assert_eq!(for_host(&snapshot, shop(None), "a b").unwrap_err().code(), "bad_query");
        assert_eq!(&*wish(&snapshot, "shop:us", None).unwrap().scope, "shop:us");
        assert_eq!(wish(&snapshot, "shop:fr", None).unwrap_err().code(), "not_found");
    }

    #[test]
    fn the_key_may_be_left_out_while_one_has_a_session() {
        let snapshot = fixture::snapshot(&["US", "US", "DE"]);
        let (memory, now) = (Memory::new(Bounds::default()), Moment(1_000_000));
        let target = "shop.example:443".parse().unwrap();
        let connect = |username: &str, key: &str| {
            let wish = wish(&snapshot, username, None).unwrap();
            let ask = Ask { wish: &wish, key, target: &target, now, avoid: &[], plain: false };
            drop(decide(snapshot.view(), &memory, &ask, &mut rand::rng()).unwrap());
        };
        let key = |username: &str| {
            only_key(&memory, &wish(&snapshot, username, None).unwrap(), now).map(|key| key.to_string())
        };
        assert_eq!(key("us-session-a").unwrap(), "");
        connect("us-session-a", "team-a");
        assert_eq!(key("us-session-a").unwrap(), "team-a");
        connect("us-session-a", "team-b");
        assert_eq!(key("us-session-a").unwrap_err().code(), "several_keys");
        assert_eq!(key("us").unwrap(), "", "a pool belongs to no key");
    }
}
