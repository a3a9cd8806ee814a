//! One exitgate process, as a user would start it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use exitgate_testnet::{Sandbox, Testbed};

/// How long anything may take before a test gives up on it: generous, because two cores run fifteen relays beside it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    ip: Ipv4Addr,
    log: PathBuf,
}

/// What `curl` got.
pub struct Got {
    pub status: u16,
    pub body: String,
    /// Headers of every answer on the way (the proxy's to CONNECT too), lower-case names, the last one wins.
    pub headers: BTreeMap<String, String>,
    pub code: i32,
    pub errors: String,
}

/// The configuration of a gateway on `bed`; `more` is appended, and sections may be repeated by dotted keys only.
pub fn config(bed: &Testbed, name: &str, more: &str) -> String {
    let ip = bed.sandbox.ip(200, 1);
    format!(
        r#"data_dir = {data:?}
gateway.listen = "{ip}:1080"
gateway.route_bind = "{ip}"
api.listen = "{ip}:8080"
{lines}
{pace}
sources.onionoo.enabled = false
sources.exit_addresses.enabled = false
log.level = "info,exitgate=debug"
log.targets = true
{more}
"#,
        data = bed.sandbox.folder().join(name),
        lines = bed.gateway_lines(),
        pace = pace(),
    )
}

/// The pace for private networks, whose relays bear much more than public ones.
const FAST: &str = "tor.circuits_per_second = 500.0\ncheck.per_second = 100.0";

/// How fast the gateway builds circuits and begins checks. Tests are quicker with [`FAST`]. `make verify` runs them once
/// more with `EXITGATE_E2E_PACE=shipped`, which leaves the shipped pace in place.
fn pace() -> &'static str {
    match std::env::var("EXITGATE_E2E_PACE").as_deref() {
        Ok("shipped") => "",
        Ok(other) => panic!("EXITGATE_E2E_PACE can be `shipped`, not {other:?}"),
        Err(_) => FAST,
    }
}

/// Gives the configuration the fast pace, for a test that is about speed.
pub fn fast(config: &str) -> String {
    let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let is_set = |wanted: &str| config.lines().any(|line| key(line) == key(wanted));
    let missing = FAST.lines().filter(|line| !is_set(line)).map(|line| format!("{line}\n"));
    missing.collect::<String>() + config
}

impl Gateway {
    /// Starts a gateway and waits until it says that it is ready.
    pub async fn start(bed: &Testbed, more: &str) -> Self {
        let gateway = Self::launch(bed, &config(bed, "gateway", more));
        gateway.wait_ready().await;
        gateway
    }

    /// Starts a gateway with exactly this configuration, and waits for nothing.
    pub fn launch(bed: &Testbed, config: &str) -> Self {
        Self::launch_on(&bed.sandbox, bed.sandbox.ip(200, 1), config)
    }

    /// The same without a Tor network; `ip` is where it listens.
    pub fn launch_on(sandbox: &Sandbox, ip: Ipv4Addr, config: &str) -> Self {
        Self::launch_in(sandbox, ip, config, &[])
    }

    /// The same with variables in its environment.
    pub fn launch_in(sandbox: &Sandbox, ip: Ipv4Addr, config: &str, env: &[(&str, &OsStr)]) -> Self {
        let path = sandbox.folder().join("exitgate.toml");
        fs::write(&path, config).unwrap();
        let log = sandbox.folder().join("gateway.log");
        let child = Command::new(env!("CARGO_BIN_EXE_exitgate"))
            .args(["serve", "--config"])
            .arg(&path)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, ip, log }
    }

    /// A gateway that the caller started on `bed`. Its log is the file `gateway.log` in the folder of the sandbox.
    pub fn spawned(bed: &Testbed, child: Child) -> Self {
        Self { child, ip: bed.sandbox.ip(200, 1), log: bed.sandbox.folder().join("gateway.log") }
    }

    /// The shared port.
    pub fn addr(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    /// A route's own port.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `GET` of the API.
    pub async fn api(&self, path: &str) -> Got {
        curl(&[&format!("http://{}:8080{path}", self.ip)]).await
    }

    /// Any other request to the API, by curl's own words.
    pub async fn ask(&self, args: &[&str], path: &str) -> Got {
        let url = format!("http://{}:8080{path}", self.ip);
        let mut all = args.to_vec();
        all.push(&url);
        curl(&all).await
    }

    /// `POST` of JSON to the API.
    pub async fn post(&self, path: &str, body: &str) -> Got {
        self.ask(&["-X", "POST", "-H", "Content-Type: application/json", "-d", body], path).await
    }

    pub async fn wait_ready(&self) {
        let got = until(|| self.api("/ready"), |got| got.status == 200).await;
        assert_eq!(got.status, 200, "not ready: {} {}\n{}", got.body, got.errors, self.log());
    }

    /// Orders a check of every exit, and waits until so many exits are usable, so that pools are full.
    pub async fn wait_tested(&self, exits: usize) {
        let usable = |got: &Got| {
            let answer: serde_json::Value = serde_json::from_str(&got.body).unwrap_or_default();
            answer["sources"]["tor"]["usable"].as_u64().unwrap_or_default() as usize >= exits
        };
        self.wait_ready().await;
        self.post("/checks", "{}").await; // the gateway itself tests what somebody wants
        let got = until(|| self.api("/ready"), usable).await;
        assert!(usable(&got), "fewer than {exits} usable exits: {}\n{}", got.body, self.log());
    }

    /// A request through the shared port, as an HTTP client with `username` makes it.
    pub async fn get(&self, username: &str, url: &str) -> Got {
        curl(&["-x", &format!("http://{username}@{}", self.addr()), url]).await
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{signal}");
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The engines' tor processes: our child processes by that name.
    pub fn engines(&self) -> Vec<u32> {
        children(self.pid()).into_iter().filter(|pid| command_of(*pid).starts_with("tor")).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(6000);
            eprintln!("--- the end of the gateway's log\n{}", &log[log.ceil_char_boundary(tail)..]);
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child: &u32| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let after = stat.rsplit(')').next().unwrap_or_default();
            after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) == Some(pid)
        })
        .collect()
}

fn command_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Asks again until the answer is right or patience ends; the last answer either way.
pub async fn until<F: Future<Output = T>, T>(mut ask: impl FnMut() -> F, right: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if right(&answer) || Instant::now() > deadline {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a program to its end, off the runtime's threads.
pub async fn run(program: &str, args: &[&str]) -> Output {
    run_for(PATIENCE, program, args).await
}

/// As [`run`], with another idea of how long it may take.
pub async fn run_for(patience: Duration, program: &str, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    for name in
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    tokio::time::timeout(patience, command.output())
        .await
        .unwrap_or_else(|_| panic!("{program} {args:?} does not end"))
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}

/// Real curl.
pub async fn curl(args: &[&str]) -> Got {
    let mut all = vec!["-sS", "-i", "--max-time", "45"];
    all.extend(args);
    let output = run("curl", &all).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut status, mut headers, mut rest) = (0, BTreeMap::new(), text.as_str());
    while rest.starts_with("HTTP/") {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        status = head.split(' ').nth(1).and_then(|code| code.trim().parse().ok()).unwrap_or_default();
        for line in head.lines().skip(1) {
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        rest = body;
    }
    Got {
        status,
        body: rest.to_owned(),
        headers,
        code: output.status.code().unwrap_or(-1),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
