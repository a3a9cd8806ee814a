//! What a web page, or anybody without a token, gets of the API and the console: nothing.

use serde_json::Value;

use super::{Victim, status, talk};

const TOKEN: &str = "a-token-of-sixteen";

async fn ask(victim: &Victim, line: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.1\r\n{fields}{length}Connection: close\r\n\r\n{body}");
    let answer = talk(victim.api(), request.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(!text.contains("access-control-allow"), "{line}: another site is let in: {text}");
    answer
}

async fn victim() -> Victim {
    Victim::start(&format!("api.token = \"{TOKEN}\"\napi.read_token = \"a-reader-of-sixteen\"")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_every_url_is_shut_but_those_that_show_nothing() {
    let victim = victim().await;
    let answer = victim.gateway.api("/openapi.json").await;
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    let open = ["/health", "/ready", "/", "/docs", "/docs/docs.css", "/docs/docs.js", "/openapi.json"];
    let mut tried = 0;
    for (path, methods) in page["paths"].as_object().unwrap() {
        let path = path.replace("{route}", "out").replace("{id}", "1").replace("{name}", "onionoo");
        for method in methods.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()) {
            if open.contains(&&*path) {
                continue;
            }
            for login in [
                "",
                "Authorization: Bearer\r\n",
                "Authorization: Bearer \r\n",
                "Authorization: Bearer a-token-of-sixteeN\r\n",
                "Authorization: Bearer a-token-of-sixtee\r\n",
                "Authorization: Basic YS10b2tlbi1vZi1zaXh0ZWVu\r\n",
                "Cookie: token=a-token-of-sixteen\r\n",
                "X-Api-Key: a-token-of-sixteen\r\n",
            ] {
                let fields = format!("Host: localhost\r\nContent-Type: application/json\r\n{login}");
                let answer = ask(&victim, &format!("{method} {path}?token={TOKEN}"), &fields, "{}").await;
                assert_eq!(status(&answer), 401, "{method} {path} {login}: {}", answer.escape_ascii());
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "only {tried} requests tried");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_gets_nothing_and_changes_nothing() {
    // Without a token: the page's user runs it on loopback, and the page is in that user's browser.
    let victim = Victim::start("").await;
    let routes = async || victim.gateway.api("/proxies").await.body;
    let before = routes().await;
    let host = format!("Host: {}\r\n", victim.api());
    let create = r#"{"selector": "any-source-direct", "name": "evil"}"#;
    for (line, fields, body, wanted) in [
        // A form, a beacon, a fetch without a preflight.
        ("POST /proxies", "Content-Type: text/plain\r\n", create, 415),
        ("POST /proxies", "Content-Type: application/x-www-form-urlencoded\r\n", create, 415),
        ("POST /proxies", "Content-Type: multipart/form-data; boundary=x\r\n", create, 415),
        ("POST /proxies", "", create, 415),
        ("POST /reload", "Content-Type: text/plain; application/json\r\n", "{}", 415),
        ("POST /proxies", "Origin: http://evil.test\r\nContent-Type: application/json\r\n", create, 403),
        ("POST /proxies", "Origin: null\r\nContent-Type: application/json\r\n", create, 403),
        ("POST /proxies", "Origin: https://localhost\r\nContent-Type: application/json\r\n", create, 403),
        ("DELETE /proxies/out", "Origin: http://evil.test\r\n", "", 403),
        // Its preflight.
        ("OPTIONS /proxies", "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\n", "", 403),
        // What it embeds.
        ("GET /proxies", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", "", 403),
        ("GET /list", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", "", 403),
        ("GET /events", "Origin: http://evil.test\r\n", "", 403),
    ] {
        let answer = ask(&victim, line, &format!("{host}{fields}"), body).await;
        assert_eq!(status(&answer), wanted, "{line} {fields}: {}", answer.escape_ascii());
    }
    assert_eq!(routes().await, before, "a page changed something");
    // No page may be drawn around the console.
    let console = victim.gateway.api("/").await;
    let policy = &console.headers["content-security-policy"];
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_turned_to_us_is_none_of_ours() {
    let victim = Victim::start("api.hosts = [\"gate.test\"]").await;
    let own = victim.api();
    for host in ["evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.1.evil.test", "xgate.test", "10.0.0.1"]
    {
        for path in ["/", "/proxies", "/health", "/console/x/app.js"] {
            let answer = ask(&victim, &format!("GET {path}"), &format!("Host: {host}\r\n"), "").await;
            assert_eq!(status(&answer), 421, "{host}{path}: {}", answer.escape_ascii());
        }
    }
    for (line, fields, wanted) in [
        ("GET http://evil.test/proxies".to_owned(), format!("Host: {own}\r\n"), 421),
        (format!("GET http://{own}/proxies"), "Host: evil.test\r\n".to_owned(), 421),
        ("GET /proxies".to_owned(), format!("Host: {own}\r\nHost: evil.test\r\n"), 400),
        ("GET /proxies".to_owned(), String::new(), 400),
        ("GET /proxies".to_owned(), "Host: gate.test\r\n".to_owned(), 200),
        (format!("GET http://{own}/proxies"), format!("Host: {own}\r\n"), 200),
    ] {
        let answer = ask(&victim, &line, &fields, "").await;
        assert_eq!(status(&answer), wanted, "{line} {fields}: {}", answer.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_console() {
    let victim = victim().await;
    for path in [
        "/console/../../../../../etc/passwd",
        "/console/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/console/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/console/%252e%252e/%252e%252e/etc/passwd",
        "/console/..%5c..%5cetc%5cpasswd",
        "/console/..\\..\\etc\\passwd",
        "/console//etc/passwd",
        "/console/x//etc/passwd",
        "/console/x/..%00/app.js",
        "/console/x/app.js%00.html",
        "/console/x/....//....//etc/passwd",
        "/console/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        "/console/x/file:///etc/passwd",
        "/docs/../../etc/passwd",
        "//etc/passwd",
    ] {
        let answer = ask(&victim, &format!("GET {path}"), "Host: localhost\r\n", "").await;
        let shown = String::from_utf8_lossy(&answer);
        assert!(matches!(status(&answer), 400 | 401 | 404), "{path}: {shown}");
        assert!(!shown.contains("root:"), "{path}: {shown}");
    }
    victim.is_unharmed().await;
}
