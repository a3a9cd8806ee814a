//! The life of one stream: attached by the controller or by tor itself, tried, handed back, carried, ended.
//!
//! The rules are tor's: after an END of certain reasons the stream is handed back and its client waits; an exit that says
//! nothing for ten seconds has it handed back as well; two minutes after the request the client is told no.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::engine::Engine;
use super::event::Reason;
use super::home::{Reader, Writer};
use super::port::Client;
use super::socks::Command;
use super::streams::{Asked, Order};
use crate::link::{CircuitId, Fate, Hello, Wanted};
use crate::world::end;

/// How long an exit may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Bytes that a client may send before it has an answer; tor keeps as much for a stream that is handed back.
const EARLY: usize = 64 * 1024;

/// Failures of one target after which tor does not try again.
const FAILURES: u32 = 3;

/// From this version on an END without a reason is a failure; before, tor took it for success.
const KNOWS_NO_REASON: [u32; 4] = [0, 4, 9, 13];

/// tor's SOCKS code for an onion service without a descriptor.
const NO_DESCRIPTOR: u8 = 0xF0;

struct Life {
    engine: Arc<Engine>,
    id: u64,
    client: Client,
    orders: mpsc::UnboundedReceiver<Order>,
    onion: bool,
    early: Vec<u8>,
    deadline: Instant,
}

/// What came of trying a circuit.
enum Tried {
    Open(BufReader<OwnedReadHalf>, OwnedWriteHalf),
    Fate(Fate),
    Silence,
    CircuitGone,
    Again(Option<CircuitId>),
    Closed(Reason),
}

pub(super) async fn run(engine: Arc<Engine>, mut client: Client, asked: Asked) {
    let (orders, receiver) = mpsc::unbounded_channel();
    let onion = asked.onion;
    let (id, timeout, left_alone) = engine.with(|state| {
        let left_alone = state.torrc.is_on("__LeaveStreamsUnattached");
        let timeout = state.torrc.number("SocksTimeout").unwrap_or(120);
        (state.new_stream(asked, orders), Duration::from_secs(timeout), left_alone)
    });
    let early = std::mem::take(&mut client.request.early);
    let deadline = Instant::now() + engine.scaled(timeout);
    let mut life = Life { engine: engine.clone(), id, client, orders: receiver, onion, early, deadline };
    let reason = life.live(left_alone).await;
    engine.with(|state| state.stream_gone(id, reason));
}

impl Life {
    /// Lives; why it ended.
    async fn live(&mut self, left_alone: bool) -> Reason {
        let mut next = (!left_alone).then_some(None);
        loop {
            let circuit = match next.take() {
                Some(circuit) => circuit,
                None => match self.wait().await {
                    Ok(circuit) => circuit,
                    Err(reason) => return self.refuse(reason).await,
                },
            };
            match self.attempt(circuit).await {
                Tried::Open(read, write) => return self.carry(read, write).await,
                Tried::Again(circuit) => next = Some(circuit),
                Tried::Closed(reason) => return self.refuse(reason).await,
                Tried::CircuitGone => return self.refuse(Reason::here(end::DESTROY)).await,
                Tried::Silence => self.hand_back(Reason::here(end::TIMEOUT)),
                Tried::Fate(fate) => match self.take_fate(fate).await {
                    Ok(()) => {}
                    Err(reason) => return reason,
                },
            }
            if next.is_none() && !left_alone {
                next = Some(None);
            }
        }
    }

    /// Waits until somebody attaches it.
    async fn wait(&mut self) -> Result<Option<CircuitId>, Reason> {
        loop {
            let mut buffer = [0; 4096];
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Attach(circuit)) => return Ok(circuit),
                    Some(Order::Close(reason)) => return Err(Reason::here(reason)),
                    Some(Order::CircuitGone) => {}
                    None => return Err(Reason::here(end::MISC)),
                },
                () = sleep_until(self.deadline) => return Err(Reason::here(end::TIMEOUT)),
                read = self.client.read.read(&mut buffer), if self.early.len() < EARLY => match read {
                    Ok(length @ 1..) => self.early.extend_from_slice(&buffer[..length]),
                    _ => return Err(Reason::here(end::DONE)),
                },
            }
        }
    }

    /// Tries a circuit, or what tor would choose.
    async fn attempt(&mut self, circuit: Option<CircuitId>) -> Tried {
        let circuit = match (circuit, self.onion) {
            (None, false) => match self.own_circuit().await {
                Ok(circuit) => Some(circuit),
                Err(tried) => return tried,
            },
            (circuit, _) => circuit,
        };
        // The controller's command has attached it already, so that its answer stands before the event.
        let (id, attached) = (self.id, circuit);
        self.engine.with(|state| {
            let known = state.streams.get(&id).is_some_and(|stream| stream.circuit == attached && attached.is_some());
            if !known {
                state.attached(id, attached);
            }
        });
        let Ok((mut read, mut write)) = self.ask_world(circuit).await else { return Tried::CircuitGone };
        let answer = Instant::now() + self.engine.scaled(ANSWER);
        let mut line = String::new();
        loop {
            let mut buffer = [0; 4096];
            tokio::select! {
                heard = read.read_line(&mut line) => match heard {
                    Ok(1..) => break,
                    // Nothing will ever be answered over this circuit; if it is gone we are told.
                    _ => return self.silence(answer).await,
                },
                order = self.orders.recv() => match order {
                    Some(Order::Close(reason)) => return Tried::Closed(Reason::here(reason)),
                    Some(Order::CircuitGone) => return Tried::CircuitGone,
                    Some(Order::Attach(circuit)) => return Tried::Again(circuit),
                    None => return Tried::Closed(Reason::here(end::MISC)),
                },
                () = sleep_until(answer) => return Tried::Silence,
                read = self.client.read.read(&mut buffer), if self.early.len() < EARLY => match read {
                    Ok(length @ 1..) => {
                        self.early.extend_from_slice(&buffer[..length]);
                        if write.write_all(&buffer[..length]).await.is_err() {
                            return self.silence(answer).await;
                        }
                    }
                    _ => return Tried::Closed(Reason::here(end::DONE)),
                },
            }
        }
        match serde_json::from_str(&line) {
            Ok(Fate::Open(address)) => match self.say_open(Some(address)).await {
                Ok(()) => Tried::Open(read, write),
                Err(_) => Tried::Closed(Reason::here(end::DONE)),
            },
            Ok(fate) => Tried::Fate(fate),
            Err(_) => Tried::CircuitGone,
        }
    }

    /// Waits for whatever comes first of an end and the time that an answer may take.
    async fn silence(&mut self, answer: Instant) -> Tried {
        tokio::select! {
            order = self.orders.recv() => match order {
                Some(Order::Close(reason)) => Tried::Closed(Reason::here(reason)),
                Some(Order::Attach(circuit)) => Tried::Again(circuit),
                _ => Tried::CircuitGone,
            },
            () = sleep_until(answer) => Tried::Silence,
        }
    }

    /// A circuit of tor's own choice, once it is built.
    async fn own_circuit(&mut self) -> Result<CircuitId, Tried> {
        loop {
            let engine = self.engine.clone();
            let changed = engine.changed.notified();
            let ready = self.engine.with(|state| {
                let id = state.own_circuit();
                state.circuits.get(&id).filter(|circuit| circuit.built).map(|_| id)
            });
            if let Some(id) = ready {
                return Ok(id);
            }
            tokio::select! {
                () = changed => {}
                order = self.orders.recv() => match order {
                    Some(Order::Close(reason)) => return Err(Tried::Closed(Reason::here(reason))),
                    Some(Order::Attach(Some(circuit))) => return Err(Tried::Again(Some(circuit))),
                    _ => {}
                },
                () = sleep_until(self.deadline) => return Err(Tried::Closed(Reason::here(end::TIMEOUT))),
            }
        }
    }

    async fn ask_world(&self, circuit: Option<CircuitId>) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
        let request = &self.client.request;
        let host = request.host.trim_matches(['[', ']']).to_owned();
        let what = match request.command {
            Command::Connect => Wanted::Connect { host, port: request.port },
            Command::Resolve => Wanted::Resolve(host),
            Command::ResolvePtr => host.parse().map_or(Wanted::Resolve(host), Wanted::ResolvePtr),
        };
        let (read, mut write) = UnixStream::connect(&self.engine.world).await?.into_split();
        let mut line = serde_json::to_vec(&Hello::Stream { engine: self.engine.id, circuit, what })?;
        line.push(b'\n');
        line.extend_from_slice(&self.early);
        write.write_all(&line).await?;
        Ok((BufReader::new(read), write))
    }

    async fn say_open(&mut self, address: Option<std::net::IpAddr>) -> io::Result<()> {
        self.engine.with(|state| state.opened(self.id));
        let reply = self.client.request.reply(0, address);
        self.client.write.write_all(&reply).await
    }

    /// Does what tor does with an answer that does not open the stream. An error ends the stream.
    async fn take_fate(&mut self, fate: Fate) -> Result<(), Reason> {
        let number = match fate {
            Fate::Address(address) => {
                let _ = self.client.write.write_all(&self.client.request.reply(0, Some(address))).await;
                return Err(Reason::here(end::DONE));
            }
            Fate::Name(name) => {
                let _ = self.client.write.write_all(&self.client.request.reply_name(&name)).await;
                return Err(Reason::here(end::DONE));
            }
            Fate::NoService => {
                let code = if self.client.extended_errors { NO_DESCRIPTOR } else { 4 };
                let _ = self.client.write.write_all(&self.client.request.reply(code, None)).await;
                return Err(Reason::here(end::RESOLVE_FAILED));
            }
            Fate::End(_) if self.client.request.command != Command::Connect => {
                // The exit's answer to RESOLVE was that there is none: no END, and nobody's fault.
                let _ = self.client.write.write_all(&self.client.request.reply(4, None)).await;
                return Err(Reason::here(end::DONE));
            }
            Fate::End(number) => number,
            Fate::Open(_) => return Ok(()),
        };
        let reason = Reason::there(number);
        if number == 0 && !self.knows_no_reason() {
            let _ = self.say_open(None).await; // the client has its answer or is gone
            return Err(reason);
        }
        let dooms = matches!(number, end::MISC | end::RESOLVE_FAILED | end::TIMEOUT | end::NO_ROUTE);
        if dooms && self.gives_up() {
            return Err(self.refuse(reason).await);
        }
        if dooms || matches!(number, end::EXIT_POLICY | end::HIBERNATING | end::RESOURCE_LIMIT) {
            let circuit = self.engine.with(|state| state.streams.get(&self.id).and_then(|stream| stream.circuit));
            if let Some(circuit) = circuit.filter(|_| dooms) {
                self.engine.with(|state| state.doom(circuit));
            }
            self.engine.with(|state| state.detached(self.id, reason));
            return Ok(());
        }
        Err(self.refuse(reason).await)
    }

    fn knows_no_reason(&self) -> bool {
        let version = self.engine.with(|state| state.conduct.version.clone());
        let numbers: Vec<u32> = version.split(['.', '-']).filter_map(|part| part.parse().ok()).collect();
        numbers.as_slice() >= &KNOWS_NO_REASON[..]
    }

    /// Counts a failure of the target; true when it is one too many.
    fn gives_up(&self) -> bool {
        let host = self.client.request.host.to_ascii_lowercase();
        self.engine.with(|state| {
            let failures = state.failures.entry(host.clone()).or_default();
            *failures += 1;
            let over = *failures >= FAILURES;
            if over {
                state.failures.remove(&host);
            }
            over
        })
    }

    /// Nobody answered: the circuit is not used again, and the stream is handed back.
    fn hand_back(&self, reason: Reason) {
        self.engine.with(|state| {
            if let Some(circuit) = state.streams.get(&self.id).and_then(|stream| stream.circuit) {
                state.doom(circuit);
            }
            state.detached(self.id, reason);
        });
    }

    /// Tells the client no.
    async fn refuse(&mut self, reason: Reason) -> Reason {
        let code = match self.client.request.command {
            Command::Connect => reason.socks(),
            Command::Resolve | Command::ResolvePtr => 4,
        };
        let reply = self.client.request.reply(code, None);
        let _ = self.client.write.write_all(&reply).await; // a client that is gone needs no answer
        reason
    }

    /// Carries bytes until one side ends.
    async fn carry(&mut self, mut read: BufReader<OwnedReadHalf>, mut write: OwnedWriteHalf) -> Reason {
        let circuit = self.engine.with(|state| state.streams.get(&self.id).and_then(|stream| stream.circuit));
        let meter = Meter { engine: self.engine.clone(), circuit };
        let Self { client, orders, .. } = self;
        let ordered = async {
            loop {
                match orders.recv().await {
                    Some(Order::Close(reason)) => return Reason::here(reason),
                    Some(Order::CircuitGone) => return Reason::here(end::DESTROY),
                    Some(Order::Attach(_)) => {}
                    None => return std::future::pending().await,
                }
            }
        };
        tokio::pin!(ordered);
        let ended = tokio::select! {
            reason = up(&mut client.read, &mut write, &meter) => Some(reason),
            reason = down(&mut read, &mut client.write, &meter) => reason,
            reason = &mut ordered => Some(reason),
        };
        match ended {
            Some(reason) => reason,
            None => ordered.await, // cut: the circuit is gone, or will be
        }
    }
}

/// Counts what a stream carries.
struct Meter {
    engine: Arc<Engine>,
    circuit: Option<CircuitId>,
}

impl Meter {
    fn add(&self, read: u64, written: u64) {
        self.engine.with(|state| {
            (state.read, state.written) = (state.read + read, state.written + written);
            if let Some(circuit) = self.circuit.and_then(|circuit| state.circuits.get_mut(&circuit)) {
                (circuit.read, circuit.written) = (circuit.read + read, circuit.written + written);
            }
        });
    }
}

/// From the client to the world, until the client ends it.
async fn up(from: &mut Reader, to: &mut OwnedWriteHalf, meter: &Meter) -> Reason {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(length @ 1..) => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return std::future::pending().await; // what ended it is told on the other way
                }
                meter.add(0, length as u64);
            }
            _ => return Reason::here(end::DONE),
        }
    }
}

/// From the world to the client, until the exit ends it; none if it was cut without an end.
async fn down(from: &mut BufReader<OwnedReadHalf>, to: &mut Writer, meter: &Meter) -> Option<Reason> {
    let mut buffer = Vec::new();
    loop {
        let length = from.read_u32().await.ok()?;
        if length == 0 {
            return from.read_u8().await.ok().map(Reason::there);
        }
        buffer.resize(length as usize, 0);
        from.read_exact(&mut buffer).await.ok()?;
        if to.write_all(&buffer).await.is_err() {
            return Some(Reason::here(end::DONE));
        }
        meter.add(u64::from(length), 0);
    }
}
