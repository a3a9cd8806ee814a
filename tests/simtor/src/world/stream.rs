//! Streams: begun at an exit, which resolves, connects from its own address and carries bytes both ways.
//!
//! No packet leaves the machine: an exit that is to connect to anything but a loopback address says that there is no
//! route, and the world counts it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::choose::lognormal;
use super::serve::{Frames, Socket};
use super::{BRIDGE, Key, World, dns, end};
use crate::fault::ExitManner;
use crate::link::{Fate, Wanted};

/// How long an exit's system tries to connect to a target that does not answer.
const NO_ANSWER: Duration = Duration::from_secs(127);

/// Bytes of one piece: as much as a few dozen cells hold, and small enough that sharing is fair.
const PIECE: usize = 16 * 1024;

/// How long it is looked whether a client has sent something with its request.
const EARLY: Duration = Duration::from_millis(1);

/// Where a stream goes.
#[derive(Debug)]
struct Way {
    /// The engine; none for an onion service, whose circuits are nobody's.
    engine: Option<u32>,
    path: Vec<usize>,
    manner: ExitManner,
    half: Duration,
}

impl World {
    /// Runs a stream of a circuit to its end.
    pub(super) async fn stream(self: Arc<Self>, key: Key, what: Wanted, mut socket: Socket) {
        let Some(way) = self.begin(key, &what) else { return };
        self.passable(way.engine, &way.path).await;
        self.wait(way.half).await;
        let (fate, target) = self.at_exit(&way, &what).await;
        self.count(&way, &fate);
        match target {
            Some(target) => self.pump(way, target, socket, fate).await,
            None => {
                self.travel_back(&way).await;
                let _ = socket.say(&fate).await; // a client that did not wait needs no answer
            }
        }
    }

    async fn travel_back(&self, way: &Way) {
        self.passable(way.engine, &way.path).await;
        self.wait(way.half).await;
        self.passable(way.engine, &way.path).await;
    }

    /// Looks the circuit up; none if nothing will ever be answered over it.
    fn begin(&self, key: Key, what: &Wanted) -> Option<Way> {
        let mut state = self.state();
        let circuit =
            state.circuits.get(&key).filter(|circuit| !circuit.lost && circuit.reached == circuit.path.len())?;
        let path = circuit.path.clone();
        state.stats.streams += 1;
        if let Wanted::Connect { host, port } = what {
            state.stats.target(host, *port);
        }
        state.release(&path, key);
        let draw = state.rng.random();
        let manner = state.faults.exit(*path.last()?, draw);
        drop(state);
        let half = (self.round_trips(&path) + self.uplink_delay()) / 2;
        Some(Way { engine: Some(key.0), path, manner, half })
    }

    async fn at_exit(&self, way: &Way, what: &Wanted) -> (Fate, Option<TcpStream>) {
        let exit = way.path.last().copied().filter(|exit| *exit != BRIDGE);
        let Some(relay) = exit.map(|exit| &self.model.relays()[exit]) else {
            return (Fate::End(end::INTERNAL), None);
        };
        if let Some(reason) = way.manner.ends {
            return (Fate::End(reason), None);
        }
        if !relay.is_exit() {
            return (Fate::End(end::INTERNAL), None);
        }
        let from = way.manner.address.unwrap_or(relay.exit_address);
        match what {
            Wanted::Resolve(name) => (self.resolve(from, name).await.map_or_else(Fate::End, Fate::Address), None),
            Wanted::ResolvePtr(_) => (Fate::End(end::RESOLVE_FAILED), None),
            Wanted::Connect { host, port } => {
                if !relay.lets_out(*port) || way.manner.refused_ports.contains(port) {
                    return (Fate::End(end::EXIT_POLICY), None);
                }
                match self.connect_from(from, host, *port).await {
                    Ok((target, ip)) => (Fate::Open(ip), Some(target)),
                    Err(reason) => (Fate::End(reason), None),
                }
            }
        }
    }

    async fn resolve(&self, from: Ipv4Addr, host: &str) -> Result<IpAddr, u8> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(ip);
        }
        let Some(server) = self.settings.dns.filter(|server| server.ip().is_loopback()) else {
            return Err(end::RESOLVE_FAILED);
        };
        match dns::ask(server, from, host).await {
            Ok(dns::Answer::Address(ip)) => Ok(ip),
            Ok(dns::Answer::Unknown | dns::Answer::Silence) | Err(_) => Err(end::RESOLVE_FAILED),
        }
    }

    async fn connect_from(&self, from: Ipv4Addr, host: &str, port: u16) -> Result<(TcpStream, IpAddr), u8> {
        let ip = self.resolve(from, host).await?;
        if !ip.is_loopback() || ip.is_ipv6() {
            self.state().stats.not_loopback += 1;
            return Err(end::NO_ROUTE);
        }
        let (drops, travel) = {
            let mut state = self.state();
            let times = &self.settings.times;
            (state.faults.target(host, Some(ip), port), lognormal(&mut state.rng, times.target_ms, times.target_sigma))
        };
        if drops {
            self.wait(NO_ANSWER).await;
            return Err(end::TIMEOUT);
        }
        self.wait(travel).await;
        let connecting = connect(from, SocketAddr::new(ip, port));
        match timeout(self.scaled(NO_ANSWER), connecting).await {
            Ok(Ok(stream)) => Ok((stream, ip)),
            Ok(Err(error)) => Err(reason_of(&error)),
            Err(_) => Err(end::TIMEOUT),
        }
    }

    fn count(&self, way: &Way, fate: &Fate) {
        let mut state = self.state();
        match fate {
            Fate::Open(_) => state.stats.streams_opened += 1,
            Fate::End(reason) => *state.stats.stream_ends.entry(*reason).or_default() += 1,
            Fate::Address(_) | Fate::Name(_) | Fate::NoService => {}
        }
        if let Some(exit) = way.path.last().filter(|exit| **exit != BRIDGE) {
            *state.stats.streams_by_exit.entry(self.hex(*exit)).or_default() += 1;
        }
    }

    /// A stream to an onion service: no exit, no policy, and the service's machine connects.
    pub(super) async fn onion(self: Arc<Self>, host: String, port: u16, mut socket: Socket) {
        let (service, path) = {
            let mut state = self.state();
            let service = state.onions.get(&host).copied().filter(|service| service.port == port);
            let path = self.any_path(&mut state.rng);
            (service, path)
        };
        let half = self.round_trips(&path);
        self.passable(None, &path).await;
        self.wait(half * 2).await;
        let target = match service {
            Some(service) if service.target.ip().is_loopback() => TcpStream::connect(service.target).await.ok(),
            _ => None,
        };
        match (service, target) {
            (Some(service), Some(target)) => {
                let way = Way { engine: None, path, manner: ExitManner::default(), half };
                self.pump(way, target, socket, Fate::Open(service.target.ip())).await;
            }
            (service, _) => {
                let fate = if service.is_some() { Fate::End(end::DONE) } else { Fate::NoService };
                let _ = socket.say(&fate).await; // a client that did not wait needs no answer
            }
        }
    }

    /// Carries bytes both ways until one side ends. tor knows no half-closed streams. What the client has sent with its
    /// request is at the exit already; the answer to the request travels ahead of what the target sends.
    async fn pump(self: Arc<Self>, way: Way, target: TcpStream, socket: Socket, fate: Fate) {
        let _ = target.set_nodelay(true); // fails only on a socket that is dead already
        let (mut from_target, to_target) = target.into_split();
        let (mut from_client, to_client) = socket.split();
        let (mut to_target, mut to_client) = (Sink::Target(to_target), Sink::Client(to_client));
        let (sent, arriving) = mpsc::unbounded_channel();
        let up = async {
            let (window, mut buffer) = (self.window(), vec![0; PIECE]);
            if let Ok(Ok(length @ 1..)) = timeout(EARLY, from_client.read(&mut buffer)).await {
                self.send(&way, Duration::ZERO, &buffer[..length], &window, &sent).await;
            }
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                self.send(&way, way.half, &buffer[..length], &window, &sent).await;
            }
            drop(sent); // what is under way still arrives
        };
        let (back, returning) = mpsc::unbounded_channel();
        let down = async {
            let (window, mut buffer) = (self.window(), vec![0; PIECE]);
            let reason = loop {
                match from_target.read(&mut buffer).await {
                    Ok(0) => break end::DONE,
                    Ok(length) => self.send(&way, way.half, &buffer[..length], &window, &back).await,
                    Err(_) => break end::RESET,
                }
            };
            drop(back);
            reason
        };
        let answer_and_bytes = async {
            self.travel_back(&way).await;
            if to_client.say(&fate).await.is_ok() {
                self.deliver(&way, returning, &mut to_client).await;
            }
        };
        let downwards = async { tokio::join!(down, answer_and_bytes).0 };
        let upwards = async { tokio::join!(up, self.deliver(&way, arriving, &mut to_target)) };
        let reason = tokio::select! {
            reason = downwards => Some(reason),
            _ = upwards => None,
        };
        if let (Some(reason), Sink::Client(client)) = (reason, &mut to_client) {
            let _ = client.end(reason).await; // a client that is gone knows
        }
    }

    fn window(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.settings.window))
    }

    /// Puts a piece under way once there is room for it.
    async fn send(
        &self,
        way: &Way,
        travels: Duration,
        bytes: &[u8],
        window: &Arc<Semaphore>,
        sent: &mpsc::UnboundedSender<Piece>,
    ) {
        let Ok(room) = window.clone().acquire_many_owned(bytes.len() as u32).await else { return };
        self.carry(&way.path, bytes.len(), way.manner.bytes_per_second).await;
        let due = Instant::now() + self.scaled(travels);
        let _ = sent.send(Piece { due, bytes: bytes.to_vec(), _room: room }); // the other end is gone: so is this
    }

    async fn deliver(&self, way: &Way, mut arriving: mpsc::UnboundedReceiver<Piece>, sink: &mut Sink) {
        while let Some(piece) = arriving.recv().await {
            sleep_until(piece.due).await;
            self.passable(way.engine, &way.path).await;
            if sink.write(&piece.bytes).await.is_err() {
                return;
            }
            if let Sink::Client(_) = sink {
                self.received(way, piece.bytes.len());
            }
        }
    }

    fn received(&self, way: &Way, bytes: usize) {
        if let Some(exit) = way.path.last().filter(|exit| **exit != BRIDGE) {
            *self.state().stats.bytes_by_exit.entry(self.hex(*exit)).or_default() += bytes as u64;
        }
    }
}

/// Where bytes come out.
enum Sink {
    Target(OwnedWriteHalf),
    Client(Frames),
}

impl Sink {
    async fn say(&mut self, fate: &Fate) -> io::Result<()> {
        match self {
            Self::Target(_) => Ok(()),
            Self::Client(client) => client.say(fate).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Target(target) => target.write_all(bytes).await,
            Self::Client(client) => client.frame(bytes).await,
        }
    }
}

/// Bytes under way.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    _room: tokio::sync::OwnedSemaphorePermit,
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

fn reason_of(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::TimedOut => end::TIMEOUT,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => end::NO_ROUTE,
        // Measured with real tor: a connect that fails later than at once has no reason of its own.
        _ => end::MISC,
    }
}
