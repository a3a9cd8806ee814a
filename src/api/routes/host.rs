//! The host name in the URLs that the API shows for the ports of routes.

use std::net::IpAddr;

use http::{HeaderMap, header};

use crate::admin::RouteRules;

/// Returns the host under which the caller reaches the ports of routes.
pub(super) fn host(rules: &RouteRules, headers: &HeaderMap) -> String {
    match rules.bind {
        ip if ip.is_unspecified() => request_host(headers).unwrap_or_else(|| "127.0.0.1".to_owned()),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Returns the host in the request's Host header, without the port. `api/auth.rs` has checked that it is a name of this
/// gateway.
fn request_host(headers: &HeaderMap) -> Option<String> {
    let authority: http::uri::Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_one_of_the_request() {
        let headers = |host: &str| HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        for (host, want) in [("gate.example:8080", "gate.example"), ("[::1]:8080", "[::1]"), ("localhost", "localhost")]
        {
            assert_eq!(request_host(&headers(host)).as_deref(), Some(want));
        }
    }
}
