//! Connections between engines and the relays that they enter by.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{BRIDGE, Channel, State, World};
use crate::fault::{Manner, Uplink};
use crate::link::{Conn, Gone};

/// How long the system tries to connect to an address that does not answer (Linux: six SYNs).
const NO_ANSWER: Duration = Duration::from_secs(127);

/// How long a connection outlives its other end's silence (Linux: 15 retransmissions; what sleeps is given up by then).
const SILENCE: Duration = Duration::from_secs(924);

/// An engine that did not say that it is awake for this long sleeps. It says so each second.
const ASLEEP: Duration = Duration::from_secs(3);

/// First pause before a SYN, and before data, is sent again (Linux; the second with a usual round trip).
const SYN: Duration = Duration::from_secs(1);
pub(super) const DATA: Duration = Duration::from_millis(300);

/// Longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(120);

/// When something that fails for `since` is tried next, from its begin on.
pub(super) fn next_try(since: Duration, first: Duration) -> Duration {
    let (mut at, mut pause) = (Duration::ZERO, first);
    while at < since {
        at += pause;
        pause = (pause * 2).min(PAUSE);
    }
    at
}

impl World {
    /// Waits for the connection of an engine to a relay; makes it if there is none.
    pub(super) async fn channel(self: &Arc<Self>, engine: u32, relay: usize) -> Result<(), Gone> {
        let mut open = self.open_or_connect(engine, relay);
        let opened = open.wait_for(Option::is_some).await.map(|result| result.clone());
        match opened {
            Ok(Some(Ok(()))) => Ok(()),
            _ => Err(Gone::here("CHANNEL_CLOSED")),
        }
    }

    fn open_or_connect(self: &Arc<Self>, engine: u32, relay: usize) -> watch::Receiver<Option<Result<(), String>>> {
        let mut state = self.state();
        if let Some(channel) = state.channels.get(&(engine, relay)) {
            return channel.open.subscribe();
        }
        let (open, receiver) = watch::channel(None);
        state.channels.insert((engine, relay), Channel { open, task: None, made: None });
        state.tell_conn(self, engine, relay, Conn::Launched);
        let task = tokio::spawn(self.clone().connect(engine, relay)).abort_handle();
        if let Some(channel) = state.channels.get_mut(&(engine, relay)) {
            channel.task = Some(task);
        }
        receiver
    }

    async fn connect(self: Arc<Self>, engine: u32, relay: usize) {
        let result = self.try_connect(relay).await;
        let mut state = self.state();
        let Some(channel) = state.channels.get(&(engine, relay)) else { return };
        channel.open.send_replace(Some(result.clone()));
        match result {
            Ok(()) => {
                if let Some(channel) = state.channels.get_mut(&(engine, relay)) {
                    channel.made = Some(Instant::now());
                }
                if !state.listening.contains_key(&relay) {
                    self.listen(&mut state, relay);
                }
                let name = if relay == BRIDGE { "bridge".to_owned() } else { self.hex(relay) };
                *state.stats.entered.entry(name).or_default() += 1;
                state.tell_conn(&self, engine, relay, Conn::Connected);
            }
            Err(why) => {
                state.channels.remove(&(engine, relay));
                state.stats.connections_failed += 1;
                state.tell_conn(&self, engine, relay, Conn::Failed(why));
            }
        }
    }

    /// Lets a relay that was entered accept connections at its address, as long as it can be reached: clients may try that
    /// beside their tor. An address that we may not listen at (a port below 1024) is one that nobody reaches.
    pub(super) fn listen(&self, state: &mut State, relay: usize) {
        let Some(known) = self.model.relays().get(relay) else { return };
        let reached = state.cut.is_none() && state.faults.relay(relay) != Manner::Down;
        let task = state.listening.remove(&relay).flatten();
        let task = match (task, reached) {
            (Some(task), true) => Some(task),
            (Some(task), false) => {
                task.abort();
                None
            }
            (None, true) => {
                let address = std::net::SocketAddr::from((known.address, known.or_port));
                let accept = async move {
                    let Ok(listener) = tokio::net::TcpListener::bind(address).await else { return };
                    while listener.accept().await.is_ok() {}
                };
                Some(tokio::spawn(accept).abort_handle())
            }
            (None, false) => None,
        };
        state.listening.insert(relay, task);
    }

    /// TCP, TLS and tor's own handshake: four round trips.
    async fn try_connect(&self, relay: usize) -> Result<(), String> {
        let round_trip = self.round_trip(relay);
        let given = Instant::now() + self.scaled(NO_ANSWER);
        let (uplink, manner) = {
            let state = self.state();
            (state.faults.uplink(), if relay == BRIDGE { Manner::Works } else { state.faults.relay(relay) })
        };
        match (uplink, manner) {
            (Uplink::Unreachable, _) => return Err("NOROUTE".to_owned()),
            (Uplink::Silent, _) => {
                let begun = Instant::now();
                if tokio::time::timeout_at(given, self.passable(None, &[])).await.is_err() {
                    return Err("TIMEOUT".to_owned());
                }
                self.next_try(begun, SYN).await;
            }
            (_, manner) if manner == Manner::Down || !self.is_there(relay) => {
                self.wait(round_trip).await;
                return Err("CONNECTREFUSED".to_owned());
            }
            // The machine's system accepts, and then nothing comes.
            (_, Manner::Hangs) => self.passable(None, &[relay]).await,
            (_, Manner::Works | Manner::Refuses(_) | Manner::Down) => {}
        }
        self.wait((round_trip + self.uplink_delay()) * 4).await;
        self.passable(None, &[]).await;
        Ok(())
    }

    /// Waits for the next time that the system tries again by itself what it first tried at `begun`: pauses double.
    pub(super) async fn next_try(&self, begun: Instant, first: Duration) {
        let since = begun.elapsed().mul_f64(self.settings.speed);
        tokio::time::sleep_until(begun + self.scaled(next_try(since, first))).await;
    }

    /// Ends a connection and the circuits over it.
    pub(super) fn close_channel(&self, state: &mut State, engine: u32, relay: usize, why: &str) {
        let Some(channel) = state.channels.remove(&(engine, relay)) else { return };
        let was_open = matches!(*channel.open.borrow(), Some(Ok(())));
        if let Some(task) = channel.task {
            task.abort();
        }
        channel.open.send_replace(Some(Err(why.to_owned())));
        let conn = if was_open { Conn::Closed(why.to_owned()) } else { Conn::Failed(why.to_owned()) };
        state.tell_conn(self, engine, relay, conn);
        let over = |key: &&(u32, u32)| key.0 == engine && state.circuits[*key].path.first() == Some(&relay);
        let keys: Vec<_> = state.circuits.keys().filter(over).copied().collect();
        for key in keys {
            state.end(key, &Gone::here("CHANNEL_CLOSED"));
        }
    }

    /// Relays give up connections to a client that has been silent for too long.
    pub(super) fn part_from_sleepers(&self, now: Instant) {
        let mut state = self.state();
        let silence = self.scaled(SILENCE);
        let apart = state.cut.map_or(Duration::ZERO, |since| now - since);
        let ids: Vec<u32> = state.engines.keys().copied().collect();
        for id in ids {
            let Some(engine) = state.engines.get(&id) else { continue };
            let asleep = now.duration_since(engine.awake);
            let gone = (asleep > silence && asleep > ASLEEP) || apart > silence;
            if gone {
                let channels: Vec<_> = state.channels.keys().filter(|(engine, _)| *engine == id).copied().collect();
                for (engine, relay) in channels {
                    self.close_channel(&mut state, engine, relay, "TIMEOUT");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_goes_on_with_the_next_try() {
        for (since, first, want) in
            [(0, DATA, 0.0), (10, DATA, 18.9), (150, DATA, 153.3), (2, SYN, 3.0), (40, SYN, 63.0)]
        {
            assert_eq!(next_try(Duration::from_secs(since), first).as_secs_f64(), want, "{since}");
        }
    }
}
