//! The API of a gateway without Tor: what it answers to requests that are wrong, word for word.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One gateway, on an address of its own: tests run side by side.
struct Gateway {
    child: Child,
    ip: &'static str,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TOKENS: &str = "api.token = \"full\"\napi.read_token = \"read\"\n";

/// A configuration without Tor; `top` and `gateway` are lines for the top and for `[gateway]`.
fn config(folder: &Path, ip: &str, top: &str, gateway: &str) -> String {
    format!(
        "data_dir = {:?}\ntor.enabled = false\napi.listen = \"{ip}:18080\"\n{top}\
         [gateway]\nlisten = \"{ip}:11080\"\nroute_bind = \"{ip}\"\nroute_ports = \"20000-20004\"\n\
         allow_direct = true\n{gateway}[[routes]]\nname = \"fixed\"\nselector = \"any-source-direct\"\nport = 20000\n",
        folder.join("data")
    )
}

fn start(folder: &Path, ip: &'static str) -> Gateway {
    start_with(folder, ip, &config(folder, ip, TOKENS, ""))
}

fn start_with(folder: &Path, ip: &'static str, config: &str) -> Gateway {
    std::fs::write(folder.join("exitgate.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exitgate"));
    command.args(["serve", "--config"]).arg(folder.join("exitgate.toml"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let gateway = Gateway { child, ip };
    let deadline = Instant::now() + Duration::from_secs(30);
    while gateway.send("GET /ready HTTP/1.1\r\nHost: localhost\r\n", "").0 != 200 {
        assert!(Instant::now() < deadline, "the gateway does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}

impl Gateway {
    /// The status and body of the answer to a head that lacks only its end.
    fn send(&self, head: &str, body: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect((self.ip, 18080)) else { return (0, String::new()) };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        // An id of its own would be another one in each run.
        write!(stream, "{head}X-Request-Id: t\r\nConnection: close\r\n{length}\r\n{body}").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), body.to_owned())
    }
}

/// One request a line: method, path and body; all of them as the operator, with JSON.
const REQUESTS: &str = r#"
POST /proxies
POST /proxies []
POST /proxies {
POST /proxies "us"
POST /proxies {"selector": "us", "geo_category": "US"}
POST /proxies {"geo_category": "us"}
POST /proxies {"geo_category": 1}
POST /proxies {"selector": 7}
POST /proxies {"selector": ""}
POST /proxies {"selector": "us-strcit"}
POST /proxies {"selector": "us-us"}
POST /proxies {"selector": "us-strict-rotate"}
POST /proxies {"selector": "us-ttl-10m"}
POST /proxies {"selector": "us-session-"}
POST /proxies {"selector": "usa"}
POST /proxies {"selector": "us", "colour": "red"}
POST /proxies {"selector": "us-strict", "mode": "flexible"}
POST /proxies {"selector": "us", "mode": "fast"}
POST /proxies {"selector": "us", "port": 80}
POST /proxies {"selector": "us", "port": 70000}
POST /proxies {"selector": "us", "port": -1}
POST /proxies {"selector": "us", "port": "20001"}
POST /proxies {"selector": "any-source-direct", "port": 20000}
POST /proxies {"selector": "us", "pool": 0}
POST /proxies {"selector": "us", "pool": 1001}
POST /proxies {"selector": "us", "pool": 1.5}
POST /proxies {"selector": "us", "check": "nothing"}
POST /proxies {"selector": "us", "name": "Upper"}
POST /proxies {"selector": "us", "name": ""}
POST /proxies {"selector": "us", "name": "de-strict"}
POST /proxies {"selector": "us", "name": "session-a"}
POST /proxies {"selector": "any-source-direct", "name": "fixed"}
POST /proxies {"selector": "us", "ttl": "0s"}
POST /proxies {"selector": "us", "ttl": "10 minutes"}
POST /proxies {"selector": "us", "ttl": 1e99}
POST /proxies {"selector": "us", "rotate_every": true}
POST /proxies {"selector": "us", "repin_after": "always"}
POST /proxies {"selector": "us", "hops": 1}
POST /proxies {"selector": "us", "engine": "mine"}
POST /proxies {"selector": "us", "allow": ["10.0.0.0/99"]}
POST /proxies {"selector": "us", "allow": "10.0.0.0/8"}
POST /proxies {"selector": "us", "count": 0}
POST /proxies {"selector": "us", "count": 2, "port": 20001}
POST /proxies {"selector": "any-source-direct", "count": 9}
POST /proxies {"selector": "us"}
POST /proxies?format=yaml {"selector": "us"}
PATCH /proxies/fixed {"pool": 3}
PATCH /proxies/nobody {"pool": 3}
DELETE /proxies/fixed
DELETE /proxies/nobody
DELETE /proxies/nobody?force=maybe
GET /proxies/29999
GET /proxies/%ff
GET /proxies?limit=0
GET /proxies?limit=1001
GET /proxies?limt=5
GET /proxies?origin=me
POST /proxies/fixed/rotate {"session": "a"}
POST /proxies/us-strcit/rotate
POST /proxies/us/rotate
POST /proxies/fixed/rotate
POST /proxies/fixed/report {}
POST /proxies/fixed/report {"site": 7}
POST /proxies/fixed/report {"site": "a b"}
POST /proxies/fixed/report {"site": "shop.example"}
POST /proxies/fixed/report {"site": "shop.example", "exit": "nobody"}
POST /proxies/fixed/report {"site": "shop.example", "exit": "direct", "outcome": "ok"}
GET /proxies/fixed/last
GET /proxies/fixed/last?session=a%20b
GET /exits?country=usa
GET /exits?source=onion
GET /exits?usable=maybe
GET /exits?after=x
GET /exits/nobody
POST /exits/nobody/check
POST /exits/direct/check
POST /sources/nobody/refresh
GET /explain
GET /explain?username=us-strcit
GET /explain?username=us&port=0
GET /explain?username=us&host=a%20b
GET /connections?after=x
DELETE /connections/1
DELETE /connections/x
GET /proxy.pac?route=nobody
GET /nowhere
PUT /proxies
DELETE /exits
"#;

#[test]
fn what_is_wrong_is_answered_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(folder.path(), "127.72.0.1");
    let mut said = String::new();
    let lines: Vec<_> = REQUESTS.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 60);
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (method, path, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer full\r\nContent-Type: application/json\r\n"
        );
        let (status, answer) = gateway.send(&head, body);
        assert!((400..500).contains(&status) || status == 503, "{line}: {status} {answer}");
        let _ = writeln!(said, "{line}\n  {status} {answer}\n");
    }
    insta::assert_snapshot!("wrong_requests", said);
}

#[test]
fn who_may_not_is_told_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(folder.path(), "127.72.0.2");
    let mut said = String::new();
    let json = "Content-Type: application/json\r\n";
    for (line, fields) in [
        ("GET /proxies", "Host: localhost\r\n".to_owned()),
        ("GET /proxies", "Host: localhost\r\nAuthorization: Bearer wrong\r\n".to_owned()),
        ("GET /proxies", "Host: localhost\r\nAuthorization: Basic ZnVsbA==\r\n".to_owned()),
        ("GET /proxies", "Host: localhost\r\nAuthorization: Bearer read\r\n".to_owned()),
        ("GET /proxies", "Host: evil.example\r\nAuthorization: Bearer full\r\n".to_owned()),
        ("GET /proxies", "Host: localhost\r\nHost: localhost\r\nAuthorization: Bearer full\r\n".to_owned()),
        ("GET /proxies", "Host: localhost\r\nOrigin: https://evil.example\r\n".to_owned()),
        ("POST /proxies", "Host: localhost\r\nAuthorization: Bearer full\r\n".to_owned()),
        ("POST /proxies", format!("Host: localhost\r\nOrigin: null\r\n{json}")),
        ("PATCH /proxies/fixed", "Host: localhost\r\nContent-Type: text/plain\r\n".to_owned()),
    ] {
        let (status, answer) = gateway.send(&format!("{line} HTTP/1.1\r\n{fields}"), "");
        let _ = writeln!(said, "{line}\n{fields}  {status} {answer}\n");
    }
    insta::assert_snapshot!("strangers", said.replace('\r', ""));
    let all: serde_json::Value =
        serde_json::from_str(&gateway.send("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n", "").1).unwrap();
    let writes = all["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|method| !["get", "delete"].contains(&method.as_str()));
        methods.map(move |method| (method.to_ascii_uppercase(), path.replace(['{', '}'], "")))
    });
    let writes: Vec<_> = writes.collect();
    assert!(writes.len() >= 7, "{writes:?}");
    for (method, path) in writes {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer full\r\n");
        assert_eq!(gateway.send(&head, "").0, 415, "{method} {path}: a page could send this");
    }
    for open in ["/health", "/ready", "/docs", "/docs/docs.js", "/docs/docs.css", "/docs/icon.svg", "/openapi.json"] {
        assert_eq!(gateway.send(&format!("GET {open} HTTP/1.1\r\nHost: localhost\r\n"), "").0, 200, "{open}");
    }
}

/// A reload cannot move the API's port, so it must not demand what the new port would need: the caller would be locked out.
#[test]
fn an_api_that_waits_for_a_restart_to_leave_loopback_needs_no_token_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, ip) = (folder.path(), "127.72.0.3");
    let text = config(folder, ip, "", "");
    let gateway = start_with(folder, ip, &text);
    let wider = text.replace(&format!("{ip}:18080"), "0.0.0.0:18083");
    std::fs::write(folder.join("exitgate.toml"), wider).unwrap();
    let write = "Host: localhost\r\nContent-Type: application/json\r\n";
    let (status, answer) = gateway.send(&format!("POST /reload HTTP/1.1\r\n{write}"), "");
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["needs_restart"], serde_json::json!(["api.listen"]));
    let (status, answer) = gateway.send("GET /proxies HTTP/1.1\r\nHost: localhost\r\n", "");
    assert_eq!(status, 200, "{answer}");
}

/// What a person does with `urls.http`: puts the key where it says so, and nothing else.
#[test]
fn the_url_of_a_keyed_route_works_once_the_key_is_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, ip) = (folder.path(), "127.72.0.4");
    let key = "a-key-for-this-test-alone";
    let keys = format!("allow_private_targets = true\n[[gateway.keys]]\nname = \"team\"\nkey = \"{key}\"\n");
    let gateway = start_with(folder, ip, &config(folder, ip, TOKENS, &keys));
    let site = std::net::TcpListener::bind((ip, 0)).unwrap();
    let page = site.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in site.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nseen");
        }
    });
    let write = "Host: localhost\r\nAuthorization: Bearer full\r\nContent-Type: application/json\r\n";
    let body = r#"{"selector": "any-source-direct", "name": "shop", "auth": "key"}"#;
    let (status, answer) = gateway.send(&format!("POST /proxies HTTP/1.1\r\n{write}"), body);
    assert_eq!(status, 201, "{answer}");
    let made: serde_json::Value = serde_json::from_str(&answer).unwrap();
    for url in [&made["urls"]["http"], &made["urls"]["socks5"]] {
        let url = url.as_str().unwrap().replace("YOUR_KEY", key);
        let curl =
            Command::new("curl").args(["-sS", "--max-time", "20", "-x", &url, &format!("http://{page}/")]).output();
        let curl = curl.unwrap();
        let said = (String::from_utf8_lossy(&curl.stdout), String::from_utf8_lossy(&curl.stderr));
        assert_eq!(said.0, "seen", "{url}: {}", said.1);
    }
}
