//! Circuits and streams through a world: who is seen, what is refused, what is counted.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use exitgate_simtor::client::WorldClient;

use super::rig::{Engine, PATIENCE, ends, folder, world};

/// Neither failures nor silence by chance.
const SURE: [&str; 2] = ["extend_failure=0", "extend_silence=0"];

/// Where an engine listens for SOCKS.
fn socks(engine: &mut Engine) -> SocketAddr {
    let answer = engine.ask("GETINFO net/listeners/socks");
    answer.lines().next().unwrap().split('"').nth(1).unwrap().parse().unwrap()
}

/// Asks for a connection; the stream and the code of the answer.
fn connect(socks: SocketAddr, to: SocketAddr) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(socks).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let IpAddr::V4(ip) = to.ip() else { panic!("{to}") };
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    stream.write_all(&[&[5, 1, 0, 1], &ip.octets()[..], &to.port().to_be_bytes()].concat()).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    (stream, answer[1])
}

fn exit_addresses(world: &WorldClient) -> Vec<IpAddr> {
    let relays = world.relays().unwrap();
    let exits = relays.as_array().unwrap().iter().filter(|relay| relay["exit"] == true);
    exits.map(|relay| relay["exit_address"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_circuit_is_built_counted_and_failed_by_order() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &SURE);
    let mut engine = Engine::ready(folder.path(), &world, "SocksPort 0\n__DisablePredictedCircuits 1\n");
    assert!(
        engine.ask("GETINFO status/bootstrap-phase").contains("PROGRESS=75"),
        "it rests there without own circuits"
    );
    let [guard, exit] = ends(&world);
    let id = engine.extend(&[&guard, &exit]);
    assert!(engine.is_built(&id));
    let order = world.order_text(r#"{"fault":"hop_fails","hop":2}"#).unwrap();
    let id = engine.extend(&[&guard, &exit]);
    assert!(!engine.is_built(&id));
    world.clear(order).unwrap();
    let id = engine.extend(&[&guard, &exit]);
    assert!(engine.is_built(&id));
    let stats = world.stats().unwrap();
    assert_eq!((stats.circuits, stats.circuits_built, stats.circuits_failed), (3, 2, 1), "{stats:?}");
    assert!(stats.entered.contains_key(&guard), "{stats:?}");
    assert!(world.order_text(r#"{"fault":"nonsense"}"#).is_err());
}

#[test]
fn whoever_floods_a_guard_is_refused_and_counted() {
    let folder = folder();
    let lenient = [SURE[0], SURE[1], "neighbours=3"];
    let (_process, world) = world(folder.path(), &lenient);
    let mut engine = Engine::ready(folder.path(), &world, "SocksPort 0\n__DisablePredictedCircuits 1\n");
    let [guard, exit] = ends(&world);
    let ids: Vec<_> = (0..400).map(|_| engine.extend(&[&guard, &exit])).collect();
    let built = ids.iter().filter(|id| engine.is_built(id)).count();
    let stats = world.stats().unwrap();
    assert!(built >= 60, "the burst is served: {built}");
    assert_eq!((stats.marked_as_flooding, stats.refused_by_defence as usize), (1, 400 - built), "{stats:?}");
    assert_eq!(stats.ended.get("RESOURCELIMIT").copied(), Some(stats.refused_by_defence));
}

#[test]
fn exits_leave_from_their_own_addresses_and_never_leave_the_machine() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &SURE);
    let mut engine = Engine::ready(folder.path(), &world, "SocksPort auto\n");
    let socks = socks(&mut engine);
    // All exits let out port 80; where that is not ours to take, any other that most let out.
    let listener =
        [80, 443, 8080, 8443].iter().find_map(|port| TcpListener::bind(("127.77.80.1", *port)).ok()).unwrap();
    let to = listener.local_addr().unwrap();
    let (mut stream, code) = connect(socks, to);
    assert_eq!(code, 0);
    let (mut target, seen) = listener.accept().unwrap();
    assert!(exit_addresses(&world).contains(&seen.ip()), "{seen}");
    stream.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    target.read_exact(&mut bytes).unwrap();
    target.write_all(b"pong").unwrap();
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
    drop(target);
    assert_eq!(stream.read(&mut bytes).unwrap(), 0, "its end is the client's");

    // An address that is set aside for documents.
    let (_, code) = connect(socks, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), to.port())));
    let stats = world.stats().unwrap();
    assert!(code != 0 && stats.not_loopback >= 1 && stats.streams_opened == 1, "{code} {stats:?}");
}

#[test]
fn an_exit_that_was_made_slow_is_slow() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &SURE);
    world.order_text(r#"{"fault":"exit_slow","who":"exits","bytes_per_second":10000}"#).unwrap();
    let mut engine = Engine::ready(folder.path(), &world, "SocksPort auto\n");
    let socks = socks(&mut engine);
    let listener =
        [80, 443, 8080, 8443].iter().find_map(|port| TcpListener::bind(("127.77.80.2", *port)).ok()).unwrap();
    let (mut stream, code) = connect(socks, listener.local_addr().unwrap());
    assert_eq!(code, 0);
    let (mut target, _) = listener.accept().unwrap();
    let begun = Instant::now();
    std::thread::spawn(move || target.write_all(&vec![7; 500_000]));
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    // 10 kB/s times the speed of 50 are 500 kB/s.
    assert_eq!(got.len(), 500_000);
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
}
