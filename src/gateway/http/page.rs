//! What somebody gets who opens the port in a browser: what this is, and how to use it.
//!
//! Nothing of the request is repeated in it, not even `Host`: the address that it shows is the one that is bound.

use super::answer::Page;
use super::request::Request;
use crate::gateway::gate::ListenerConfig;

/// The answer to a request in origin-form, which is not for a proxy. The page itself lives at `/`; anything else is
/// somebody who took this port for a web server, and is told so with a 404.
pub fn page(listener: &ListenerConfig, method: &str, path: &str, keep: bool) -> Vec<u8> {
    let bare = method == "HEAD";
    if !matches!(method, "GET" | "HEAD") {
        return Page { status: 405, kind: "text/plain", fields: "Allow: GET, HEAD\r\n", body: WRONG }.write(keep, bare);
    }
    if path.split('?').next() != Some("/") {
        return Page { status: 404, kind: "text/plain", fields: "", body: WRONG }.write(keep, bare);
    }
    let body = html(listener);
    let fields = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n";
    Page { status: 200, kind: "text/html; charset=utf-8", fields, body: &body }.write(keep, bare)
}

/// The answer to a TRACE or OPTIONS that may not be handed on: we are its last recipient then (RFC 9110, section 7.6.2).
/// A TRACE gets back what came, anything else what may be asked of a forwarder.
pub fn last_hop(request: &Request<'_>, authority: &str, path: &str, keep: bool) -> Vec<u8> {
    if request.method == "TRACE" {
        let body = request.trace(&["http://", authority, path].concat());
        return Page { status: 200, kind: "message/http", fields: "", body: &body }.write(keep, false);
    }
    let fields = "Allow: CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE\r\n";
    Page { status: 200, kind: "text/plain", fields, body: "" }.write(keep, false)
}

const WRONG: &str = "This is a port of exitgate, a forwarding gateway, and no web server: use it as a proxy.\n";

const HTML: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><title>exitgate</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}pre{background:#8881;padding:1rem;overflow:auto}</style>
<h1>exitgate</h1>
<p>This port is a way out, not a web site: point a client at it as its proxy. It speaks SOCKS5, SOCKS4 and 4a and HTTP{tls}.</p>
<pre>{examples}</pre>
<p>{user}</p>
<p>{key}</p>
<p>Which exit serves you now: <code>http://exit.gate/</code>, asked through this port. Every CONNECT answer says it too, in its <code>X-Exitgate-Exit-Ip</code> field.</p>
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
        .replace("{key}", if listener.demands_key { "The password is your key." } else { "No key is asked for here." })
}

fn username(listener: &ListenerConfig) -> String {
    match &listener.route {
        // A route's name is `[a-z][a-z0-9-]*`: nothing in it means anything to HTML.
        Some(route) => format!("Everything leaves by the route <code>{route}</code>."),
        None => "The user name says which way out: <code>us</code>, <code>nonus</code>, <code>us-strict</code>, \
                 <code>any-session-a1</code>."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;

    #[test]
    fn a_browser_is_told_what_this_is() {
        let listener = testing::listener();
        let said = String::from_utf8(page(&listener, "GET", "/?x", true)).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"), "{said}");
        assert!(
            said.contains("socks5h://us:KEY@127.0.0.1:1080 ")
                && !said.contains('{'.to_string().as_str().repeat(2).as_str())
        );
        assert!(said.contains("No key is asked for") && !said.contains("TLS"));
        let route = ListenerConfig { route: Some("us-strict".into()), demands_key: true, ..listener };
        let said = String::from_utf8(page(&route, "GET", "/", false)).unwrap();
        assert!(said.contains("<code>us-strict</code>.") && said.contains("socks5h://127.0.0.1:1080 "));
        assert!(said.contains("your key"));
        for placeholder in ["{tls}", "{examples}", "{user}", "{key}"] {
            assert!(!said.contains(placeholder), "{placeholder}");
        }
    }

    #[test]
    fn who_may_not_go_on_is_answered_here() {
        for (method, want) in [("TRACE", "message/http"), ("OPTIONS", "Allow: CONNECT,")] {
            let head = format!("{method} http://a.test/x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n");
            let request = Request::parse(head.as_bytes()).unwrap();
            let said = String::from_utf8(last_hop(&request, "a.test", "/x", true)).unwrap();
            assert!(said.starts_with("HTTP/1.1 200 ") && said.contains(want), "{said}");
            assert_eq!(said.ends_with(&head), method == "TRACE", "{said}");
        }
    }

    #[test]
    fn anything_else_is_no_page() {
        let listener = testing::listener();
        for (method, path, status) in [("GET", "/proxies", "404"), ("POST", "/", "405"), ("HEAD", "/", "200")] {
            let said = String::from_utf8(page(&listener, method, path, true)).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {said}");
            assert_eq!(said.ends_with("\r\n\r\n"), method == "HEAD");
        }
    }
}
