//! Handles tor's events about streams. It attaches new streams, tells dials that their stream has ended, and records
//! what the end of a stream shows about its circuit.

use tokio::time::Instant;

use super::Session;
use crate::tor::event::{CircuitId, EndReason, Stream, StreamStatus};
use crate::tor::fault::StreamFault;
use crate::tor::stream::{Seen, Username};

impl Session<'_> {
    pub(super) fn on_stream(&self, stream: &Stream) {
        match stream.status {
            StreamStatus::New | StreamStatus::NewResolve => self.on_new(stream),
            StreamStatus::Succeeded => self.on_open(stream),
            StreamStatus::Detached => self.on_detached(stream),
            StreamStatus::Failed | StreamStatus::Closed => {
                let fault = StreamFault::of(stream.reason, stream.remote_reason);
                if fault == StreamFault::CircuitGone && stream.status == StreamStatus::Failed {
                    self.on_used(stream.circuit, false);
                }
                self.engine.streams().gone(stream.id, fault);
            }
            StreamStatus::SentConnect | StreamStatus::SentResolve | StreamStatus::Other => {}
        }
    }

    /// Attaches a new stream to its circuit. Tor's answer to the command is passed to the dial that waits for this
    /// stream.
    fn on_new(&self, stream: &Stream) {
        let at = Instant::now();
        let control = &self.live.control;
        match stream.username.as_deref().and_then(Username::read) {
            Some(Username::Ticket(ticket)) => match self.engine.streams().arrived(ticket, stream.id) {
                Some((circuit, seen)) => {
                    let answer = match stream.status {
                        StreamStatus::NewResolve => control.attach_resolve(stream.id, circuit),
                        _ => control.attach_stream(stream.id, Some(circuit)),
                    };
                    drop(seen.send(Seen { at, answer })); // if the dial gave up, its closed socket ends the stream
                }
                // The dial of this stream gave up before tor sent the event. So the stream is closed.
                None => drop(control.close_stream(stream.id, EndReason::Misc)),
            },
            Some(Username::Onion(_)) => drop(control.attach_stream(stream.id, None)),
            // This SOCKS stream belongs to no dial. If it stayed unattached, it would hang for two minutes.
            None if stream.from_client => drop(control.close_stream(stream.id, EndReason::Misc)),
            None => {} // a stream that tor opened for itself
        }
    }

    fn on_open(&self, stream: &Stream) {
        self.on_used(stream.circuit, true);
    }

    /// Records whether a circuit worked at its first use: `well` is true if it did. The result counts for the
    /// statistics of the circuit's guard. Further calls for the same circuit do nothing.
    fn on_used(&self, circuit: Option<CircuitId>, well: bool) {
        let Some(circuit) = circuit else { return };
        let first = self.engine.act(|circuits, _| circuits.pool.prove(circuit));
        if let (true, Some(guard)) = (first, self.told) {
            self.engine.guard().note_use(guard, well);
        }
    }

    /// Handles a stream that tor detached because the exit reported that the target cannot be reached. tor would keep
    /// the detached stream open for two minutes, and the client would wait. So we close the stream and report the
    /// reason of the exit to the dial.
    fn on_detached(&self, stream: &Stream) {
        let fault = StreamFault::of(stream.reason, stream.remote_reason);
        let circuit = self.engine.streams().failed(stream.id, fault);
        let reason = stream.cause().unwrap_or(EndReason::Misc);
        drop(self.live.control.close_stream(stream.id, reason));
        if let Some(circuit) = circuit.filter(|_| dooms(reason)) {
            self.engine.act(|circuits, now| match fault {
                StreamFault::Unanswered => circuits.pool.hang(circuit, now),
                _ => circuits.pool.doom(circuit, now),
            });
        }
        if let Some(circuit) = circuit.filter(|_| answered(reason)) {
            self.on_used(Some(circuit), true); // the exit answered, even if it only refused
        }
    }
}

/// Returns true for END reasons after which tor closes the circuit once it has no streams.
fn dooms(reason: EndReason) -> bool {
    matches!(reason, EndReason::ResolveFailed | EndReason::NoRoute | EndReason::Timeout | EndReason::Misc)
}

/// Returns true for END reasons that the exit itself sent.
fn answered(reason: EndReason) -> bool {
    matches!(
        reason,
        EndReason::ResolveFailed
            | EndReason::NoRoute
            | EndReason::Misc
            | EndReason::ExitPolicy
            | EndReason::ConnectRefused
    )
}
