//! Runs exitgate without internet: a private Tor network of fifteen relays, a fake web, and the gateway, all on loopback. Prints commands to
//! paste. Ctrl-C ends everything.
//!
//!     cargo run --example demo
//!     cargo build -p exitgate-simtor && cargo run --example demo -- --simtor
//!
//! The second command simulates the network instead of running relays.

#![expect(clippy::print_stdout, reason = "the commands to paste are this program's output")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use exitgate_testnet::upstream::{self, OwnProxy, Spoken, Verdict};
use exitgate_testnet::{Backend, Options, Testbed};

/// The address of the shared port: the default of a gateway, so that the commands work there too. The environment may set another one, as
/// for any gateway, so that two demos can run at the same time.
static GATEWAY: LazyLock<String> = LazyLock::new(|| address("EXITGATE__GATEWAY__LISTEN", "127.0.0.1:1080"));
static API: LazyLock<String> = LazyLock::new(|| address("EXITGATE__API__LISTEN", "127.0.0.1:8080"));

const PRIVATE: &str =
    "Starting a private Tor network of fifteen relays (the first start makes keys and takes about ten seconds) …";
const SIMULATED: &str = "Starting a simulated Tor network of fifteen relays …";

fn address(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let simulated = std::env::args().any(|word| word == "--simtor");
    println!("{}", if simulated { SIMULATED } else { PRIVATE });
    let backend = if simulated { Backend::Simtor } else { Backend::Tor };
    let bed = match runtime.block_on(Testbed::start_with(Options { backend, ..Options::default() })) {
        Ok(bed) => bed,
        Err(error) => {
            println!("The private network did not start: {error:#}\nIs tor installed? `make demo` installs it.");
            return ExitCode::from(69);
        }
    };
    println!("The network runs after {:.1} s. Starting exitgate …", bed.network.start_took().as_secs_f32());
    let path = bed.sandbox.folder().join("exitgate.toml");
    let rented = runtime.block_on(rented_proxy(&bed));
    let more = rented.as_ref().map(|(_, lines)| lines.as_str()).unwrap_or_default();
    std::fs::write(&path, config(&bed) + more).expect("this process can write to its own folder");
    let origin = exitgate::config::find(Some(&path));
    let loaded = match exitgate::config::load(origin, Some(&exitgate::app::validate_selector)) {
        Ok(loaded) => loaded,
        Err(faults) => {
            println!("{faults}");
            return ExitCode::from(64);
        }
    };
    let lines = commands(&bed, &path);
    std::thread::spawn(move || print_when_ready(&lines));
    let end = exitgate::app::serve(loaded, Some(path));
    drop(rented);
    drop(bed);
    exitgate::cli::ExitStatus::from(end).into()
}

/// If the environment variable `EXITGATE_DEMO_CONFIG` names a file, starts a SOCKS5 proxy with the login `user:password`, and
/// returns it with the lines of this file, in which `proxy.example.com:1080` is that proxy. The tests of the recipes use
/// this.
async fn rented_proxy(bed: &Testbed) -> Option<(OwnProxy, String)> {
    let file = std::env::var_os("EXITGATE_DEMO_CONFIG")?;
    let lines = std::fs::read_to_string(file).expect("the file in EXITGATE_DEMO_CONFIG can be read");
    let leave = upstream::address_in(&bed.sandbox, "FR", 1);
    let decide = move |user: &str, password: &str| match (user, password) {
        ("user", "password") => Verdict::Leave(leave),
        _ => Verdict::BadLogin,
    };
    let at = (bed.sandbox.ip(70, 1), 0).into();
    let started = OwnProxy::start(&bed.sandbox, &bed.dns, at, Spoken::Socks5, std::sync::Arc::new(decide)).await;
    let proxy = started.expect("a proxy");
    let lines = lines.replace("proxy.example.com:1080", &proxy.address().to_string());
    Some((proxy, lines))
}

/// The configuration of a gateway on the private network.
fn config(bed: &Testbed) -> String {
    let data: PathBuf = bed.sandbox.folder().join("gateway");
    format!(
        r#"# A gateway on a private Tor network
data_dir = {data:?}

# tor warns about private networks like this one; these lines hide that.
log.level = "warn,exitgate::tor::engine::process=error,exitgate::app=error"
gateway.listen = "{gateway}"
api.listen = "{api}"
api.example_url = "{page}"
tor.binary = {program:?}
tor.circuits_per_second = 200.0
sources.onionoo.enabled = false
check.per_second = 50.0
{lines}
"#,
        gateway = *GATEWAY,
        api = *API,
        page = bed.web.http("echo.test", "/ip"),
        program = bed.network.program(),
        lines = bed.gateway_lines(),
    )
}

/// The commands to paste.
fn commands(bed: &Testbed, config: &Path) -> String {
    let page = bed.web.http("echo.test", "/ip");
    let secure = bed.web.https("echo.test", "/ip");
    format!(
        "\nReady. Paste into another terminal; each prints the address that the site saw:\n\n  \
         curl -x socks5h://us-strict@{gateway} {page}\n  \
         curl -x http://nonus-session-cart42@{gateway} {page}\n  \
         curl -v --cacert {ca} -x http://de@{gateway} {secure}\n\n\
         The console: http://{api}/        The state: curl {api}/ready        Ctrl-C ends everything.\n  \
         Its configuration, for commands such as `exitgate store check -c FILE`: {config}\n",
        gateway = *GATEWAY,
        api = *API,
        ca = bed.web.ca_pem().display(),
        config = config.display(),
    )
}

/// Waits until the gateway is ready, and then prints the commands.
fn print_when_ready(lines: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let asked = Command::new("curl").args(["-fsS", &format!("http://{}/ready", *API)]).output();
        if asked.is_ok_and(|answer| answer.status.success()) {
            println!("{lines}");
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("No exit became usable within a minute. The log above says why.");
}
