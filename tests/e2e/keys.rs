//! Keys of the API and budgets under the shipped binary: what clients are told, what survives a restart, and what is
//! counted when the process is killed.
//!
//! No Tor here: the exit is this machine.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exitgate_testnet::Sandbox;
use serde_json::{Value, json};

use crate::gateway::PATIENCE;
use crate::store::{Bare, kills};

/// A username that goes straight to its target.
const STRAIGHT: &str = "any-source-direct";

/// A key of the configuration, so that the gateway always needs one.
const CONFIG_KEY: &str = "[[gateway.keys]]\nname = \"of-config\"\nkey = \"the-key-of-the-configuration\"\n\
                          budget = { requests_per_day = 1000 }\n";

fn create(gateway: &Bare, body: &Value) -> String {
    let said = gateway.ask("POST", "/keys", &body.to_string());
    assert_eq!(said.status, 201, "{}", said.body);
    said.json()["secret"].as_str().unwrap().to_owned()
}

fn used(gateway: &Bare, key: &str) -> Value {
    gateway.ask("GET", &format!("/keys/{key}"), "").json()["usage"].clone()
}

fn connect(gateway: &Bare) -> TcpStream {
    let stream = TcpStream::connect((gateway.ip, 1080)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends one HTTP request through the gateway, and returns the head of the answer.
fn request(gateway: &Bare, line: &str, user: &str, key: &str) -> (TcpStream, String) {
    let mut stream = connect(gateway);
    let login = STANDARD.encode(format!("{user}:{key}"));
    write!(stream, "{line} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The status of a request for exit.gate with this username and key.
fn enter(gateway: &Bare, user: &str, key: &str) -> u16 {
    status(&request(gateway, "GET http://exit.gate/", user, key).1)
}

/// What a SOCKS5 client with this key hears first.
fn greet(gateway: &Bare, key: &str) -> [u8; 4] {
    let mut stream = connect(gateway);
    let mut bytes = vec![5, 1, 2, 1, STRAIGHT.len() as u8];
    bytes.extend(STRAIGHT.bytes());
    bytes.push(key.len() as u8);
    bytes.extend(key.bytes());
    stream.write_all(&bytes).unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).unwrap();
    heard
}

/// A server that sends `piece` bytes every 10 ms, `pieces` times, to whoever connects.
fn server(ip: Ipv4Addr, piece: usize, pieces: usize) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                for _ in 0..pieces {
                    if stream.write_all(&vec![7; piece]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _ = stream.read(&mut [0]); // until the gateway closes
            });
        }
    });
    addr
}

/// Reads until the end or an error, and returns the number of bytes.
fn drain(stream: &mut TcpStream) -> u64 {
    let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        got += n as u64;
    }
    got
}

#[test]
fn a_key_of_the_api_is_shown_once_and_is_valid_until_it_is_deleted() {
    let sandbox = Sandbox::claim().unwrap();
    let route = "[[routes]]\nname = \"out\"\nselector = \"any-source-direct\"\n";
    let more = format!("{CONFIG_KEY}{route}");
    let mut gateway = Bare::start_with(&sandbox, &more);
    let secret = create(&gateway, &json!({ "name": "team", "ttl": "1h" }));
    let again = gateway.ask("POST", "/keys", "{\"ttl\":\"1h\",\"name\":\"team\"}");
    assert_eq!((again.status, &again.json()["secret"]), (200, &Value::Null), "{}", again.body);
    let taken = gateway.ask("POST", "/keys", "{\"name\":\"of-config\"}");
    assert_eq!((taken.status, taken.json()["error"]["code"].as_str()), (409, Some("name_taken")), "{}", taken.body);
    let list = gateway.ask("GET", "/keys", "");
    assert!(!list.body.contains(&secret), "{}", list.body);
    let list = list.json();
    let origins: Vec<_> = list["keys"].as_array().unwrap().iter().map(|key| (&key["name"], &key["origin"])).collect();
    assert_eq!(origins, [(&json!("of-config"), &json!("config")), (&json!("team"), &json!("api"))]);
    assert_eq!(list["keys"][0]["usage"]["budget"], json!({ "requests_per_day": 1000 }));
    assert_eq!(gateway.ask("DELETE", "/keys/of-config", "").status, 409, "the configuration's");
    assert_eq!((enter(&gateway, STRAIGHT, &secret), enter(&gateway, STRAIGHT, "guess")), (200, 407));

    let routes = create(&gateway, &json!({ "name": "routed", "routes": ["out"] }));
    assert_eq!((enter(&gateway, "out", &routes), enter(&gateway, STRAIGHT, &routes)), (200, 403));
    let sources = create(&gateway, &json!({ "name": "sourced", "sources": ["tor"] }));
    let (_, refused) = request(&gateway, "GET http://exit.gate/", STRAIGHT, &sources);
    assert!(status(&refused) == 403 && refused.contains("may not use the source `direct`"), "{refused}");

    let folder = sandbox.folder().join("data");
    let mode = std::fs::metadata(folder.join("api_keys.secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    gateway.kill();
    for file in ["exitgate.db", "exitgate.db-wal"] {
        let bytes = std::fs::read(folder.join(file)).unwrap_or_default();
        let stored = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!stored, "the secret is in {file}");
    }
    let gateway = Bare::start_with(&sandbox, &more);
    assert_eq!((enter(&gateway, STRAIGHT, &secret), greet(&gateway, &secret)), (200, [5, 2, 1, 0]), "after a restart");

    let target = server(sandbox.ip(60, 1), 100, usize::MAX);
    let (mut open, head) = request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret);
    assert_eq!(status(&head), 200, "{head}");
    assert_eq!(gateway.ask("DELETE", "/keys/team", "").status, 200);
    assert_eq!((enter(&gateway, STRAIGHT, &secret), greet(&gateway, &secret)), (407, [5, 2, 1, 1]));
    open.read_exact(&mut [0; 2000]).expect("the open tunnel continues");
    let secret = create(&gateway, &json!({ "name": "team" }));
    let (mut cut, head) = request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret);
    assert_eq!(status(&head), 200, "{head}");
    assert_eq!(gateway.ask("DELETE", "/keys/team?cut=true", "").status, 200);
    drain(&mut cut); // ends, because the tunnel was cut
    assert!(!gateway.log().contains(&secret));
}

#[test]
fn the_first_key_of_the_api_closes_an_open_gateway() {
    let sandbox = Sandbox::claim().unwrap();
    let gateway = Bare::start_with(&sandbox, "");
    // This gateway is not on 127.0.0.1 alone, but on loopback, so it needs no key.
    assert_eq!(enter(&gateway, STRAIGHT, ""), 200);
    let secret = create(&gateway, &json!({ "name": "first" }));
    assert_eq!((enter(&gateway, STRAIGHT, ""), enter(&gateway, STRAIGHT, &secret)), (407, 200));
    let refused = gateway.ask("DELETE", "/keys/first", "");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (409, Some("last_key")));
    assert_eq!(gateway.ask("DELETE", "/keys/first?open=true", "").status, 200);
    assert_eq!(enter(&gateway, STRAIGHT, ""), 200);
}

#[test]
fn a_budget_stops_at_its_last_byte_and_says_when_it_comes_back() {
    const BUDGET: u64 = 300_000;
    let sandbox = Sandbox::claim().unwrap();
    let gateway = Bare::start_with(&sandbox, CONFIG_KEY);
    let secret = create(&gateway, &json!({ "name": "holder7", "budget": { "bytes_per_day": BUDGET } }));
    let target = server(sandbox.ip(60, 1), 10_000, 1000);
    let tunnels: Vec<_> = (0..4)
        .map(|_| {
            let (stream, head) = request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret);
            assert_eq!(status(&head), 200, "{head}");
            stream
        })
        .collect();
    let readers: Vec<_> =
        tunnels.into_iter().map(|mut stream| std::thread::spawn(move || drain(&mut stream))).collect();
    let got: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    // The tunnels end with a reset, which may overtake bytes on their way to the client.
    assert!(got <= BUDGET, "{got} bytes of a budget of {BUDGET}");
    let usage = used(&gateway, "holder7");
    assert_eq!((&usage["day"]["bytes"], &usage["level"]), (&json!(BUDGET), &json!("spent")), "{usage}");
    assert_eq!(usage["day"]["requests"], 4);

    let (mut stream, head) = request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret);
    assert_eq!(status(&head), 429, "{head}");
    let retry =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ").map(str::to_owned));
    let retry: u64 = retry.unwrap().trim().parse().unwrap();
    assert!((1..=86_400).contains(&retry), "{retry}");
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap(); // the connection stays open after the answer
    let _ = stream.read_to_string(&mut text);
    assert!(format!("{head}{text}").contains("bytes per day"), "{head}{text}");
    assert_eq!(greet(&gateway, &secret), [5, 2, 1, 1]);
    assert_eq!(enter(&gateway, STRAIGHT, "the-key-of-the-configuration"), 200, "another key");
    assert!(gateway.until(|gateway| gateway.metric("exitgate_key_budgets{state=\"spent\"}") == 1.0));
    assert!(!gateway.ask("GET", "/metrics", "").body.contains("holder7"), "no metric has the name of a key");
    // More budget: the key works again.
    let more = gateway.ask("PATCH", "/keys/holder7", &json!({ "budget": { "bytes_per_day": 2 * BUDGET } }).to_string());
    assert_eq!(more.status, 200, "{}", more.body);
    assert_eq!(enter(&gateway, STRAIGHT, &secret), 200);
}

#[test]
fn requests_have_a_budget_and_a_failed_request_does_not_count() {
    let sandbox = Sandbox::claim().unwrap();
    let gateway = Bare::start_with(&sandbox, CONFIG_KEY);
    let budget = json!({ "name": "team", "source_budgets": { "direct": { "requests_per_day": 3 } } });
    let secret = create(&gateway, &budget);
    let closed = {
        let listener = TcpListener::bind((sandbox.ip(60, 2), 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let target = server(sandbox.ip(60, 1), 1, 1);
    let ask = |target| status(&request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret).1);
    assert_eq!([ask(closed), ask(target), ask(target), ask(target), ask(target)], [502, 200, 200, 200, 429]);
    let key = gateway.ask("GET", "/keys/team", "").json();
    assert_eq!(key["usage"]["day"]["requests"], 3, "{key}");
    assert_eq!(key["source_usage"][0]["day"]["requests"], 3, "{key}");
    assert_eq!(key["source_usage"][0]["level"], "spent", "{key}");
}

/// Kills the gateway at random moments while a tunnel moves bytes, and compares what was counted with what the client
/// received.
fn counted_after_kills(rounds: u32) {
    let sandbox = Sandbox::claim().unwrap();
    let target = server(sandbox.ip(60, 1), 10_000, usize::MAX);
    let mut gateway = Bare::start_with(&sandbox, CONFIG_KEY);
    let secret = create(&gateway, &json!({ "name": "team" }));
    let counted = |gateway: &Bare| {
        let key = gateway.ask("GET", "/keys/team", "").json();
        let all = key["usage"]["month"]["bytes"].as_u64().unwrap();
        let source = key["source_usage"][0]["month"]["bytes"].as_u64().unwrap_or(0);
        (all, source)
    };
    let mut worst = 0.0_f64;
    for round in 0..rounds {
        let before = counted(&gateway);
        let (mut stream, head) = request(&gateway, &format!("CONNECT {target}"), STRAIGHT, &secret);
        assert_eq!(status(&head), 200, "{head}");
        // The moment of chance is the point here: nothing is waited for.
        let life = 300 + u64::from(std::process::id()).wrapping_mul(7919 * u64::from(round + 1)) % 2700;
        let (life, begun) = (Duration::from_millis(life), Instant::now());
        let reader = std::thread::spawn(move || {
            // The time of each read and the bytes until then.
            let (mut reads, mut got, mut buffer) = (Vec::new(), 0_u64, vec![0; 1 << 16]);
            while let Ok(n) = stream.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                got += n as u64;
                reads.push((Instant::now(), got));
            }
            reads
        });
        std::thread::sleep(life);
        let (killed, lived) = (Instant::now(), begun.elapsed());
        gateway.kill();
        let reads = reader.join().unwrap();
        let truth = reads.last().map_or(0, |read| read.1);
        let old = reads.iter().rev().find(|read| killed.duration_since(read.0) > Duration::from_secs(1));
        let last_second = truth - old.map_or(0, |read| read.1);
        gateway = Bare::start_with(&sandbox, CONFIG_KEY);
        let after = counted(&gateway);
        for (what, before, after) in [("in all", before.0, after.0), ("of the source", before.1, after.1)] {
            let grown = after - before;
            assert!(grown <= truth, "round {round}, {what}: {grown} counted, {truth} moved");
            let lost = truth - grown;
            assert!(
                lost <= last_second,
                "round {round}, {what}: {lost} bytes lost, {last_second} in the last second, killed after {life:?}"
            );
            worst = worst.max(lost as f64 / (truth as f64 / lived.as_secs_f64()));
        }
        assert!(truth > 0, "round {round}: nothing moved in {life:?}");
    }
    eprintln!("{rounds} kills: at most {worst:.2} s of traffic were lost");
}

#[test]
fn what_was_counted_survives_kills() {
    counted_after_kills(kills());
}
