//! The world's socket: who connects, and what for.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Engine, Onion, World};
use crate::link::{Ask, Hello, Tell};

/// How long accepting rests after an error: too many open files, mostly.
const PAUSE: Duration = Duration::from_millis(50);

/// One connection: lines of JSON first, other things later.
#[derive(Debug)]
pub(super) struct Socket {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// The half towards a client that takes frames.
#[derive(Debug)]
pub(super) struct Frames(OwnedWriteHalf);

impl Socket {
    async fn hear<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut line = String::new();
        match self.read.read_line(&mut line).await {
            Ok(1..) => serde_json::from_str(&line).ok(),
            _ => None,
        }
    }

    /// Says one line.
    pub(super) async fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        say(&mut self.write, what).await
    }

    /// What the other end sends, and the way to it.
    pub(super) fn split(self) -> (BufReader<OwnedReadHalf>, Frames) {
        (self.read, Frames(self.write))
    }
}

async fn say(write: &mut OwnedWriteHalf, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    write.write_all(&line).await
}

impl Frames {
    /// Says one line, before any frame.
    pub(super) async fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        say(&mut self.0, what).await
    }

    /// Sends bytes.
    pub(super) async fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(4 + bytes.len());
        frame.extend((bytes.len() as u32).to_be_bytes());
        frame.extend(bytes);
        self.0.write_all(&frame).await
    }

    /// Sends the end, with tor's number of the reason.
    pub(super) async fn end(&mut self, reason: u8) -> io::Result<()> {
        self.0.write_all(&[0, 0, 0, 0, reason]).await
    }
}

impl World {
    /// Serves whoever connects, for ever.
    pub(crate) async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (read, write) = stream.into_split();
                    let socket = Socket { read: BufReader::new(read), write };
                    tokio::spawn(self.clone().receive(socket));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn receive(self: Arc<Self>, mut socket: Socket) {
        let Some(hello) = socket.hear::<Hello>().await else {
            let _ = socket.say(&json!({"error": "the first line is no request"})).await; // nobody need read it
            return;
        };
        match hello {
            Hello::Engine { client, bridges, .. } => self.engine(client, bridges.into_iter().collect(), socket).await,
            Hello::Stream { engine, circuit: Some(circuit), what } => {
                let key = (engine, circuit);
                let stream = tokio::spawn(self.clone().stream(key, what, socket));
                let number = self.adopt(key, &stream.abort_handle());
                let _ = stream.await; // aborted when its circuit ends
                self.disown(key, number);
            }
            Hello::Stream { circuit: None, what, .. } => {
                if let crate::link::Wanted::Connect { host, port } = what {
                    self.onion(host, port, socket).await;
                }
            }
            Hello::Onion { host, port, target } => {
                let Ok(target) = target.parse() else { return };
                self.state().onions.insert(host.clone(), Onion { port, target });
                let _ = socket.say(&json!({})).await;
                let _ = socket.hear::<Value>().await; // its end is the service's
                self.state().onions.remove(&host);
            }
            other => {
                let answer = self.answer(other);
                let _ = socket.say(&answer).await; // an asker that is gone needs no answer
            }
        }
    }

    fn answer(self: &Arc<Self>, asked: Hello) -> Value {
        match asked {
            Hello::Version => {
                json!({"version": self.state().faults.conduct(&self.settings.version).version, "speed": self.settings.speed})
            }
            Hello::Order(order) => json!({"id": self.order(order)}),
            Hello::Clear { id } => json!({"ended": self.clear(id)}),
            Hello::Orders => {
                let state = self.state();
                let running = state.faults.running().iter().map(|fault| {
                    let left = fault.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64());
                    json!({"id": fault.id, "left": left, "order": fault.fault})
                });
                running.collect()
            }
            Hello::Stats => {
                let hour = self.hour();
                let mut state = self.state();
                state.stats.seconds = self.began.elapsed().as_secs_f64();
                state.stats.hour = hour;
                state.stats.engines = state.engines.len();
                state.stats.circuits_now = state.circuits.len();
                state.stats.streams_now = state.circuits.values().map(|circuit| circuit.streams.len()).sum();
                json!(state.stats)
            }
            Hello::Relays => {
                let relays = self.model.relays().iter().map(|relay| {
                    json!({
                        "fingerprint": relay.hex(), "nickname": relay.nickname, "address": relay.address,
                        "exit_address": relay.exit_address, "guard": relay.flags.guard, "exit": relay.is_exit(),
                        "country": relay.country, "weight": relay.weight, "capacity": relay.capacity,
                    })
                });
                relays.collect()
            }
            Hello::Engine { .. } | Hello::Stream { .. } | Hello::Onion { .. } => Value::Null,
        }
    }

    /// Enters a stream into its circuit's book, so that it ends with it.
    fn adopt(&self, key: super::Key, stream: &tokio::task::AbortHandle) -> u64 {
        let mut state = self.state();
        let Some(circuit) = state.circuits.get_mut(&key).filter(|circuit| !circuit.lost) else { return 0 };
        circuit.next_stream += 1;
        circuit.streams.insert(circuit.next_stream, stream.clone());
        circuit.next_stream
    }

    fn disown(&self, key: super::Key, number: u64) {
        if let Some(circuit) = self.state().circuits.get_mut(&key) {
            circuit.streams.remove(&number);
        }
    }

    async fn engine(self: &Arc<Self>, client: String, bridges: HashSet<String>, socket: Socket) {
        let (tell, mut told) = mpsc::unbounded_channel();
        let id = {
            let mut state = self.state();
            let id = state.next_engine;
            state.next_engine += 1;
            let conduct = state.faults.conduct(&self.settings.version);
            let _ = tell.send(Tell::Welcome { engine: id, speed: self.settings.speed, conduct }); // its receiver is here
            state.engines.insert(id, Engine { tell, client, bridges, awake: Instant::now() });
            id
        };
        let Socket { read, mut write } = socket;
        let speak = async {
            while let Some(what) = told.recv().await {
                if say(&mut write, &what).await.is_err() {
                    return;
                }
            }
        };
        let mut lines = read.lines();
        let hear = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(ask) = serde_json::from_str::<Ask>(&line) {
                    self.asked(id, ask);
                }
            }
        };
        tokio::select! {
            () = speak => {}
            () = hear => {}
        }
        self.engine_gone(id);
    }

    fn asked(self: &Arc<Self>, engine: u32, ask: Ask) {
        match ask {
            Ask::Extend { circuit, path } => self.extend((engine, circuit), &path),
            Ask::Close { circuit } => self.close((engine, circuit)),
            Ask::Fetch { guard, microdescs } => {
                tokio::spawn(self.clone().fetch(engine, guard, microdescs));
            }
            Ask::Disconnect => {
                let mut state = self.state();
                let of = |key: &&(u32, usize)| key.0 == engine;
                let relays: Vec<usize> = state.channels.keys().filter(of).map(|(_, relay)| *relay).collect();
                relays.into_iter().for_each(|relay| self.close_channel(&mut state, engine, relay, "DONE"));
            }
            Ask::Awake => {
                if let Some(engine) = self.state().engines.get_mut(&engine) {
                    engine.awake = Instant::now();
                }
            }
        }
    }

    fn engine_gone(&self, id: u32) {
        let mut state = self.state();
        state.engines.remove(&id);
        let circuits: Vec<_> = state.circuits.keys().filter(|(engine, _)| *engine == id).copied().collect();
        for key in circuits {
            state.forget(key);
        }
        let channels = state.channels.extract_if(|(engine, _), _| *engine == id);
        channels.filter_map(|(_, channel)| channel.task).for_each(|task| task.abort());
    }
}
