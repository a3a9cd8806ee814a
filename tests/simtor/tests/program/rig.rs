//! What these tests share: worlds, engines, and control connections to them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use exitgate_simtor::client::WorldClient;
use tempfile::TempDir;

pub const SIMTOR: &str = env!("CARGO_BIN_EXE_simtor");

/// How long anything may take, so that a hang is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ends with the test, however it ends.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until there is something to be seen.
pub fn until<T>(what: &str, mut see: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = see() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that only we may enter.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap(); // tor insists
    folder
}

/// A small world with these settings.
pub fn world(folder: &Path, set: &[&str]) -> (Process, WorldClient) {
    let socket = folder.join("world");
    let mut command = Command::new(SIMTOR);
    command.arg("world").arg("--socket").arg(&socket).args(["--set", "size=60", "--set", "speed=50"]);
    command.args(set.iter().flat_map(|set| ["--set", set]));
    let process = Process(command.spawn().unwrap());
    let client = WorldClient::new(&socket);
    until("the world answers", || client.orders().ok());
    (process, client)
}

/// A tor, real or not, and a control connection to it.
pub struct Engine {
    pub process: Process,
    pub stream: BufReader<UnixStream>,
}

impl Engine {
    pub fn start(program: &str, folder: &Path, world: Option<&Path>, lines: &str) -> Self {
        let torrc = folder.join("torrc");
        let (data, control) = (folder.join("data"), folder.join("control"));
        let own = format!("DataDirectory {}\nControlSocket {}\n{lines}", data.display(), control.display());
        fs::write(&torrc, own).unwrap();
        let mut command = Command::new(program);
        command.arg("-f").arg(&torrc).args(["--defaults-torrc", "/dev/null", "--quiet"]).stdin(Stdio::null());
        command.envs(world.map(|world| ("SIMTOR_WORLD", world)));
        let process = Process(command.spawn().unwrap());
        let stream = until("the control port", || UnixStream::connect(&control).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { process, stream: BufReader::new(stream) }
    }

    /// The whole answer to a command; events that come between are left out.
    pub fn ask(&mut self, command: &str) -> String {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let (mut answer, mut in_block) = (String::new(), false);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{command}: closed after {answer:?}");
            if !in_block && line.starts_with("650") {
                continue;
            }
            answer.push_str(&line);
            in_block = if in_block { line != ".\r\n" } else { line.get(3..4) == Some("+") };
            if !in_block && line.get(3..4) == Some(" ") && line != ".\r\n" {
                return answer;
            }
        }
    }
}

impl Engine {
    /// One of simtor, logged in, with a directory.
    pub fn ready(folder: &Path, world: &WorldClient, lines: &str) -> Self {
        let mut engine = Self::start(SIMTOR, folder, Some(world.socket()), lines);
        engine.ask("AUTHENTICATE");
        until("a directory", || engine.ask("GETINFO status/enough-dir-info").contains("=1").then_some(()));
        engine
    }

    /// Asks for a circuit; its number.
    pub fn extend(&mut self, path: &[&str]) -> String {
        let answer = self.ask(&format!("EXTENDCIRCUIT 0 ${} purpose=controller", path.join(",$")));
        answer.trim().strip_prefix("250 EXTENDED ").unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Waits until a circuit is built; false if it ends before.
    pub fn is_built(&mut self, id: &str) -> bool {
        until("the circuit's end", || {
            let status = self.ask("GETINFO circuit-status").replace("250-circuit-status=", "");
            let own = format!("{id} ");
            let mut circuits = status.lines().filter(|line| line.contains("PURPOSE="));
            match circuits.find(|line| line.starts_with(&own)) {
                Some(line) => line.contains(" BUILT ").then_some(true),
                None => Some(false),
            }
        })
    }
}

/// The fingerprint of a guard that is no exit, and of an exit.
pub fn ends(world: &WorldClient) -> [String; 2] {
    let relays = world.relays().unwrap();
    let find = |guard: bool, exit: bool| {
        let fits = |relay: &&serde_json::Value| (!guard || relay["guard"] == true) && relay["exit"] == exit;
        let found = relays.as_array().unwrap().iter().find(fits).unwrap();
        found["fingerprint"].as_str().unwrap().to_owned()
    };
    [find(true, false), find(false, true)]
}
