//! Streams as an engine keeps them: their states and their words.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::State;
use super::event::{Kind, Reason};
use crate::link::CircuitId;

/// What is told to the task of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Go over this circuit; over what tor chooses if there is none.
    Attach(Option<CircuitId>),
    /// End, for this reason.
    Close(u8),
    /// The circuit is gone.
    CircuitGone,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody has attached it.
    Waiting,
    /// The exit was asked.
    Asked,
    Open,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) target: String,
    pub(super) circuit: Option<CircuitId>,
    pub(super) phase: Phase,
    pub(super) resolve: bool,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// What its first event says behind the target.
    fields: String,
}

/// What a client has asked for, as events tell it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) resolve: bool,
    pub(super) onion: bool,
    /// Source, user name and the like.
    pub(super) fields: String,
}

impl State {
    /// A client asks for something.
    pub(super) fn new_stream(&mut self, asked: Asked, orders: mpsc::UnboundedSender<Order>) -> u64 {
        let id = self.next_stream;
        self.next_stream += 1;
        let Asked { target, resolve, onion: _, fields } = asked;
        let status = if resolve { "NEWRESOLVE" } else { "NEW" };
        let text = format!("STREAM {id} {status} 0 {target}{fields}");
        self.streams.insert(id, Stream { target, circuit: None, phase: Phase::Waiting, resolve, orders, fields });
        self.event(Kind::Stream, text);
        id
    }

    /// Tells of a stream's change.
    pub(super) fn say_stream(&mut self, id: u64, status: &str, more: &str) {
        let Some(stream) = self.streams.get(&id) else { return };
        let text = format!("STREAM {id} {status} {} {}{more}", stream.circuit.unwrap_or(0), stream.target);
        self.event(Kind::Stream, text);
    }

    /// Puts a stream on a circuit.
    pub(super) fn attached(&mut self, id: u64, circuit: Option<CircuitId>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.circuit, stream.phase) = (circuit, Phase::Asked);
        let status = if stream.resolve { "SENTRESOLVE" } else { "SENTCONNECT" };
        if let Some(circuit) = circuit.and_then(|circuit| self.circuits.get_mut(&circuit)) {
            circuit.streams += 1;
            circuit.dirty.get_or_insert_with(Instant::now);
        }
        self.say_stream(id, status, "");
    }

    pub(super) fn opened(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.phase = Phase::Open;
        }
        self.say_stream(id, "SUCCEEDED", "");
    }

    /// Takes a stream off its circuit; somebody may attach it again.
    pub(super) fn detached(&mut self, id: u64, reason: Reason) {
        self.say_stream(id, "DETACHED", &reason.field());
        self.leave_circuit(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.phase = Phase::Waiting;
        }
        self.say_stream(id, "CONTROLLER_WAIT", "");
    }

    fn leave_circuit(&mut self, id: u64) {
        let circuit = self.streams.get_mut(&id).and_then(|stream| stream.circuit.take());
        if let Some(circuit) = circuit.and_then(|circuit| self.circuits.get_mut(&circuit)) {
            circuit.streams = circuit.streams.saturating_sub(1);
            circuit.idle = Instant::now();
        }
    }

    /// A stream ends.
    pub(super) fn stream_gone(&mut self, id: u64, reason: Reason) {
        let opened = self.streams.get(&id).is_some_and(|stream| stream.phase == Phase::Open);
        if !opened {
            self.say_stream(id, "FAILED", &reason.field());
        }
        self.say_stream(id, "CLOSED", &reason.field());
        self.leave_circuit(id);
        self.streams.remove(&id);
    }

    /// The answer to `GETINFO stream-status`.
    pub(super) fn stream_status(&self) -> String {
        let line = |(id, stream): (&u64, &Stream)| {
            let status = match (stream.phase, stream.resolve) {
                (Phase::Waiting, false) => "NEW",
                (Phase::Waiting, true) => "NEWRESOLVE",
                (Phase::Asked, false) => "SENTCONNECT",
                (Phase::Asked, true) => "SENTRESOLVE",
                (Phase::Open, _) => "SUCCEEDED",
            };
            let circuit = stream.circuit.unwrap_or(0);
            format!("{id} {status} {circuit} {}{}", stream.target, stream.fields)
        };
        self.streams.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
