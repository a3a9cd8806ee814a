//! The web page for a browser that opens the proxy port as a web site. The page explains what this port is and how to
//! use it.
//!
//! The page repeats no part of the request, not even `Host`: it shows the address that the listener is bound to.

use super::answer::Page;
use super::request::Request;
use crate::gateway::listener::ListenerConfig;

/// Answers a request in origin form (only a path), which is not meant for a proxy. The path `/` gets the page. Any
/// other path gets a 404 whose text says that this port is not a web server.
pub fn page(listener: &ListenerConfig, method: &str, path: &str, keep: bool) -> Vec<u8> {
    let head_only = method == "HEAD";
    if !matches!(method, "GET" | "HEAD") {
        return Page { status: 405, kind: "text/plain", fields: "Allow: GET, HEAD\r\n", body: WRONG }
            .write(keep, head_only);
    }
    if path.split('?').next() != Some("/") {
        return Page { status: 404, kind: "text/plain", fields: "", body: WRONG }.write(keep, head_only);
    }
    let body = html(listener);
    let fields = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n";
    Page { status: 200, kind: "text/html; charset=utf-8", fields, body: &body }.write(keep, head_only)
}

/// Answers a TRACE or an OPTIONS with `Max-Forwards: 0`. The gateway is the last recipient of such a request (RFC 9110,
/// section 7.6.2). The answer to a TRACE contains the request. The answer to an OPTIONS lists the methods that a proxy
/// forwards.
pub fn last_hop(request: &Request<'_>, authority: &str, path: &str, keep: bool) -> Vec<u8> {
    if request.method == "TRACE" {
        let body = request.trace(&["http://", authority, path].concat());
        return Page { status: 200, kind: "message/http", fields: "", body: &body }.write(keep, false);
    }
    let fields = "Allow: CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE\r\n";
    Page { status: 200, kind: "text/plain", fields, body: "" }.write(keep, false)
}

const WRONG: &str = "This port is a proxy (exitgate), not a web server: set it as the proxy of your client.\n";

const HTML: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><title>exitgate</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}pre{background:#8881;padding:1rem;overflow:auto}</style>
<h1>exitgate</h1>
<p>This port is a proxy, not a web site: set it as the proxy of your client. It takes SOCKS5, SOCKS4, SOCKS4a and HTTP{tls}.</p>
<pre>{examples}</pre>
<p>{user}</p>
<p>{key}</p>
<p>To see which exit serves you, open <code>http://exit.gate/</code> through this port. Every answer to a CONNECT has it in <code>X-Exitgate-Exit-Ip</code>.</p>
</html>
"#;

fn html(listener: &ListenerConfig) -> String {
    let at = if listener.addr.ip().is_unspecified() {
        format!("THIS-HOST:{}", listener.addr.port())
    } else {
        listener.addr.to_string()
    };
    let user = if listener.route.is_some() { "" } else { "us:KEY@" };
    let examples = format!(
        "curl -x socks5h://{user}{at} https://example.com/\ncurl -x http://{user}{at} https://example.com/\n\
         chromium --proxy-server=socks5://{at}"
    );
    HTML.replace("{tls}", if listener.tls.is_some() { ", all of them also inside TLS" } else { "" })
        .replace("{examples}", &examples)
        .replace("{user}", &username(listener))
        .replace("{key}", if listener.demands_key { "The password is your key." } else { "No key is needed here." })
}

fn username(listener: &ListenerConfig) -> String {
    match &listener.route {
        // The name of a route matches `[a-z][a-z0-9-]*`, so it needs no escaping in HTML.
        Some(route) => format!("All traffic leaves by the route <code>{route}</code>."),
        None => "The username selects the exit: <code>us</code>, <code>nonus</code>, <code>us-strict</code>, \
                 <code>any-session-a1</code>."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;

    #[test]
    fn a_browser_gets_a_page_that_explains_the_port() {
        let listener = testing::listener();
        let said = String::from_utf8(page(&listener, "GET", "/?x", true)).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"), "{said}");
        assert!(
            said.contains("socks5h://us:KEY@127.0.0.1:1080 ")
                && !said.contains('{'.to_string().as_str().repeat(2).as_str())
        );
        assert!(said.contains("No key is needed") && !said.contains("TLS"));
        let route = ListenerConfig { route: Some("us-strict".into()), demands_key: true, ..listener };
        let said = String::from_utf8(page(&route, "GET", "/", false)).unwrap();
        assert!(said.contains("<code>us-strict</code>.") && said.contains("socks5h://127.0.0.1:1080 "));
        assert!(said.contains("your key"));
        for placeholder in ["{tls}", "{examples}", "{user}", "{key}"] {
            assert!(!said.contains(placeholder), "{placeholder}");
        }
    }

    #[test]
    fn a_trace_at_its_last_hop_is_answered_here() {
        for (method, want) in [("TRACE", "message/http"), ("OPTIONS", "Allow: CONNECT,")] {
            let head = format!("{method} http://a.test/x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n");
            let request = Request::parse(head.as_bytes()).unwrap();
            let said = String::from_utf8(last_hop(&request, "a.test", "/x", true)).unwrap();
            assert!(said.starts_with("HTTP/1.1 200 ") && said.contains(want), "{said}");
            assert_eq!(said.ends_with(&head), method == "TRACE", "{said}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let listener = testing::listener();
        for (method, path, status) in [("GET", "/proxies", "404"), ("POST", "/", "405"), ("HEAD", "/", "200")] {
            let said = String::from_utf8(page(&listener, method, path, true)).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {said}");
            assert_eq!(said.ends_with("\r\n\r\n"), method == "HEAD");
        }
    }
}
