//! A restart under load while the parent of the gateway, here the test, holds the listening socket.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use exitgate_testnet::Testbed;

use crate::gateway::{Gateway, config, curl, until};

/// The number of clients that send requests, each one request after the other.
const CLIENTS: usize = 4;

/// Requests through Tor wait for the new gateway and its engines, and none fails.
#[tokio::test(flavor = "multi_thread")]
async fn requests_through_tor_wait_while_the_gateway_is_restarted() {
    let bed = Testbed::start().await.unwrap();
    let socket = TcpListener::bind((bed.sandbox.ip(200, 1), 1080)).unwrap();
    fs::write(bed.sandbox.folder().join("exitgate.toml"), config(&bed, "gateway", "")).unwrap();
    let mut gateway = launch(&bed, &socket);
    gateway.wait_tested(3).await;
    let (served, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (proxy, page) = (format!("http://any@{}", gateway.addr()), bed.web.http("echo.test", "/ip"));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (served, over, proxy, page) = (served.clone(), over.clone(), proxy.clone(), page.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let got = curl(&["-x", &proxy, &page]).await;
                    if (got.code, got.status) == (0, 200) {
                        served.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed.push(format!("{} {} {} {}", got.code, got.status, got.body, got.errors));
                    }
                }
                failed
            })
        })
        .collect();
    let progress = async || {
        let wanted = served.load(Ordering::Relaxed) + 2 * CLIENTS;
        until(|| async { served.load(Ordering::Relaxed) }, |served| *served >= wanted).await >= wanted
    };
    for restart in 0..2 {
        assert!(progress().await, "nobody is served before restart {restart}");
        gateway.signal("TERM");
        assert_eq!(gateway.ended().await.code(), Some(0));
        gateway = launch(&bed, &socket);
    }
    assert!(progress().await, "nobody is served after the last restart");
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.await.unwrap(), Vec::<String>::new());
    }
}

/// Starts a gateway that gets the shared port's socket as descriptor 3. Only the shell knows the process id that the
/// gateway will have.
fn launch(bed: &Testbed, socket: &TcpListener) -> Gateway {
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_exitgate"), "serve", "--config"]);
    command.arg(bed.sandbox.folder().join("exitgate.toml"));
    let log = File::options().create(true).append(true).open(bed.sandbox.folder().join("gateway.log")).unwrap();
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap()))).stdout(Stdio::null()).stderr(log);
    Gateway::spawned(bed, command.spawn().unwrap())
}
