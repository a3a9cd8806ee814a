//! Something that is not a tor, where a tor should be. A real one never talks like that, so this one follows a script.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use exitgate::config::Endpoint;
use exitgate::lifecycle::{Ended, Lifecycle};
use exitgate::net::{Host, Target};
use exitgate::route::{CircuitDemand, Isolation};
use exitgate::tor::control::Auth;
use exitgate::tor::{Attach, BuildClass, EngineState, LeaseFault, Settings, Tor, Way};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How it answers its first line; everything after that is answered by silence.
type Script = fn(&mut TcpStream);

fn listens(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut asked = BufReader::new(client.try_clone().unwrap());
                let _ = asked.read_line(&mut String::new()); // whatever it is
                script(&mut client);
            });
        }
    });
    addr
}

fn at(addr: SocketAddr) -> Endpoint {
    Endpoint::Tcp(Target::new(Host::Ip(addr.ip()), addr.port()).unwrap())
}

fn say(client: &mut TcpStream, text: &[u8]) {
    let _ = client.write_all(text); // it may have hung up
}

/// A line without an end.
fn flood(client: &mut TcpStream) {
    while client.write_all(&[b'x'; 1 << 16]).is_ok() {}
}

#[tokio::test]
async fn garbage_on_the_control_port_is_said_so_and_tried_again_without_end() {
    let scripts: [(&str, Script, &str); 6] = [
        ("a web server", |client| say(client, b"HTTP/1.1 400 Bad Request\r\n\r\n"), "unusable control reply"),
        ("bytes", |client| say(client, &[0xff, 0, 0xfe, b'\r', b'\n']), "unusable control reply"),
        ("an endless line", flood, "unusable control reply"),
        ("an old tor", |client| say(client, b"510 Unrecognized command\r\n"), "tor refused PROTOCOLINFO"),
        ("an end", |_| {}, "control connection"),
        ("another yes", |client| say(client, b"250 OK\r\n"), "control port asks for"),
    ];
    for (what, script, want) in scripts {
        let dir = tempfile::tempdir().unwrap();
        let addr = listens(script);
        let attach =
            Attach { control: at(addr), socks: at(addr), onion: None, every_address: false, auth: Auth::Offered };
        let settings = Settings { data_dir: dir.path().to_owned(), attach: vec![attach], ..Settings::default() };
        let life = Lifecycle::new();
        let tor = Tor::start(settings, life.tasks(), watch::Sender::new(CircuitDemand::default()).subscribe());
        let mut changes = tor.changes();
        let twice = async {
            loop {
                let status = tor.status().remove(0);
                assert!(!status.state.usable(), "{what}: {:?}", status.state);
                match status.state {
                    EngineState::Restarting { why, .. } if status.restarts >= 2 => break why,
                    _ => changes.changed().await.unwrap(),
                }
            }
        };
        let why =
            timeout(Duration::from_secs(10), twice).await.unwrap_or_else(|_| panic!("{what}: {:?}", tor.status()));
        assert!(why.contains(want), "{what}: {why}");
        // Who asks meanwhile is told so when their time is over, and not later.
        let way = Way {
            exit: exitgate::exit::Fingerprint([1; 20]),
            hops: 3,
            isolation: Isolation(1),
            class: BuildClass::Live,
            own: None,
        };
        let asked = Instant::now();
        let told = tor.lease(way, None, None, asked + Duration::from_millis(200)).await;
        assert!(
            matches!(told, Err(LeaseFault::NotReady)) && asked.elapsed() < Duration::from_secs(2),
            "{what}: {told:?}"
        );
        let tasks = life.tasks();
        assert_eq!(life.stop(Duration::from_secs(5), std::future::pending()).await, Ended::Drained, "{what}");
        assert_eq!(tasks.panics(), 0, "{what}");
    }
}
