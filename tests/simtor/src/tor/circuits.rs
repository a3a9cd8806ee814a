//! Circuits as an engine keeps them: their states, their words, and when tor gives them up.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::engine::State;
use super::event::Kind;
use super::streams::Order;
use crate::link::{Ask, CircuitId, Gone};
use crate::model::text;
use crate::torrc::Torrc;

/// tor's bound for a circuit where `CircuitBuildTimeout` says nothing.
const BUILD: Duration = Duration::from_secs(60);

/// How long tor keeps a circuit without a stream that it does not want to use again; measured with real tor.
const DOOMED: Duration = Duration::from_secs(30);

/// Who a circuit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    General,
    Controller,
}

impl Purpose {
    pub(super) fn read(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "general" => Some(Self::General),
            "controller" => Some(Self::Controller),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::General => "GENERAL",
            Self::Controller => "CONTROLLER",
        }
    }
}

/// One circuit.
#[derive(Debug)]
pub(super) struct Circuit {
    /// How many relays it is to have.
    pub(super) length: usize,
    /// Those that were asked for, if any were: the world does not know bridges by name.
    asked: Vec<String>,
    /// Those that it reaches.
    reached: Vec<String>,
    pub(super) built: bool,
    pub(super) purpose: Purpose,
    created: SystemTime,
    began: Instant,
    pub(super) streams: usize,
    /// tor will not put a stream on it again by itself, and closes it once it has none.
    pub(super) doomed: bool,
    /// When a stream was first attached.
    pub(super) dirty: Option<Instant>,
    pub(super) idle: Instant,
    pub(super) read: u64,
    pub(super) written: u64,
}

/// The fingerprints in the lines of bridges.
pub(super) fn bridges(torrc: &Torrc) -> Vec<String> {
    let digits = |word: &&str| word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let words = torrc.all("Bridge").flat_map(str::split_whitespace);
    words.filter(digits).map(str::to_ascii_uppercase).collect()
}

impl State {
    /// Begins a circuit over relays of these fingerprints; over some of the world's choice if there are none.
    pub(super) fn extend(&mut self, path: Vec<String>, purpose: Purpose) -> CircuitId {
        let id = self.next_circuit;
        self.next_circuit += 1;
        let circuit = Circuit {
            length: if path.is_empty() { 3 } else { path.len() },
            asked: path.clone(),
            reached: Vec::new(),
            built: false,
            purpose,
            created: SystemTime::now(),
            began: Instant::now(),
            streams: 0,
            doomed: false,
            dirty: None,
            idle: Instant::now(),
            read: 0,
            written: 0,
        };
        self.circuits.insert(id, circuit);
        self.say_circuit(id, "LAUNCHED", "");
        self.ask(Ask::Extend { circuit: id, path });
        id
    }

    fn say_circuit(&mut self, id: CircuitId, status: &str, reason: &str) {
        if let Some(described) = self.describe_circuit(id) {
            self.event(Kind::Circ, format!("CIRC {id} {status} {described}{reason}"));
        }
    }

    /// Path and fields, as events and `GETINFO circuit-status` have them.
    fn describe_circuit(&self, id: CircuitId) -> Option<String> {
        let circuit = self.circuits.get(&id)?;
        let path: Vec<String> = circuit.reached.iter().map(|relay| self.directory.long_name(relay)).collect();
        let space = if path.is_empty() { "" } else { " " };
        let (purpose, created) = (circuit.purpose.word(), circuit.created);
        let micros = created.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
        let stamp = text::stamp(text::seconds(created)).replace(' ', "T");
        Some(format!(
            "{}{space}BUILD_FLAGS=NEED_CAPACITY PURPOSE={purpose} TIME_CREATED={stamp}.{micros:06}",
            path.join(",")
        ))
    }

    /// The answer to `GETINFO circuit-status`.
    pub(super) fn circuit_status(&self) -> String {
        let line = |(id, circuit): (&CircuitId, &Circuit)| {
            let status = match (circuit.built, circuit.reached.is_empty()) {
                (true, _) => "BUILT",
                (false, true) => "LAUNCHED",
                (false, false) => "EXTENDED",
            };
            Some(format!("{id} {status} {}", self.describe_circuit(*id)?))
        };
        self.circuits.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn on_extended(&mut self, id: CircuitId, path: Vec<String>, built: bool) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        let asked = std::mem::take(&mut circuit.asked);
        let name = |(told, asked): (String, Option<&String>)| if told.is_empty() { asked.cloned() } else { Some(told) };
        let all = asked.iter().map(Some).chain(std::iter::repeat(None));
        circuit.reached = path.into_iter().zip(all).filter_map(name).collect();
        circuit.asked = asked;
        circuit.built = built;
        circuit.idle = Instant::now();
        self.say_circuit(id, "EXTENDED", "");
        if built {
            self.say_circuit(id, "BUILT", "");
        }
    }

    /// A circuit ended out there.
    pub(super) fn on_gone(&mut self, id: CircuitId, gone: &Gone) {
        let reason = match gone.remote {
            true => format!(" REASON=DESTROYED REMOTE_REASON={}", gone.reason),
            false => format!(" REASON={}", gone.reason),
        };
        self.drop_circuit(id, &reason);
    }

    /// Ends a circuit from here; false if there is none.
    pub(super) fn close_circuit(&mut self, id: CircuitId, reason: &str) -> bool {
        let known = self.circuits.contains_key(&id);
        if known {
            self.ask(Ask::Close { circuit: id });
            self.drop_circuit(id, &format!(" REASON={reason}"));
        }
        known
    }

    fn drop_circuit(&mut self, id: CircuitId, reason: &str) {
        let Some(circuit) = self.circuits.get(&id) else { return };
        let status = if circuit.built { "CLOSED" } else { "FAILED" };
        self.say_circuit(id, status, reason);
        self.say_carried(id);
        self.circuits.remove(&id);
        for stream in self.streams.values().filter(|stream| stream.circuit == Some(id)) {
            let _ = stream.orders.send(Order::CircuitGone); // one that ended by itself needs no order
        }
    }

    /// tor is not going to use this circuit again.
    pub(super) fn doom(&mut self, id: CircuitId) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.doomed = true;
            circuit.idle = Instant::now();
        }
    }

    /// A built circuit on which tor itself would put a stream, or one that is on its way.
    pub(super) fn own_circuit(&mut self) -> CircuitId {
        let fit = |circuit: &&Circuit| circuit.purpose == Purpose::General && !circuit.doomed;
        let ready = self.circuits.iter().find(|(_, circuit)| fit(circuit) && circuit.built);
        let coming = self.circuits.iter().find(|(_, circuit)| fit(circuit));
        match ready.or(coming) {
            Some((id, _)) => *id,
            None => self.extend(Vec::new(), Purpose::General),
        }
    }

    /// Says what a circuit has carried since the last time.
    pub(super) fn say_carried(&mut self, id: CircuitId) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        let (read, written) = (std::mem::take(&mut circuit.read), std::mem::take(&mut circuit.written));
        if read + written == 0 {
            return;
        }
        let time = text::stamp(text::seconds(SystemTime::now())).replace(' ', "T");
        self.event(
            Kind::CircBw,
            format!(
                "CIRC_BW ID={id} READ={read} WRITTEN={written} TIME={time}.000000 DELIVERED_READ={read} OVERHEAD_READ=0 \
                 DELIVERED_WRITTEN={written} OVERHEAD_WRITTEN=0 SS=0 CWND=124 RTT=200 MIN_RTT=200"
            ),
        );
    }

    /// Gives up circuits that take too long, and those that are of no use any more.
    pub(super) fn expire_circuits(&mut self, now: Instant, scaled: impl Fn(Duration) -> Duration) {
        let seconds = |name: &str| self.torrc.number(name).filter(|number| *number > 0).map(Duration::from_secs);
        let build = scaled(seconds("CircuitBuildTimeout").unwrap_or(BUILD));
        let dirtiness = scaled(seconds("MaxCircuitDirtiness").unwrap_or(Duration::from_secs(600)));
        let doomed = scaled(DOOMED);
        let verdict = |circuit: &Circuit| {
            let idle = circuit.streams == 0 && circuit.built;
            let old = circuit.dirty.is_some_and(|since| now - since > dirtiness);
            match circuit.built {
                false if now - circuit.began > build => Some("TIMEOUT"),
                true if idle && (old || circuit.doomed && now - circuit.idle > doomed) => Some("FINISHED"),
                _ => None,
            }
        };
        let over: Vec<_> = self.circuits.iter().filter_map(|(id, circuit)| Some((*id, verdict(circuit)?))).collect();
        for (id, reason) in over {
            self.close_circuit(id, reason);
        }
    }
}
