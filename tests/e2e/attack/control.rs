//! A control port that is no tor's, or a tor's that somebody has taken over: it knows the language and means harm.
//!
//! What happens before the login is tried in `tests/it/tor/garbage.rs`. Here the login is granted, and then it begins.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Victim;
use crate::gateway::until;

/// What it does once it is asked for events, until it is hung up on.
type Script = fn(&mut TcpStream);

fn listen(ip: Ipv4Addr, script: Script) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || drop(play(client, script)));
        }
    });
    addr
}

/// A tor that is ready, by its own word.
fn play(mut client: TcpStream, script: Script) -> std::io::Result<()> {
    client.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut lines = BufReader::new(client.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["PROTOCOLINFO", ..] => {
                "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n".to_owned()
            }
            ["GETINFO", "version"] => "250-version=0.4.9.11\r\n250 OK\r\n".to_owned(),
            ["GETINFO", "status/bootstrap-phase"] => "250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 \
                 TAG=done SUMMARY=\"Done\"\r\n250 OK\r\n"
                .to_owned(),
            ["GETINFO", "status/enough-dir-info"] => "250-status/enough-dir-info=1\r\n250 OK\r\n".to_owned(),
            ["GETINFO", key] => format!("250-{key}=\r\n250 OK\r\n"),
            ["SETEVENTS", ..] => {
                client.write_all(b"250 OK\r\n")?;
                script(&mut client);
                continue;
            }
            _ => "250 OK\r\n".to_owned(),
        };
        client.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn say(client: &mut TcpStream, text: &[u8]) -> bool {
    client.write_all(text).is_ok()
}

/// Each of them would go on for gigabytes if it were let.
const SCRIPTS: [(&str, Script); 8] = [
    ("a line without end", |client| while say(client, &[b'x'; 1 << 16]) {}),
    ("an answer without end", |client| {
        say(client, b"250+ns/all=\r\n");
        while say(client, &b"r relay AAAA\r\n".repeat(4096)) {}
    }),
    ("events of nobody's streams", |client| {
        for turn in 0..20_u64 {
            let event = |at: u64| {
                let id = turn * 10_000 + at;
                format!(
                    "650 STREAM {id} NEW 0 a.test:80 SOURCE_ADDR=127.0.0.1:{port} PURPOSE=USER\r\n\
                     650 CIRC {id} BUILT $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA~x PURPOSE=GENERAL\r\n\
                     650 STREAM {id} SUCCEEDED {id} a.test:80\r\n650 CIRC_BW ID={id} READ=18446744073709551615 \
                     WRITTEN=1 TIME=now\r\n650 CIRC {id} CLOSED REASON=FINISHED\r\n",
                    port = at % 65_536
                )
            };
            if !say(client, (0..10_000).map(event).collect::<String>().as_bytes()) {
                return;
            }
        }
    }),
    ("answers that nobody asked for", |client| while say(client, &b"250 OK\r\n".repeat(8192)) {}),
    ("answers in the wrong order", |client| {
        say(client, b"250-version=9.9.9.9\r\n250 OK\r\n551 No\r\n250-status/enough-dir-info=1\r\n250 OK\r\n");
    }),
    ("words for a terminal", |client| {
        say(client, b"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=50 TAG=\x1b[2J SUMMARY=\"\x1b]0;evil\x07\"\r\n");
        say(
            client,
            b"650 STATUS_CLIENT ERR \x1b[31m REASON=\"\\r\\n{\\\"level\\\":\\\"ERROR\\\"}\"\r\n551 \x1b[2J\xff\xfe\r\n",
        );
    }),
    ("numbers of nobody's size", |client| {
        say(client, b"650 STREAM 18446744073709551616 NEW -1 a.test:99999 SOURCE_ADDR=[::1:0\r\n");
        say(client, b"650 CIRC 4294967296 EXTENDED $~,$,,~ BUILD_FLAGS=\r\n650 CIRC\r\n650 \r\n650\r\n");
    }),
    ("an end", |client| drop(client.shutdown(std::net::Shutdown::Both))),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_control_port_that_means_harm_costs_an_engine_and_nothing_else() {
    let sandbox = exitgate_testnet::Sandbox::claim().unwrap();
    let attached: String = SCRIPTS
        .iter()
        .zip(1..)
        .map(|((_, script), last)| {
            let addr = listen(sandbox.ip(80, last), *script);
            format!("\n[[tor.attach]]\ncontrol = \"{addr}\"\nsocks = \"{addr}\"\n")
        })
        .collect();
    let more = format!("sources.onionoo.enabled = false\nsources.exit_addresses.enabled = false\n{attached}");
    let ip = sandbox.ip(200, 1);
    let config = format!(
        "data_dir = {data:?}\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\n\
         gateway.allow_direct = true\napi.listen = \"{ip}:8080\"\nlog.level = \"info,exitgate=debug\"\n\
         log.format = \"json\"\n{more}\n",
        data = sandbox.folder().join("data"),
    );
    let gateway = crate::gateway::Gateway::launch_on(&sandbox, ip, &config);
    let victim = Victim { gateway, ip, sandbox };
    victim.gateway.wait_ready().await;
    let before = victim.memory();
    let engines = |body: &str| {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        answer["engines"].as_array().cloned().unwrap_or_default()
    };
    // Each has been met and given up again, more than once.
    let met = |body: &str| engines(body).iter().filter(|one| one["restarts"].as_u64() >= Some(1)).count();
    let got = until(|| victim.gateway.api("/engines"), |got| met(&got.body) >= 4).await;
    assert!(met(&got.body) >= 4 && engines(&got.body).len() == SCRIPTS.len(), "{}", got.body);
    let grown = victim.memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more: {}", got.body);
    assert!(!got.body.contains('\x1b') && !got.body.contains("\\u001b"), "{}", got.body);
    // A client that asks for Tor is told so in time, and everybody else is served.
    let refused = victim.gateway.get("us", "http://web.test/").await;
    assert!(matches!(refused.status, 503 | 502), "{} {}", refused.status, refused.errors);
    let served = victim.gateway.get("any-source-direct", "http://exit.gate/").await;
    assert_eq!(served.status, 200, "{}", served.errors);
    victim.is_unharmed().await;
}
