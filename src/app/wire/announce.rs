//! Logs where the gateway listens, and a command to try.

use std::net::SocketAddr;

use crate::config::Config;

/// The addresses that were bound. An address differs from the configured one if the configured port is 0 (any free
/// port).
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub(super) gateway: Vec<SocketAddr>,
    pub(super) api: Vec<SocketAddr>,
}

/// Logs the addresses that the gateway listens on, and an example command for the user to try. `unused` are the addresses
/// of inherited sockets that no setting listens on.
pub(super) fn announce(bound: &Bound, config: &Config, unused: &[SocketAddr]) {
    let list = |addrs: &[SocketAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!(gateway = list(&bound.gateway), api = list(&bound.api), routes = config.routes.len(), "listening");
    for addr in unused {
        tracing::warn!(%addr, "systemd passed a socket that no setting listens on; clients that connect to it get no answer");
    }
    if let Some(line) = bound.gateway.first().and_then(|addr| line_to_try(*addr, config)) {
        tracing::info!("try: {line}");
    }
}

/// Returns a command that fetches a page through the first kind of exits that the configuration has. Returns `None` if
/// it has no exits.
fn line_to_try(addr: SocketAddr, config: &Config) -> Option<String> {
    let username = if config.tor.enabled {
        "us"
    } else if config.sources.any_public() {
        "any-source-public"
    } else if config.gateway.allow_direct {
        "any-source-direct"
    } else {
        return None;
    };
    let ip = if addr.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { addr.ip() };
    let at = SocketAddr::new(ip, addr.port());
    let key = if config.gateway.keys.is_empty() { "" } else { ":KEY" };
    Some(format!("curl -x socks5h://{username}{key}@{at} {}", config.api.example_url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_try_fits_the_configuration() {
        let line = |text: &str| {
            let (config, _) = crate::config::parse("t.toml", text, [], None).unwrap();
            line_to_try("0.0.0.0:1080".parse().unwrap(), &config)
        };
        let page = "https://check.torproject.org/api/ip";
        assert_eq!(line(""), Some(format!("curl -x socks5h://us@127.0.0.1:1080 {page}")));
        let public =
            "[tor]\nenabled = false\n[sources.proxifly]\nenabled = true\n[api]\nexample_url = \"http://echo.test/ip\"";
        assert_eq!(
            line(public).as_deref(),
            Some("curl -x socks5h://any-source-public@127.0.0.1:1080 http://echo.test/ip")
        );
        let keyed = "[tor]\nenabled = false\n[gateway]\nallow_direct = true\n[[gateway.keys]]\nname = \"a\"\nkey = \"a-long-enough-key-for-this\"";
        assert_eq!(line(keyed), Some(format!("curl -x socks5h://any-source-direct:KEY@127.0.0.1:1080 {page}")));
        assert_eq!(line("[tor]\nenabled = false"), None, "nothing leaves, so there is nothing to try");
    }
}
