//! A tor that somebody else runs.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exitgate::config::Endpoint;
use exitgate::net::{Host, Secret, Target};
use exitgate::tor::control::Auth;
use exitgate::tor::{Attach, EngineState, Settings, Tor};
use exitgate_testnet::{Client, ClientOptions, Wait};
use tokio::time::Instant;

use super::rig::is_alive;
use super::*;

/// How long it may take until a tor that can be reached again is driven again. It takes about a second.
const SOON: Duration = Duration::from_secs(8);

/// Two addresses where nobody listens.
fn free() -> [SocketAddr; 2] {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}

fn at(addr: SocketAddr) -> Endpoint {
    Endpoint::Tcp(Target::new(Host::Ip(addr.ip()), addr.port()).unwrap())
}

async fn client(bed: &Testbed, [control, socks]: [SocketAddr; 2]) -> Client {
    let lines = vec![format!("ControlPort {control}"), format!("SocksPort {socks}")];
    let options = ClientOptions { lines, wait: Wait::Started, seed: None };
    bed.network.client_with("foreign", options).await.unwrap()
}

/// Nothing but this tor.
fn only(attach: Attach) -> impl FnOnce(&mut Settings) {
    move |settings| (settings.engines, settings.attach, settings.extra) = (0, vec![attach], Vec::new())
}

/// A cable with a plug that can be pulled: what connects here is connected there, until it is cut.
struct Cable {
    near: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (near, ends) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let plugged = ends.clone();
        thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let Ok(there) = TcpStream::connect(far) else { continue };
                let twice = |end: &TcpStream| end.try_clone().unwrap();
                plugged.lock().unwrap().extend([twice(&here), twice(&there)]);
                let pairs = [(twice(&here), twice(&there)), (there, here)];
                for (mut from, mut to) in pairs {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to); // its end, however it comes, is handed on
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { near, ends }
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both); // gone already
        }
    }
}

on_both!(
    a_foreign_tor_is_driven_left_alone_and_found_again,
    a_foreign_tor_is_found_by_name_and_asks_for_its_password,
    every_address_behind_a_name_is_a_tor
);

async fn a_foreign_tor_is_driven_left_alone_and_found_again(backend: Backend) {
    let bed = bed(backend).await;
    let ports = free();
    let tor = client(&bed, ports).await;
    let cable = Cable::to(ports[0]);
    let attach =
        Attach { control: at(cable.near), socks: at(ports[1]), onion: None, every_address: false, auth: Auth::Offered };
    let rig = Rig::start_with(&bed, only(attach)).await;
    let pid = tor.pid().await.unwrap();
    assert_eq!((rig.tor.status().len(), rig.tor.status()[0].attached, rig.tor.status()[0].pid), (1, true, pid));
    for exit in bed.network.exits() {
        assert_eq!(rig.seen_from(way(exit, 1)).await.unwrap().0, exit.outbound.to_string());
    }

    // The control connection alone is cut: whoever has a stream does not notice, others wait for a moment.
    let (mut held, facts) = rig.echo(way(bed.network.relay("us1"), 2)).await.unwrap();
    let began = Instant::now();
    cable.cut();
    rig.until("the cut is noticed", |tor| tor.status()[0].restarts == 1).await;
    rig.all_ready().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(held.lives().await);
    assert_eq!(
        rig.seen_from(way(bed.network.relay("us2"), 3)).await.unwrap().0,
        bed.network.relay("us2").outbound.to_string()
    );
    let left = tor.control().await.unwrap().info("circuit-status").await.unwrap();
    let ours: Vec<_> = left.lines().filter(|line| line.contains("PURPOSE=CONTROLLER")).collect();
    assert!(ours.iter().any(|line| line.starts_with(&format!("{} ", facts.circuit.unwrap()))), "{left}");
    assert_eq!(ours.len(), 2, "of those that nobody used nothing is left: {left}");

    // tor itself is gone, and comes back.
    let began = Instant::now();
    tor.kill().await.unwrap();
    rig.until("its death is noticed", |tor| tor.status()[0].restarts > 1).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    held.ended().await;
    drop(tor);
    let tor = client(&bed, ports).await;
    let began = Instant::now();
    rig.all_ready().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    rig.stop().await;
    let pid = tor.pid().await.unwrap().unwrap();
    assert!(is_alive(pid), "it is not ours to end");
}

async fn a_foreign_tor_is_found_by_name_and_asks_for_its_password(backend: Backend) {
    let bed = bed(backend).await;
    let ports = free();
    let hashed =
        Command::new(bed.network.program()).args(["--quiet", "--hash-password", "open sesame"]).output().unwrap();
    let hashed = String::from_utf8(hashed.stdout).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut tor = tokio::process::Command::new(bed.network.program());
    tor.args(["--quiet", "--defaults-torrc", "/dev/null", "-f"]).arg(folder.path().join("torrc")).kill_on_drop(true);
    let mut torrc = bed.network.client_torrc_lines();
    torrc.push(format!("DataDirectory {}", folder.path().join("data").display()));
    torrc.push(format!("ControlPort {}\nSocksPort {}\nHashedControlPassword {}\n", ports[0], ports[1], hashed.trim()));
    std::fs::write(folder.path().join("torrc"), torrc.join("\n")).unwrap();
    let tor = tor.spawn().unwrap();
    let named = |addr: SocketAddr| Endpoint::Tcp(format!("localhost:{}", addr.port()).parse().unwrap());
    let attach = |password: &str| Attach {
        control: named(ports[0]),
        socks: named(ports[1]),
        onion: None,
        every_address: false,
        auth: Auth::Password(Secret::new(password.to_owned())),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut settings = super::rig::settings(&bed.network, &dir);
    only(attach("guess"))(&mut settings);
    let refused = Rig::launch(&bed, dir, settings);
    let why = refused.until_some("the wrong password is refused", |tor| match &tor.status()[0].state {
        EngineState::Restarting { why, .. } if why.contains("AUTHENTICATE") => Some(why.to_string()),
        _ => None,
    });
    assert!(!why.await.contains("guess"), "a password is not repeated");
    refused.stop().await;

    let rig = Rig::start_with(&bed, only(attach("open sesame"))).await;
    let us1 = bed.network.relay("us1");
    assert_eq!(rig.seen_from(way(us1, 1)).await.unwrap().0, us1.outbound.to_string());
    rig.stop().await;
    drop(tor);
}

async fn every_address_behind_a_name_is_a_tor(backend: Backend) {
    let bed = bed(backend).await;
    let ports = free();
    let tor = client(&bed, ports).await;
    let named = |name: &str, addr: SocketAddr| Endpoint::Tcp(format!("{name}:{}", addr.port()).parse().unwrap());
    let attach = |name: &str| Attach {
        control: named(name, ports[0]),
        socks: named(name, ports[1]),
        onion: None,
        every_address: true,
        auth: Auth::Offered,
    };
    // A name that nobody has is no tor, and one that somebody has stays.
    let settings = Settings { attach: vec![attach("tor.invalid"), attach("localhost")], ..Settings::default() };
    assert_eq!(settings.clone().without_missing().await.attach, [attach("localhost")]);

    let rig = Rig::start_with(&bed, only(attach("localhost"))).await;
    let us1 = bed.network.relay("us1");
    assert_eq!(rig.seen_from(way(us1, 1)).await.unwrap().0, us1.outbound.to_string());
    let ready = |tor: &Tor| tor.status().iter().filter(|engine| engine.state == EngineState::Ready).count();
    assert_eq!(ready(&rig.tor), 1, "one tor is one engine: {:?}", rig.tor.status());
    // `localhost` may have two addresses, and the tor listens at one.
    assert!(rig.tor.status().len() <= 2, "{:?}", rig.tor.status());
    drop(tor);
    rig.until_some("the engine is lost", |tor| (ready(tor) == 0).then_some(())).await;
    let _back = client(&bed, ports).await;
    rig.until_some("the tor is found again", |tor| (ready(tor) == 1).then_some(())).await;
    rig.stop().await;
}
