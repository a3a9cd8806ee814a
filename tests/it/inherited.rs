//! Listening sockets that the parent of the gateway passes, as systemd does. This test is the parent. Clients are served
//! without a pause that they could see while the gateway is restarted again and again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of threads that send requests.
const CLIENTS: usize = 8;

/// The number of restarts. `EXITGATE_UPGRADES` changes it.
fn upgrades() -> usize {
    std::env::var("EXITGATE_UPGRADES").map_or(20, |number| number.parse().unwrap())
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn passed(listener: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(listener.try_clone().unwrap()))
}

fn configured(folder: &Path, listen: SocketAddr, api: SocketAddr) -> PathBuf {
    let path = folder.join("exitgate.toml");
    let data = folder.join("data");
    let text = format!(
        "data_dir = {data:?}\ntor.enabled = false\napi.listen = \"{api}\"\n\
         [gateway]\nlisten = \"{listen}\"\nallow_direct = true\nallow_private_targets = true\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Starts a gateway with two sockets, which the shell makes the descriptors 3 and 4. Only the shell knows the process id
/// that the gateway will have.
fn gateway(config: &Path, sockets: [&TcpListener; 2]) -> Command {
    let script = "exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_exitgate"), "serve", "--config"]).arg(config);
    command.stdin(passed(sockets[0])).stdout(passed(sockets[1]));
    command
}

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops the gateway by SIGTERM, and waits for its end.
fn stop(mut running: Running) {
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

/// A target that answers after a moment, so that requests are open when the gateway is told to stop.
fn target() -> SocketAddr {
    let (listener, addr) = listener();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 2048]);
                thread::sleep(Duration::from_millis(30));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone");
            });
        }
    });
    addr
}

/// Sends one request on a new connection and returns the whole answer.
fn answer(to: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn no_request_fails_while_the_gateway_is_restarted_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let ((shared, proxy), (console, api), page) = (listener(), listener(), target());
    let config = configured(folder.path(), proxy, api);
    // The username is any-source-direct.
    let request = format!(
        "GET http://{page}/ HTTP/1.1\r\nHost: {page}\r\nProxy-Authorization: Basic YW55LXNvdXJjZS1kaXJlY3Q6\r\n\
         Connection: close\r\n\r\n"
    );
    let start = || Running(gateway(&config, [&shared, &console]).stderr(Stdio::null()).spawn().unwrap());
    let (served, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = start();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (request, served, over) = (request.clone(), served.clone(), over.clone());
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match answer(proxy, &request) {
                        Ok(text) if text.starts_with("HTTP/1.1 200") && text.ends_with("done") => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failed.push(format!("{other:?}")),
                    }
                }
                failed
            })
        })
        .collect();
    for upgrade in 0..upgrades() {
        // Every run of the gateway has served requests of all clients before the next one replaces it.
        let before = served.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while served.load(Ordering::Relaxed) < before + 2 * CLIENTS && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(served.load(Ordering::Relaxed) >= before + 2 * CLIENTS, "run {upgrade} of the gateway serves nobody");
        stop(running);
        running = start();
    }
    // The API has its socket too: this request waits for the start of the last run.
    let ready = answer(api, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    over.store(true, Ordering::Relaxed);
    let failed: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(failed.is_empty(), "{} requests failed beside {served:?}: {:?}", failed.len(), failed.first());
    stop(running);
}

#[test]
fn a_socket_with_another_address_is_reported_and_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let ((shared, proxy), (console, api)) = (listener(), listener());
    let everywhere = SocketAddr::new([0, 0, 0, 0].into(), proxy.port());
    let config = configured(folder.path(), everywhere, api);
    let ended = gateway(&config, [&shared, &console]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(69), "{said}");
    assert!(said.contains(&everywhere.to_string()) && said.contains(&format!("a socket for {proxy}")), "{said}");
}
