//! `/proxy.pac`: a script (proxy auto-configuration) that makes a browser send its requests through the gateway.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::Wiring;
use super::super::error::{ApiError, Problem};
use super::super::extract::Params;
use super::host::host;

/// The query of `GET /proxy.pac`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct PacQuery {
    /// A route by name or port; without it, the script names the shared port.
    route: Option<String>,
}

/// A script that sends a browser's requests through the gateway, except those to this machine.
#[utoipa::path(get, path = "/proxy.pac", tag = "proxies", params(PacQuery),
    responses((status = 200, body = String, content_type = "application/x-ns-proxy-autoconfig"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(in crate::api) async fn pac(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(query): Params<PacQuery>,
) -> Result<Response, ApiError> {
    let port = match &query.route {
        Some(route) => super::find(&wiring.state.snapshot(), route)?.route.port,
        None => wiring.gateway.first().map(std::net::SocketAddr::port),
    };
    let port = port.ok_or_else(|| ApiError::missing("this route has no port of its own; leave `route` out"))?;
    let host = host(&wiring.routes.rules(), &headers);
    Ok(([(header::CONTENT_TYPE, "application/x-ns-proxy-autoconfig")], script(&host, port)).into_response())
}

/// Returns the script. SOCKS is the first choice, because the browser then lets the gateway resolve names. `PROXY` is
/// for clients that do not support SOCKS.
fn script(host: &str, port: u16) -> String {
    format!(
        "function FindProxyForURL(url, host) {{\n  \
           if (isPlainHostName(host) || host === \"127.0.0.1\" || host === \"[::1]\") return \"DIRECT\";\n  \
           return \"SOCKS5 {host}:{port}; PROXY {host}:{port}\";\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_never_connects_directly_instead() {
        let script = script("127.0.0.1", 20_000);
        assert!(script.contains("return \"SOCKS5 127.0.0.1:20000; PROXY 127.0.0.1:20000\";"), "{script}");
        assert_eq!(script.matches("DIRECT").count(), 1, "{script}");
    }
}
