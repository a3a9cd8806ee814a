//! Attacks on the shipped binary, from where an attacker stands: a socket.
//!
//! There is no Tor here and no internet: what is attacked is what strangers reach. `docs/security.md` lists every attack
//! and the test that tries it, these and those of other rooms; `tests/it/security.rs` holds the list to the tree.

mod console;
mod control;
mod exits;
mod hold;
mod inward;
mod keys;
mod secrets;
mod tls;
mod words;

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exitgate_testnet::Sandbox;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::gateway::Gateway;

/// Within this whoever is asked has answered and closed: beyond every deadline that a stranger can run into.
const ANSWERED: Duration = Duration::from_secs(20);

/// A username that goes straight to its target.
const STRAIGHT: &str = "any-source-direct";

/// A gateway without Tor, on addresses of its own.
struct Victim {
    gateway: Gateway,
    ip: Ipv4Addr,
    sandbox: Arc<Sandbox>,
}

impl Victim {
    /// Starts one with these lines in its configuration, and waits until it serves.
    async fn start(more: &str) -> Self {
        let sandbox = Sandbox::claim().unwrap();
        Self::start_in(sandbox, more, &[]).await
    }

    async fn start_in(sandbox: Arc<Sandbox>, more: &str, env: &[(&str, &OsStr)]) -> Self {
        let ip = sandbox.ip(200, 1);
        let config = format!(
            "data_dir = {data:?}\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\n\
             gateway.allow_direct = true\napi.listen = \"{ip}:8080\"\ntor.enabled = false\n\
             log.level = \"info,exitgate=trace\"\nlog.format = \"json\"\nlog.targets = true\n{more}\n",
            data = sandbox.folder().join("data"),
        );
        let gateway = Gateway::launch_in(&sandbox, ip, &config, env);
        gateway.wait_ready().await;
        Self { gateway, ip, sandbox }
    }

    fn shared(&self) -> SocketAddr {
        self.gateway.addr()
    }

    fn api(&self) -> SocketAddr {
        (self.ip, 8080).into()
    }

    /// Memory of its own, KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// It lives, nothing in it has panicked, and no line of its log is anything but one object of JSON.
    async fn is_unharmed(&self) {
        assert_eq!(self.gateway.api("/health").await.status, 200);
        let log = self.gateway.log();
        assert!(!log.contains("panicked"), "{log}");
        // The last line may still be being written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        for line in whole.split('\n') {
            let read = serde_json::from_str::<serde_json::Map<_, _>>(line);
            assert!(read.is_ok() && !line.chars().any(char::is_control), "a line of the log: {line:?}");
        }
    }
}

/// Says all of this and listens until the end.
async fn talk(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut heard = Vec::new();
    let talked = async {
        // It may be hung up on before it has said it all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut heard).await;
    };
    let ended = timeout(ANSWERED, talked).await.is_ok();
    assert!(ended, "no end of {} after {}", heard.escape_ascii(), bytes[..bytes.len().min(200)].escape_ascii());
    heard
}

/// The status of an answer; 0 if it is none.
fn status(answer: &[u8]) -> u16 {
    let line = answer.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let word = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    if answer.starts_with(b"HTTP/1.") { String::from_utf8_lossy(word).trim().parse().unwrap_or(0) } else { 0 }
}

/// A head of a request through the gateway.
fn head(line: &str, user: &str, key: &str) -> String {
    let login = basic(format!("{user}:{key}").as_bytes());
    format!("{line} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\nConnection: close\r\n\r\n")
}

fn basic(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(piece.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let there = digit <= piece.len();
            text.push(if there { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
        }
    }
    text
}

/// Greeting, login and request of SOCKS5 in one piece; `address` is the type and what follows it.
fn socks5(user: &[u8], key: &[u8], address: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 2, 1, user.len() as u8];
    bytes.extend(user);
    bytes.push(key.len() as u8);
    bytes.extend(key);
    bytes.extend([5, 1, 0]);
    bytes.extend(address);
    bytes.extend(port.to_be_bytes());
    bytes
}

/// A name as SOCKS5 writes it.
fn named(name: &str) -> Vec<u8> {
    [&[3, name.len() as u8][..], name.as_bytes()].concat()
}

/// A server that answers every connection with a function of what it was sent up to the end of a head.
async fn serve<F, W>(ip: Ipv4Addr, answer: F) -> SocketAddr
where
    F: Fn(TcpStream, String) -> W + Copy + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut asked, mut byte) = (Vec::new(), [0]);
                while !asked.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    asked.push(byte[0]);
                }
                answer(stream, String::from_utf8_lossy(&asked).into_owned()).await;
            });
        }
    });
    addr
}
