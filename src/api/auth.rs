//! Access control: every request must pass these checks before a handler is called.
//!
//! The API listens on loopback by default. But every web page in the user's browser can send requests to loopback, and
//! a token alone does not protect against that. So a request from a page of another site is refused, with or without a
//! token:
//!
//! - The `Host` header must be a name of this gateway. Otherwise DNS rebinding would let a page read answers.
//! - An `Origin` header must be this gateway's own. Otherwise a page could send requests that change something.
//! - A request with a body must have the content type JSON. A page can send JSON to another origin only after a
//!   preflight request, and this API allows no preflight request.
//!
//! A token is read from the `Authorization` header only, because a token in a URL is written to logs and to the
//! browser's history.
//!
//! After many wrong tokens from one address, all tokens from this address are refused for a minute, also right ones. So
//! an attacker cannot find out whether a guess was right.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::error::ApiError;
use crate::limit::{AuthThrottle, Damping};
use crate::net::{Host, Secret, Target};

/// How many wrong tokens an address may send, and how long its tokens are then refused. The values are the gateway's
/// defaults for wrong client keys.
const DAMPING: Damping = Damping { failures: NonZeroU32::new(10).unwrap(), pause: Duration::from_secs(60) };

/// The IP address of the client that sent the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The settings that requests are checked with.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) access: Arc<ArcSwap<Access>>,
    /// Counts the wrong tokens from each client address. A reload does not reset these counts.
    pub(super) throttle: Arc<AuthThrottle>,
}

/// A function that records whether a token (the bytes) is right (`true`) or wrong. If tokens from this address are
/// refused now, it returns how long the caller has to wait.
type CheckKey<'a> = &'a dyn Fn(&[u8], bool) -> Option<Duration>;

/// Which token a URL requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The read token or the full token.
    Read,
    Token,
}

/// The tokens and the host names that requests are checked against.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The token that allows every request. If it is `None`, no token is needed; the configuration allows this only on
    /// loopback.
    pub token: Option<Secret>,
    /// The token that allows only `/metrics`, `/list`, `/random` and `/stats`.
    pub read_token: Option<Secret>,
    /// The names that the `Host` header may contain. Loopback names are always allowed.
    pub hosts: Vec<Host>,
}

fn need(path: &str) -> Need {
    match path {
        "/health" | "/ready" | "/" | "/docs" | "/openapi.json" => Need::Nothing,
        "/metrics" | "/list" | "/random" | "/stats" => Need::Read,
        // Files of the console and of the API's documentation contain no data.
        _ if path.starts_with("/console/") || path.starts_with("/docs/") => Need::Nothing,
        _ => Need::Token,
    }
}

/// The middleware that checks each request, and refuses it or passes it on to the handler.
pub(super) async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(ip)| *ip);
    let check_key =
        |token: &[u8], right| peer.and_then(|peer| gate.throttle.check(peer, token, right, DAMPING, Instant::now()));
    let allowed = gate.access.load().check(request.uri(), request.headers(), &check_key);
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    // Answers are meant for the operator only, so no cache between the client and the API may store them.
    headers.entry(header::CACHE_CONTROL).or_insert(http::HeaderValue::from_static("no-cache, private"));
    response
}

/// The middleware for endpoints that take a body: it accepts JSON only. It runs after the method was matched, so a
/// wrong method gets the answer 405.
pub(super) async fn json_only(request: Request, next: Next) -> Response {
    let write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    if write && !is_json(request.headers()) {
        let message = "this request needs the header Content-Type: application/json; with curl: -H 'Content-Type: application/json'";
        return ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message).into_response();
    }
    next.run(request).await
}

impl Access {
    fn check(&self, uri: &Uri, headers: &HeaderMap, check_key: CheckKey<'_>) -> Result<(), ApiError> {
        self.check_host(uri, headers)?;
        self.check_origin(headers)?;
        self.check_token(need(uri.path()), headers, check_key)
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut given = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (given.next(), given.next()) else {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_host", "send exactly one Host header"));
        };
        let is_own = |host: &Host| is_loopback(host) || self.hosts.contains(host);
        // The request line may also contain a host. Such a host must be a name of this gateway too (RFC 9112, 3.2.2).
        let first = uri.authority().is_none_or(|named| parse_authority(named.as_str()).as_ref().is_some_and(is_own));
        let host = host.to_str().ok().and_then(parse_authority);
        if first && host.as_ref().is_some_and(is_own) {
            return Ok(());
        }
        let message =
            "this gateway has no such host name; add the name that you use to `api.hosts` in the configuration";
        Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(origin) = headers.get(header::ORIGIN) else { return check_fetch(headers) };
        // For a request of the gateway's own console, the host and port in `Origin` equal the Host header, which was
        // checked before.
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, authority)| headers.get(header::HOST).is_some_and(|host| host == authority));
        if own { Ok(()) } else { Err(foreign_page()) }
    }

    fn check_token(&self, need: Need, headers: &HeaderMap, check_key: CheckKey<'_>) -> Result<(), ApiError> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token);
        // Both tokens are always compared, so the time of the answer does not show which one matched.
        let full = given.is_some_and(|given| token.matches(given));
        let read = given.is_some_and(|given| self.read_token.as_ref().is_some_and(|token| token.matches(given)));
        let may = match need {
            Need::Nothing => true,
            Need::Read => full || read,
            Need::Token => full,
        };
        if let Some(wait) = given.filter(|_| need != Need::Nothing).and_then(|given| check_key(given, full || read)) {
            let seconds = u16::try_from(wait.as_secs().max(1)).unwrap_or(u16::MAX);
            let message = "too many wrong tokens came from this address; wait, then try again";
            return Err(ApiError::too_much("too_many_guesses", message, seconds));
        }
        if may {
            return Ok(());
        }
        let message = match given {
            None => "send the API token: -H \"Authorization: Bearer $EXITGATE_TOKEN\"",
            Some(_) if read => "the read token is for /metrics, /list, /random and /stats; this needs `api.token`",
            Some(_) => "this token is not the one in `api.token`",
        };
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
    }
}

/// Checks a request without an `Origin` header by the `Sec-Fetch-…` headers, in which a browser says what the request
/// is for. What a page of another site embeds (an image, a script) is refused. A link from another site to the console
/// is allowed.
fn check_fetch(headers: &HeaderMap) -> Result<(), ApiError> {
    let says = |name: &str, word: &str| headers.get(name).is_some_and(|value| value == word);
    let elsewhere = says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site");
    if elsewhere && !says("sec-fetch-mode", "navigate") { Err(foreign_page()) } else { Ok(()) }
}

fn foreign_page() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", "pages of other sites may not use this API")
}

/// Returns the host of a text of the form `host[:port]`.
fn parse_authority(text: &str) -> Option<Host> {
    text.parse::<Target>().map(|target| target.host).or_else(|_| Host::parse(text)).ok()
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => &**name == "localhost",
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }

    fn code(access: &Access, path: &str, list: &[(&'static str, &str)]) -> Option<&'static str> {
        access.check(&path.parse().unwrap(), &headers(list), &|_, _| None).err().map(|error| error.code())
    }

    #[test]
    fn an_unknown_host_is_refused() {
        let access = Access { hosts: vec![Host::parse("gate.example").unwrap()], ..Access::default() };
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.9.9.9", "gate.example:80"] {
            assert_eq!(code(&access, "/x", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "10.0.0.1", "localhost.evil.example", "gate.example.", "a b", ""] {
            let want = if host == "gate.example." { None } else { Some("unknown_host") };
            assert_eq!(code(&access, "/health", &[("host", host)]), want, "{host}");
        }
        assert_eq!(code(&access, "/health", &[]), Some("bad_host"));
    }

    #[test]
    fn a_page_of_another_site_gets_nothing() {
        let access = Access::default();
        let host = ("host", "localhost:8080");
        let json = ("content-type", "application/json");
        for (origin, want) in [
            ("http://localhost:8080", None),
            ("http://localhost:9", Some("foreign_origin")),
            ("https://evil.example", Some("foreign_origin")),
            ("null", Some("foreign_origin")),
        ] {
            assert_eq!(code(&access, "/reload", &[host, json, ("origin", origin)]), want, "{origin}");
        }
    }

    #[test]
    fn a_link_from_another_site_works_and_an_embedded_request_does_not() {
        let access = Access::default();
        for (site, mode, want) in [
            ("same-origin", "cors", None),
            ("none", "navigate", None),
            ("cross-site", "navigate", None),
            ("cross-site", "no-cors", Some("foreign_origin")),
            ("same-site", "no-cors", Some("foreign_origin")),
            ("cross-site", "", Some("foreign_origin")),
        ] {
            let list = [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            assert_eq!(code(&access, "/list", &list), want, "{site} {mode}");
        }
    }

    #[test]
    fn the_host_in_the_first_line_counts_too() {
        let access = Access::default();
        let host = [("host", "localhost:8080")];
        assert_eq!(code(&access, "http://localhost:8080/health", &host), None);
        assert_eq!(code(&access, "http://evil.example/health", &host), Some("unknown_host"));
    }

    #[test]
    fn after_many_wrong_tokens_even_the_right_one_is_refused() {
        let access = Access { token: Some(Secret::new("full")), ..Access::default() };
        let (throttle, now) = (AuthThrottle::default(), Instant::now());
        let ask = |path: &str, peer: u8, token: &str| {
            let check_key = |token: &[u8], right| throttle.check([10, 0, 0, peer].into(), token, right, DAMPING, now);
            let value = format!("Bearer {token}");
            let list = headers(&[("host", "localhost"), ("authorization", &value)]);
            access.check(&path.parse().unwrap(), &list, &check_key).err().map(|error| error.code())
        };
        assert_eq!(ask("/proxies", 1, "full"), None);
        for guess in 0..10 {
            assert_eq!(ask("/proxies", 1, &format!("guess{guess}")), Some("unauthorized"));
            assert_eq!(ask("/proxies", 2, &format!("guess{guess}")), Some("unauthorized"));
        }
        assert_eq!(ask("/proxies", 2, "more"), Some("too_many_guesses"));
        assert_eq!(
            ask("/metrics", 2, "full"),
            Some("too_many_guesses"),
            "the right token is refused too, so a guesser learns nothing"
        );
        assert_eq!(ask("/health", 2, "more"), None, "a URL without a token is not affected");
        assert_eq!(ask("/proxies", 1, "full"), None, "an address that sent the right token before is not affected");
        assert_eq!(ask("/proxies", 3, "full"), None);
    }

    #[test]
    fn parameters_of_a_content_type_do_not_matter() {
        for (kind, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/plain; application/json", false),
        ] {
            assert_eq!(is_json(&headers(&[("content-type", kind)])), want, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn each_url_needs_its_token() {
        let access = Access { token: Some(Secret::new("full")), read_token: Some(Secret::new("read")), hosts: vec![] };
        let ask = |path, token: &str| {
            let value = format!("Bearer {token}");
            let mut list = vec![("host", "localhost")];
            if !token.is_empty() {
                list.push(("authorization", &value));
            }
            code(&access, path, &list)
        };
        for path in ["/health", "/ready", "/", "/docs", "/openapi.json", "/console/x/app.js"] {
            assert_eq!(ask(path, ""), None, "{path}");
        }
        for path in ["/metrics", "/list", "/random", "/stats"] {
            assert_eq!((ask(path, "read"), ask(path, "full")), (None, None), "{path}");
            assert_eq!((ask(path, ""), ask(path, "x")), (Some("unauthorized"), Some("unauthorized")), "{path}");
        }
        for path in ["/proxies", "/reload", "/metrics/", "/Health", "/console"] {
            assert_eq!((ask(path, "full"), ask(path, "read")), (None, Some("unauthorized")), "{path}");
        }
    }
}
