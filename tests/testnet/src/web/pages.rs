//! Every page of the fake web, on one page.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | a line of text; on `shop.test` the shop, which refuses the sources that [`super::Web::shop_refuses`] names |
//! | `/ip` | the source IP as text; every page returns a `?nonce=` as `X-Nonce` |
//! | `/ip.json`, `/origin.json`, `/query.json`, `/tor.json` | `{"ip":…}`, `{"origin":…}`, `{"query":…}`, `{"IsTor":true,"IP":…}`, each with `"nonce"` if there was one |
//! | `/headers` | the request's headers as JSON, and the source |
//! | `/bytes/N` | N bytes of [`super::pattern`]; `Range` and `If-Range` are honoured |
//! | `/slow/S` | S bytes, one a second |
//! | `/sleep/S` | the source IP after S seconds |
//! | `/hang` | no answer |
//! | `/status/N` | status N |
//! | `/redirect/N` | N redirects, then `/ip` |
//! | `/redirect-to?url=…` | one redirect to anywhere (percent-encoded) |
//! | `/echo` (POST, PUT) | the request's body, while it arrives |
//! | `/page` | HTML with fifty scripts, `/asset/I.js`; each adds the source IP that it saw to `window.seen`, and the page shows them |
//! | `/ws` | a WebSocket that echoes |
//! | `/files/NAME/…` | files of a folder given to [`super::Web::serve_folder`] |

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;

use super::body::{Drip, Pattern, range};
use super::exit_fault::ExitFault;
use super::server::Visit;
use super::websocket;
use crate::http_response::{self, HttpResponse, header_text, status, text, typed, with};

/// Scripts of `/page`: as many as an ordinary page loads, and more than a browser opens connections.
const ASSETS: usize = 50;

pub(super) async fn answer(visit: &Visit, request: Request<Incoming>) -> HttpResponse {
    let host = header_text(&request, &header::HOST).split(':').next().unwrap_or_default().to_ascii_lowercase();
    let fault = visit.state.exit_faults.of(visit.source.ip());
    if let Some(ExitFault::Slow(pause)) = &fault {
        tokio::time::sleep(*pause).await;
    }
    let ip = ExitFault::seen(fault.as_ref(), visit.source.ip(), &host, visit.tls);
    if host == "shop.test" || host.ends_with(".shop.test") {
        return shop(visit);
    }
    let nonce = parameter(&request, "nonce");
    let path = request.uri().path().to_owned();
    let (head, tail) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let mut page = match (head, tail) {
        ("", _) => text("the fake web\n"),
        ("ip", "") => text(&ip.to_string()),
        ("ip.json" | "origin.json" | "query.json" | "tor.json", "") => ip_json(ip, head, nonce.as_deref()),
        _ if fault == Some(ExitFault::Tampers) && !visit.tls => typed("text/html", "<p>buy this</p>"),
        ("headers", "") => headers(visit, &request),
        ("bytes", length) => with_number(length, |length| bytes(&request, length)),
        ("slow", seconds) => with_number(seconds, |seconds| http_response::of(Drip::new(seconds))),
        ("sleep", seconds) => sleep(visit, seconds).await,
        ("hang", _) => std::future::pending().await,
        ("status", code) => code.parse().map_or_else(|_| status(StatusCode::BAD_REQUEST), status),
        ("redirect", count) => with_number(count, |count| redirect(&next_redirect(count))),
        ("redirect-to", "") => {
            parameter(&request, "url").map_or_else(|| status(StatusCode::BAD_REQUEST), |to| redirect(&to))
        }
        ("echo", "") => return echo(request),
        ("page", "") => html(),
        ("asset", _) => typed("text/javascript", format!("(window.seen ??= []).push(\"{}\");\n", visit.source.ip())),
        ("ws", "") => upgrade(visit, request),
        ("files", file) => files(visit, request.method(), file).await,
        _ => status(StatusCode::NOT_FOUND),
    };
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::from_str(&nonce).ok()) {
        page.headers_mut().insert(HeaderName::from_static("x-nonce"), nonce);
    }
    page
}

fn shop(visit: &Visit) -> HttpResponse {
    let refused = visit.state.shop.lock().unwrap_or_else(PoisonError::into_inner).get(&visit.source.ip()).copied();
    match refused.map(StatusCode::from_u16) {
        None => text("welcome to the shop\n"),
        Some(Ok(code)) => {
            let mut page = status(code);
            if code == StatusCode::TOO_MANY_REQUESTS {
                page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            page
        }
        Some(Err(_)) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn ip_json(ip: IpAddr, kind: &str, nonce: Option<&str>) -> HttpResponse {
    let mut body = match kind {
        "origin.json" => json!({ "origin": ip }),
        "query.json" => json!({ "query": ip }),
        "tor.json" => json!({ "IsTor": true, "IP": ip }),
        _ => json!({ "ip": ip }),
    };
    if let Some(nonce) = nonce {
        body["nonce"] = nonce.into();
    }
    typed("application/json", body.to_string())
}

fn headers(visit: &Visit, request: &Request<Incoming>) -> HttpResponse {
    let mut all = serde_json::Map::new();
    for name in request.headers().keys() {
        let values: Vec<_> =
            request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        all.insert(name.to_string(), values.join(", ").into());
    }
    typed("application/json", json!({ "ip": visit.source.ip(), "headers": all }).to_string())
}

fn bytes(request: &Request<Incoming>, length: u64) -> HttpResponse {
    let tag = format!("\"{length}\"");
    let if_range = header_text(request, &header::IF_RANGE);
    let wanted = Some(header_text(request, &header::RANGE)).filter(|_| if_range.is_empty() || if_range == tag);
    let mut page = match range(wanted, length) {
        Ok(None) => http_response::of(Pattern(0..length)),
        Ok(Some(part)) => {
            let of = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            with(StatusCode::PARTIAL_CONTENT, http_response::of(Pattern(part)), header::CONTENT_RANGE, &of)
        }
        Err(()) => {
            let of = format!("bytes */{length}");
            with(StatusCode::RANGE_NOT_SATISFIABLE, text(""), header::CONTENT_RANGE, &of)
        }
    };
    let fixed =
        [(header::ACCEPT_RANGES, "bytes"), (header::CONTENT_TYPE, "application/octet-stream"), (header::ETAG, &tag)];
    for (name, value) in fixed {
        if let Ok(value) = HeaderValue::from_str(value) {
            page.headers_mut().insert(name, value);
        }
    }
    page
}

async fn sleep(visit: &Visit, seconds: &str) -> HttpResponse {
    let Some(pause) = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    tokio::time::sleep(pause).await;
    text(&visit.source.ip().to_string())
}

fn next_redirect(count: u64) -> String {
    if count <= 1 { "/ip".into() } else { format!("/redirect/{}", count - 1) }
}

fn redirect(to: &str) -> HttpResponse {
    with(StatusCode::FOUND, text(""), header::LOCATION, to)
}

fn echo(request: Request<Incoming>) -> HttpResponse {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut page = http_response::of(request.into_body());
    if let Some(kind) = kind {
        page.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    page
}

fn html() -> HttpResponse {
    // The id is not `seen`: an element's id is a property of `window` too, and the scripts would find the element instead of the array.
    let scripts: String = (1..=ASSETS).map(|at| format!("<script src=\"/asset/{at}.js\"></script>\n")).collect();
    let show = "<script>document.getElementById('shown').textContent = JSON.stringify(window.seen)</script>";
    let body = format!("<!doctype html><title>a page</title>\n<pre id=shown></pre>\n{scripts}{show}\n");
    typed("text/html; charset=utf-8", body)
}

fn upgrade(visit: &Visit, mut request: Request<Incoming>) -> HttpResponse {
    let key = HeaderName::from_static("sec-websocket-key");
    let accept = websocket::accept_key(header_text(&request, &key));
    if !request.headers().contains_key(&key) {
        return status(StatusCode::UPGRADE_REQUIRED);
    }
    *visit.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
    let page =
        with(StatusCode::SWITCHING_PROTOCOLS, text(""), HeaderName::from_static("sec-websocket-accept"), &accept);
    let page = with(StatusCode::SWITCHING_PROTOCOLS, page, header::UPGRADE, "websocket");
    with(StatusCode::SWITCHING_PROTOCOLS, page, header::CONNECTION, "Upgrade")
}

async fn files(visit: &Visit, method: &Method, file: &str) -> HttpResponse {
    let Some(path) = file_path(visit, file).filter(|_| *method == Method::GET || *method == Method::HEAD) else {
        return status(StatusCode::NOT_FOUND);
    };
    match tokio::fs::read(&path).await {
        Ok(data) => typed("application/octet-stream", data),
        Err(_) => status(StatusCode::NOT_FOUND),
    }
}

fn file_path(visit: &Visit, file: &str) -> Option<PathBuf> {
    let (name, rest) = file.split_once('/')?;
    let folder = visit.state.folders.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
    let plain = Path::new(rest).components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| folder.join(rest))
}

fn with_number(text: &str, page: impl FnOnce(u64) -> HttpResponse) -> HttpResponse {
    text.parse().map_or_else(|_| status(StatusCode::BAD_REQUEST), page)
}

/// A parameter of the query, percent-decoded.
fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(decode(value))
}

/// Decodes percent codes; anything else stays as it is.
fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_codes() {
        for (coded, plain) in [("a%2Fb", "a/b"), ("a+b", "a b"), ("100%", "100%"), ("%zz", "%zz"), ("%C3%A9", "é")] {
            assert_eq!(decode(coded), plain);
        }
    }

    #[test]
    fn redirects_count_down() {
        assert_eq!(
            [next_redirect(3), next_redirect(2), next_redirect(1), next_redirect(0)],
            ["/redirect/2", "/redirect/1", "/ip", "/ip"]
        );
    }
}
