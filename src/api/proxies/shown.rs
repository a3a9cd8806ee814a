//! A route as the API shows it, with lines to paste.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::super::Wiring;
use super::super::when::When;
use super::Rules;
use crate::exit::Moment;
use crate::route::pin::PinRecord;
use crate::route::policy::Auth;
use crate::route::selector::Mode;
use crate::route::table::{Entry, Origin};
use crate::state::Snapshot;

/// A page that tells who asks from where.
const TRY: &str = "https://check.torproject.org/api/ip";

/// What all routes of one answer are shown by.
pub(super) struct Showing {
    pub(super) snapshot: Arc<Snapshot>,
    rules: Guard<Arc<Rules>>,
    pins: Vec<PinRecord>,
    shut: std::collections::BTreeSet<String>,
    /// The host under which whoever asks knows us.
    host: String,
}

impl Showing {
    pub(super) fn new(wiring: &Wiring, headers: &HeaderMap) -> Self {
        let rules = wiring.rules.load();
        let host = match rules.bind {
            ip if ip.is_unspecified() => asked_host(headers).unwrap_or_else(|| "127.0.0.1".to_owned()),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let now: Moment = wiring.state.now();
        Self {
            snapshot: wiring.state.snapshot(),
            rules,
            pins: wiring.state.memory().pins().list(now),
            shut: wiring.shut.borrow().clone(),
            host,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.snapshot.routes.get(name).map(|entry| &**entry)
    }

    /// A page of all routes by name.
    pub(super) fn page(&self, limit: usize, after: Option<&str>) -> Value {
        let mut all: Vec<&Arc<Entry>> = self.snapshot.routes.iter().collect();
        let total = all.len();
        all.retain(|entry| after.is_none_or(|after| entry.route.name.as_str() > after));
        all.sort_unstable_by(|a, b| a.route.name.cmp(&b.route.name));
        let next = (all.len() > limit).then(|| all[limit - 1].route.name.to_string());
        all.truncate(limit);
        let list: Vec<_> = all.into_iter().map(|entry| self.one(entry)).collect();
        json!({ "total": total, "proxies": list, "next": next })
    }

    pub(super) fn one(&self, entry: &Entry) -> Value {
        let (route, pool) = (&entry.route, &entry.pool);
        let name = route.name.as_str();
        let key = self.rules.keys && route.policy.auth == Auth::Key;
        let strict = route.selector.mode == Mode::Strict;
        let pin =
            self.pins.iter().filter(|_| strict).find(|pin| *pin.holder.scope == *name && pin.holder.session.is_none());
        let urls = route.port.map(|port| urls(&self.host, port, key));
        json!({
            "name": name,
            "port": route.port,
            "selector": route.selector.to_string(),
            "mode": route.selector.mode.as_str(),
            "pool": { "wanted": pool.wanted(), "have": pool.have(), "unique_ips": pool.unique_ips() },
            "check": route.policy.check.as_deref(),
            "exit": pin.map(|pin| json!({ "id": pin.to.exit.to_string(), "ip": pin.to.ip })),
            "auth": if key { "key" } else { "open" },
            "origin": match route.origin {
                Origin::Config => "config",
                Origin::Api => "api",
            },
            "created": When(route.created),
            "expires": route.expires.map(When),
            "used": entry.used().map(When),
            "state": if self.shut.contains(name) { "port_taken" } else { "open" },
            "examples": urls.as_ref().map(|(socks5, http)| examples(socks5, http)),
            "urls": urls.map(|(socks5, http)| json!({ "socks5": socks5, "http": http })),
        })
    }
}

/// The host of the request, without its port. The gate let it pass: it is one of ours.
fn asked_host(headers: &HeaderMap) -> Option<String> {
    let authority: http::uri::Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_owned())
}

/// A key is never shown: where one is needed its place is.
fn urls(host: &str, port: u16, key: bool) -> (String, String) {
    let user = if key { "x:YOUR_KEY@" } else { "" };
    (format!("socks5h://{user}{host}:{port}"), format!("http://{user}{host}:{port}"))
}

fn examples(socks5: &str, http: &str) -> Value {
    json!({
        "curl": format!("curl -x {socks5} {TRY}"),
        "python": format!("requests.get(\"{TRY}\", proxies={{\"http\": \"{http}\", \"https\": \"{http}\"}})"),
        "playwright": format!("await chromium.launch({{ proxy: {{ server: \"{http}\" }} }})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_place_for_the_key_and_never_the_key() {
        let (socks5, http) = urls("[::1]", 20_001, true);
        assert_eq!((&*socks5, &*http), ("socks5h://x:YOUR_KEY@[::1]:20001", "http://x:YOUR_KEY@[::1]:20001"));
        assert_eq!(urls("127.0.0.1", 1, false).1, "http://127.0.0.1:1");
    }

    #[test]
    fn the_host_is_the_one_that_was_asked() {
        let headers = |host: &str| HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        for (host, want) in [("gate.example:8080", "gate.example"), ("[::1]:8080", "[::1]"), ("localhost", "localhost")]
        {
            assert_eq!(asked_host(&headers(host)).as_deref(), Some(want));
        }
    }
}
