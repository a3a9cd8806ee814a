//! The database under the shipped binary: killed at any moment, on a disk that is full, behind somebody's lock, damaged.
//!
//! No Tor here: the routes are of the source `direct`, and what is asserted is what the API acknowledged.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use exitgate_testnet::Sandbox;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::gateway::PATIENCE;

/// How often the gateway is killed.
const KILLS: u32 = 12;

/// `EXITGATE_KILLS` says another number: each costs two starts of a gateway.
pub fn kills() -> u32 {
    std::env::var("EXITGATE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// A gateway without Tor; killed when dropped.
pub struct Bare {
    child: Child,
    pub ip: Ipv4Addr,
    log: Arc<Mutex<String>>,
}

/// One answer of the API.
pub struct Said {
    pub status: u16,
    pub body: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.body))
    }
}

fn config(sandbox: &Sandbox) -> PathBuf {
    config_with(sandbox, "")
}

fn config_with(sandbox: &Sandbox, more: &str) -> PathBuf {
    let (ip, path) = (sandbox.ip(200, 1), sandbox.folder().join("exitgate.toml"));
    let text = format!(
        "data_dir = {:?}\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\ngateway.allow_direct = true\n\
         gateway.allow_private_targets = true\napi.listen = \"{ip}:8080\"\ntor.enabled = false\nlog.format = \"human\"\n{more}",
        sandbox.folder().join("data"),
    );
    fs::write(&path, text).unwrap();
    path
}

fn database(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("data/exitgate.db")
}

impl Bare {
    fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, "")
    }

    /// Starts one with these lines at the end of its configuration.
    pub fn start_with(sandbox: &Sandbox, more: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_exitgate"))
            .args(["serve", "--config"])
            .arg(config_with(sandbox, more))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, stderr) = (Arc::new(Mutex::new(String::new())), child.stderr.take().unwrap());
        let kept = log.clone();
        // A pipe and not a file: a limit on the size of files must not swallow what is said about it.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let gateway = Self { child, ip: sandbox.ip(200, 1), log };
        let up = gateway.until(|gateway| gateway.try_ask("GET", "/health", "").is_some());
        assert!(up, "it does not start\n{}", gateway.log());
        gateway
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for something to become true.
    pub fn until(&self, is: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if is(self) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// One request; nothing if the gateway died over it.
    pub fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<Said> {
        let mut stream = TcpStream::connect((self.ip, 8080)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Said { status, body: body.to_owned() })
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Said {
        self.try_ask(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer\n{}", self.log()))
    }

    fn make(&self, name: &str) -> Option<Said> {
        self.try_ask("POST", "/proxies", &format!("{{\"name\": {name:?}, \"selector\": \"any-source-direct\"}}"))
    }

    fn routes(&self) -> BTreeSet<String> {
        let answer = self.ask("GET", "/proxies?limit=1000", "").json();
        let list = answer["proxies"].as_array().unwrap_or_else(|| panic!("{answer}"));
        list.iter().map(|proxy| proxy["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.ask("GET", "/metrics", "").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
    }

    fn limit_files(&self, bytes: Option<u64>) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    }

    /// An HTTP answer through the route's own port, from a server on loopback.
    fn carries(&self, name: &str) -> bool {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let port = self.ask("GET", &format!("/proxies/{name}"), "").json()["port"].as_u64().unwrap();
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        });
        let mut stream = TcpStream::connect(SocketAddr::from((self.ip, u16::try_from(port).unwrap()))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        drop(TcpStream::connect(to)); // a gateway that did not connect leaves the server waiting
        serve.join().unwrap();
        answer.ends_with("\r\n\r\nok")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
    }
}

fn exitgate(sandbox: &Sandbox, args: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_exitgate")).args(args).arg("--config").arg(config(sandbox)).output();
    run.unwrap()
}

/// Makes and closes routes until the gateway is gone. `known` is what was acknowledged; the answer is the name of the
/// change that was under way at the end.
fn change(gateway: &Bare, round: u32, known: &mut BTreeSet<String>) -> String {
    for n in 0.. {
        let name = format!("r{round}-{n}");
        match gateway.make(&name) {
            Some(said) => assert_eq!(said.status, 201, "{}", said.body),
            None => return name,
        }
        known.insert(name.clone());
        if n % 2 == 1 {
            let old = known.first().unwrap().clone();
            match gateway.try_ask("DELETE", &format!("/proxies/{old}"), "") {
                Some(said) => assert_eq!(said.status, 202, "{}", said.body),
                None => return old,
            }
            known.remove(&old);
        }
    }
    unreachable!("a gateway that outlives every number")
}

#[test]
fn no_acknowledged_change_is_missing_after_any_kill() {
    let sandbox = Sandbox::claim().unwrap();
    let (mut known, mut acknowledged) = (BTreeSet::new(), 0);
    for round in 0..kills() {
        let gateway = Bare::start(&sandbox);
        let there = gateway.routes();
        let missing: Vec<_> = known.difference(&there).collect();
        let more: Vec<_> = there.difference(&known).collect();
        assert!(missing.is_empty() && more.is_empty(), "round {round}: lost {missing:?}, came back {more:?}");
        let pid = Pid::from_raw(i32::try_from(gateway.child.id()).unwrap()).unwrap();
        // The moment of chance is the point here: nothing is waited for. It is drawn over a few changes' time.
        let life =
            Duration::from_micros(u64::from(std::process::id()).wrapping_mul(7919 * u64::from(round + 1)) % 120_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(life);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        let before = known.len();
        let under_way = change(&gateway, round, &mut known);
        acknowledged += known.len().abs_diff(before);
        killer.join().unwrap();
        drop(gateway);
        // What was under way may have happened or not: the next start says which, and that holds from then on.
        let gateway = Bare::start(&sandbox);
        if gateway.routes().contains(&under_way) {
            known.insert(under_way);
        } else {
            known.remove(&under_way);
        }
        assert_eq!(gateway.routes(), known, "round {round}, killed after {life:?}");
    }
    let checked = exitgate(&sandbox, &["store", "check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("no damage"), "{said}");
    assert!(acknowledged > kills() as usize / 2, "only {acknowledged} changes were acknowledged");
}

#[test]
fn a_full_disk_refuses_changes_carries_traffic_and_heals() {
    let sandbox = Sandbox::claim().unwrap();
    let mut gateway = Bare::start(&sandbox);
    assert_eq!(gateway.make("before").unwrap().status, 201);
    gateway.limit_files(Some(1));
    let refused = gateway.make("refused").unwrap();
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (500, Some("internal")), "{}", refused.body);
    assert_eq!(gateway.routes(), BTreeSet::from(["before".to_owned()]), "what is not durable is not there");
    assert_eq!(gateway.metric("exitgate_store_failing"), 1.0);
    // The log is written by another thread, and may be a moment late.
    let said = "cannot write to the store, and the gateway runs from memory";
    assert!(gateway.until(|gateway| gateway.log().contains(said)), "{}", gateway.log());
    assert!(gateway.carries("before"), "traffic needs no disk");
    gateway.limit_files(None);
    let heals = gateway.until(|gateway| gateway.metric("exitgate_store_failing") == 0.0);
    assert!(heals, "it does not heal");
    assert_eq!(gateway.make("after").unwrap().status, 201);
    gateway.kill();
    let gateway = Bare::start(&sandbox);
    assert_eq!(gateway.routes(), ["after", "before"].map(str::to_owned).into());
}

#[test]
fn somebody_elses_lock_refuses_changes_and_heals() {
    let sandbox = Sandbox::claim().unwrap();
    let gateway = Bare::start(&sandbox);
    let other = rusqlite::Connection::open(database(&sandbox)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(gateway.make("a").unwrap().status, 500);
    assert_eq!(gateway.metric("exitgate_store_failing"), 1.0);
    let said = "another process holds the file's lock";
    assert!(gateway.until(|gateway| gateway.log().contains(said)), "{}", gateway.log());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(gateway.until(|gateway| gateway.metric("exitgate_store_failing") == 0.0), "it does not heal");
    assert_eq!(gateway.make("a").unwrap().status, 201);
}

#[test]
fn a_damaged_file_is_left_alone_and_the_gateway_goes_on_without_it() {
    let sandbox = Sandbox::claim().unwrap();
    let mut gateway = Bare::start(&sandbox);
    assert_eq!(gateway.make("kept").unwrap().status, 201);
    let copy = sandbox.folder().join("copy.db");
    let backup = exitgate(&sandbox, &["store", "backup", copy.to_str().unwrap()]);
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    gateway.kill();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database(&sandbox).display()));
    }
    let rubbish = "no database, a love letter".repeat(1000);
    fs::write(database(&sandbox), &rubbish).unwrap();
    let mut gateway = Bare::start(&sandbox);
    assert_eq!(gateway.metric("exitgate_store_failing"), 1.0);
    assert!(
        gateway.log().contains("the file is damaged") && gateway.log().contains("store reset"),
        "{}",
        gateway.log()
    );
    assert_eq!(gateway.make("new").unwrap().status, 500, "nobody is told of a durability that is not there");
    assert_eq!(exitgate(&sandbox, &["store", "reset"]).status.code(), Some(70), "not under a gateway");
    gateway.kill();
    assert_eq!(fs::read_to_string(database(&sandbox)).unwrap(), rubbish, "the file is as it was");
    assert!(exitgate(&sandbox, &["store", "reset"]).status.success());
    fs::copy(&copy, database(&sandbox)).unwrap();
    let gateway = Bare::start(&sandbox);
    assert_eq!(gateway.routes(), BTreeSet::from(["kept".to_owned()]), "the backup is as good as the file was");
}
