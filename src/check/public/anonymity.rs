//! How much a proxy reveals about its client. Pure.
//!
//! The answer comes from a page that repeats the headers of the request, as JSON (`httpbin.org/headers`) or as one
//! header per line (`azenv.php` and similar pages). Headers that we did not send were added by the proxy. Our own
//! address is not known to this code, because a request for it to a server would reveal it. So if a proxy adds *any*
//! address except the address that it leaves from, we assume that the proxy reveals its client's address.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::exit::Anonymity;

/// Names of headers with which a proxy reveals that the request comes from a proxy, or from which client the request
/// comes. In these names, `_` and `-` are treated as equal.
const TELLTALES: [&str; 18] = [
    "via",
    "forwarded",
    "x-forwarded",
    "x-forwarded-for",
    "forwarded-for",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "x-originating-ip",
    "x-remote-addr",
    "proxy-connection",
    "proxy-authorization",
    "x-proxy-id",
    "x-bluecoat-via",
    "xroxy-connection",
];

/// How many bytes are read of the page that repeats the request headers. Not tuned.
const LONGEST: usize = 64 * 1024;

/// Parses the page. Returns `None` if the page is not the answer to our request. `nonce` is the value of a header that
/// we sent. `leaves` are the addresses from which the proxy leaves.
pub(super) fn read(body: &[u8], nonce: &str, leaves: &[IpAddr]) -> Option<Anonymity> {
    let text = str::from_utf8(body.get(..body.len().min(LONGEST))?).ok()?;
    if !text.contains(nonce) {
        return None;
    }
    let headers = headers(text);
    let added: Vec<_> = headers.iter().filter(|(name, _)| TELLTALES.contains(&name.as_str())).collect();
    let reveals = |value: &str| addresses(value).into_iter().any(|ip| !leaves.contains(&ip));
    Some(match added.as_slice() {
        [] => Anonymity::Elite,
        added if added.iter().any(|(_, value)| reveals(value)) => Anonymity::Transparent,
        _ => Anonymity::Anonymous,
    })
}

/// Returns the headers on the page: the names in lower case with `-`, and the values.
fn headers(text: &str) -> Vec<(String, String)> {
    let folded = |name: &str| {
        let name = name.trim().to_ascii_lowercase().replace('_', "-");
        name.strip_prefix("http-").map_or(name.clone(), str::to_owned)
    };
    if let Ok(Value::Object(page)) = serde_json::from_str::<Value>(text) {
        let listed = page.get("headers").and_then(Value::as_object).unwrap_or(&page);
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return listed.iter().map(|(name, value)| (folded(name), shown(value))).collect();
    }
    let split =
        |line: &str| line.split_once(" = ").or_else(|| line.split_once(": ")).map(|(n, v)| (folded(n), v.to_owned()));
    text.lines().filter_map(split).collect()
}

/// Returns every address in the value of a header such as `for="[2001:db8::1]:4711";proto=http, 192.0.2.1`.
fn addresses(value: &str) -> Vec<IpAddr> {
    let pieces = value.split([',', ';', ' ', '"', '=', '(', ')']);
    let read = |piece: &str| {
        let bare = piece.trim_matches(['[', ']']);
        let address = bare.parse::<IpAddr>().ok().or_else(|| piece.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
        address.map(|ip| ip.to_canonical())
    };
    pieces.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn added_headers_show_how_anonymous_a_proxy_is() {
        use Anonymity::*;
        let leaves = ["192.0.2.9".parse().unwrap()];
        for (added, want) in [
            ("", Elite),
            (r#","X-Amzn-Trace-Id": "Root=1-192.0.2.1""#, Elite),
            (r#","Via": "1.1 proxy""#, Anonymous),
            (r#","Via": "1.1 proxy", "X-Forwarded-For": "unknown""#, Anonymous),
            (r#","X-Forwarded-For": "192.0.2.9""#, Anonymous),
            (r#","X-Forwarded-For": "198.51.100.7, 192.0.2.9""#, Transparent),
            (r#","X-Real-Ip": "10.0.0.7""#, Transparent),
            (r#","Forwarded": "for=\"[2001:db8::7]:4711\";proto=http""#, Transparent),
            (r#","Forwarded": "for=_hidden""#, Anonymous),
            (r#","x-forwarded-for": ["198.51.100.7"]"#, Transparent),
        ] {
            let json = format!(r#"{{"headers": {{"Host": "x", "X-Check": "n0nce"{added}}}}}"#);
            assert_eq!(read(json.as_bytes(), "n0nce", &leaves), Some(want), "{added}");
        }
        let lines = "REMOTE_ADDR = 192.0.2.9\nHTTP_X_CHECK = n0nce\nHTTP_X_FORWARDED_FOR = 198.51.100.7\n";
        assert_eq!(read(lines.as_bytes(), "n0nce", &leaves), Some(Transparent));
        assert_eq!(read(b"HTTP_X_CHECK = n0nce\nREMOTE_ADDR = 198.51.100.7", "n0nce", &leaves), Some(Elite));
        assert_eq!(read(br#"{"headers": {"Host": "x"}}"#, "n0nce", &leaves), None, "the answer to another request");
    }

    proptest! {
        #[test]
        fn no_page_panics(body in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,100}") {
            let _ = read(&body, "", &[]);
            let _ = read(format!(r#"{{"headers":{{"via":"{text}"}}}}"#).as_bytes(), "", &[]);
            let _ = addresses(&text);
        }
    }
}
