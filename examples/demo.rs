//! exitgate at work with no internet at all: a private Tor network of fifteen relays, a fake web, and the gateway in
//! front of them, on this machine's loopback. Prints lines to paste, and ends with Ctrl-C.
//!
//!     cargo run --example demo
//!     cargo build -p exitgate-simtor && cargo run --example demo -- --simtor
//!
//! The second has a simulated network in the place of one of real relays.

#![expect(clippy::print_stdout, reason = "what it prints is the point of it")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use exitgate_testnet::{Backend, Options, Testbed};

/// Where the demo listens: as a gateway does by default, so that what is learnt here can be typed there; or where the
/// environment says, as with any gateway, so that two can run at once.
static GATEWAY: LazyLock<String> = LazyLock::new(|| place("EXITGATE__GATEWAY__LISTEN", "127.0.0.1:1080"));
static API: LazyLock<String> = LazyLock::new(|| place("EXITGATE__API__LISTEN", "127.0.0.1:8080"));

/// What is said first.
const PRIVATE: &str =
    "Starting a private Tor network of fifteen relays (the first time makes keys and takes some ten seconds) …";
const SIMULATED: &str = "Starting a simulated Tor network of fifteen relays …";

fn place(variable: &str, default: &str) -> String {
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
            println!("The private network did not start: {error:#}");
            return ExitCode::from(69);
        }
    };
    println!("It is up after {:.1} s. Starting exitgate …", bed.network.start_took().as_secs_f32());
    let path = bed.ground.folder().join("exitgate.toml");
    std::fs::write(&path, config(&bed)).expect("the folder is ours");
    let origin = exitgate::config::find(Some(&path));
    let loaded = match exitgate::config::load(origin, Some(&exitgate::app::judge_selector)) {
        Ok(loaded) => loaded,
        Err(faults) => {
            println!("{faults}");
            return ExitCode::from(64);
        }
    };
    let lines = say(&bed);
    std::thread::spawn(move || announce(&lines));
    let end = exitgate::app::serve(loaded, Some(path));
    drop(bed);
    exitgate::cli::Exit::from(end).into()
}

/// The whole configuration of a gateway on a private network.
fn config(bed: &Testbed) -> String {
    let data: PathBuf = bed.ground.folder().join("gateway");
    format!(
        r#"# A gateway on a private Tor network
data_dir = {data:?}

# tor's warnings about networks like this one are no news here.
log.level = "warn,exitgate::tor::engine::process=error,exitgate::app=error"
gateway.listen = "{gateway}"
api.listen = "{api}"
tor.binary = {program:?}
tor.circuits_per_second = 200.0
sources.onionoo.enabled = false
check.per_second = 50.0
{lines}
"#,
        gateway = *GATEWAY,
        api = *API,
        program = bed.network.program(),
        lines = bed.gateway_lines(),
    )
}

/// The lines to paste.
fn say(bed: &Testbed) -> String {
    let page = bed.web.http("echo.test", "/ip");
    let secure = bed.web.https("echo.test", "/ip");
    format!(
        "\nReady. Paste into another terminal; each prints the address that the site saw:\n\n  \
         curl -x socks5h://us-strict@{gateway} {page}\n  \
         curl -x http://nonus-session-cart42@{gateway} {page}\n  \
         curl -v --cacert {ca} -x http://de@{gateway} {secure}\n\n\
         The console: http://{api}/        What is here: curl {api}/ready        Ctrl-C ends everything.\n",
        gateway = *GATEWAY,
        api = *API,
        ca = bed.web.ca_pem().display(),
    )
}

/// Waits until every exit was tested, then prints.
fn announce(lines: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let asked = Command::new("curl").args(["-fsS", &format!("http://{}/ready", *API)]).output();
        if asked.is_ok_and(|answer| answer.status.success()) {
            println!("{lines}");
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("No exit became usable within a minute; the log above says why.");
}
