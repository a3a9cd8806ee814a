//! The record of one connection: what it adds to the metrics, and its one line in the access log.
//!
//! It is a guard. Whatever way a connection ends (its client leaves, a limit, a kill, a panic), the record drops, and the
//! drop writes the line; a connection without one cannot exist. What is counted while it lives (bytes, streams open) is
//! counted at once, so that a tunnel of ten hours is not invisible for ten hours.
//!
//! Targets and user names stay out of the line unless `log.targets` asks for them.
//!
//! Next: `record/meters.rs` (the handles), `record/figures.rs` (what can be read back), [`super::roll`] (who is here now).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::Histogram;

use super::connection_table::{self, Entered};
use super::failure::Failure;
use super::gate::{Facts, ListenerConfig, Protocol, Refusal};
use super::relay::{Meter, Reason, Traffic, Way};
use crate::exit::ExitId;
use crate::lifecycle::Cut;
use crate::net::Target;

mod figures;
mod meters;

pub use figures::Figures;
pub use meters::{ListenerMeters, RouteMeters};

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not get what it asked for.
    Failed(Failure),
    /// A tunnel was open, and this ended it.
    Ended(Reason),
    /// A plain exchange, from request to answer.
    Answered,
    /// A name or address was looked up.
    Resolved,
    /// We answered it ourselves: the page, or exit.gate.
    Here,
    /// It was cut while it was being served.
    Cut,
}

impl Outcome {
    /// The label and the word in the access line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.label(),
            Self::Ended(reason) => reason.as_str(),
            Self::Answered => "answered",
            Self::Resolved => "resolved",
            Self::Here => "here",
            Self::Cut => "cut",
        }
    }
}

/// Counts bytes as they move, for the connection and for its route.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    traffic: &'a Traffic,
    route: Option<&'a RouteMeters>,
    first: &'a First,
}

/// The wait for the first byte of a target's answer.
#[derive(Debug, Default)]
struct First {
    waiting: AtomicBool,
    since: Option<(Instant, Histogram)>,
}

impl First {
    fn await_from(&mut self, asked: Instant, histogram: Histogram) {
        (self.since, self.waiting) = (Some((asked, histogram)), AtomicBool::new(true));
    }

    /// Called for every write: a look, and nothing more once the first byte is here.
    fn came(&self) {
        if self.waiting.load(Ordering::Relaxed)
            && self.waiting.swap(false, Ordering::Relaxed)
            && let Some((asked, histogram)) = &self.since
        {
            histogram.record(asked.elapsed());
        }
    }
}

impl Meter for Flow<'_> {
    fn moved(&self, way: Way, bytes: u64) {
        self.traffic.moved(way, bytes);
        if way == Way::Down {
            self.first.came();
        }
        if let Some(route) = self.route {
            route.figures.moved(way, bytes);
            match way {
                Way::Up => route.up.increment(bytes),
                Way::Down => route.down.increment(bytes),
            }
        }
    }
}

/// One connection, from accept to close.
#[derive(Debug)]
pub struct Record {
    listener: Arc<ListenerConfig>,
    begun: Instant,
    asked: Option<Instant>,
    client: SocketAddr,
    tls: bool,
    protocol: Option<Protocol>,
    traffic: Arc<Traffic>,
    way: Option<WayOut>,
    streaming: bool,
    /// In ms, for the line alone: a record is part of every connection's task.
    asked_after: Option<u32>,
    open_after: Option<u32>,
    requests: u32,
    outcome: Option<Outcome>,
    named: Option<Box<(String, String)>>,
    row: Entered,
    first: First,
}

/// The exit that served last.
#[derive(Debug)]
struct WayOut {
    route: Arc<str>,
    exit: ExitId,
    ip: Option<IpAddr>,
    meters: Arc<RouteMeters>,
}

impl std::fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerConfig").field("label", &self.label).field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Record {
    /// Opens the record of a connection that has just been accepted.
    pub fn begin(listener: Arc<ListenerConfig>, client: SocketAddr, cut: &Cut) -> Self {
        listener.meters.0.open.increment(1);
        let traffic = Arc::<Traffic>::default();
        let row = listener.connections.enter(listener.label.clone(), client, traffic.clone(), cut.clone());
        Self {
            listener,
            begun: Instant::now(),
            asked: None,
            client,
            tls: false,
            protocol: None,
            traffic,
            row,
            first: First::default(),
            way: None,
            streaming: false,
            asked_after: None,
            open_after: None,
            requests: 0,
            outcome: None,
            named: None,
        }
    }

    /// Where it came in.
    pub fn listener(&self) -> &ListenerConfig {
        &self.listener
    }

    /// Its bytes, live.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Counts bytes for the connection and for the route that serves it now.
    pub fn flow(&self) -> Flow<'_> {
        Flow { traffic: &self.traffic, route: self.way.as_ref().map(|way| &*way.meters), first: &self.first }
    }

    /// Who the client is, as a trusted peer says it or as its socket does, and whether it came over TLS.
    pub fn introduced(&mut self, client: SocketAddr, tls: bool) {
        (self.client, self.tls) = (client, tls);
        self.row.note(|row| (row.client, row.tls) = (client, tls));
    }

    /// It speaks this. Said again when an HTTP connection turns from plain requests to a tunnel; counted once.
    pub fn speaks(&mut self, protocol: Protocol) {
        if self.protocol.is_none() {
            self.listener.meters.spoken(protocol.as_str());
        }
        self.protocol = Some(protocol);
        self.row.note(|row| row.protocol = Some(protocol));
    }

    /// A whole request is there.
    pub fn asked(&mut self, username: &str, target: Option<&Target>) {
        self.asked = Some(Instant::now());
        if self.asked_after.is_none() {
            let after = self.begun.elapsed();
            self.listener.meters.0.handshake.record(after);
            self.asked_after = Some(short(after));
        }
        if self.listener.log_targets {
            let target = target.map(Target::to_string).unwrap_or_default();
            self.row.note(|row| row.named = Some((username.to_owned(), target.clone())));
            self.named = Some(Box::new((username.to_owned(), target)));
        }
    }

    /// A stream to the target is open.
    pub fn opened(&mut self, facts: &Facts) {
        self.closed();
        let asked = self.asked.unwrap_or(self.begun);
        let latencies = facts.meters.latencies(facts.exit.source(), facts.country);
        let after = asked.elapsed();
        latencies.open.record(after);
        self.first.await_from(asked, latencies.first_byte);
        self.open_after = Some(short(after));
        self.serves(facts);
    }

    /// A stream that is open already serves another request.
    pub fn serves(&mut self, facts: &Facts) {
        self.closed();
        facts.meters.open.increment(1);
        facts.meters.figures.opened(facts);
        self.streaming = true;
        self.row.note(|row| (row.way, row.streaming) = (Some(connection_table::Way::of(facts)), true));
        self.way = Some(WayOut {
            route: facts.route.clone(),
            exit: facts.exit.clone(),
            ip: facts.ip,
            meters: facts.meters.clone(),
        });
    }

    /// The request came to this.
    pub fn settle(&mut self, outcome: Outcome) {
        self.count(outcome, None);
    }

    /// The request was refused: by a route, if it came to one.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.count(Outcome::Failed(refusal.failure), refusal.meters.as_deref());
    }

    /// Counts it where it happened: at the route that refused, or that serves now, or else at no route.
    fn count(&mut self, outcome: Outcome, route: Option<&RouteMeters>) {
        let serving = self.way.as_ref().filter(|_| self.streaming).map(|way| &*way.meters);
        if let Some(route) = route.or(serving) {
            route.figures.settled(outcome);
        }
        let requests = route.or(serving).map_or(&self.listener.meters.0.requests, |route| &route.requests);
        requests.count(self.protocol.map_or("none", Protocol::as_str), outcome.label());
        self.settled(outcome);
    }

    fn settled(&mut self, outcome: Outcome) {
        self.closed();
        self.asked = None;
        self.requests += 1;
        self.row.note(|row| row.requests += 1);
        self.outcome = Some(outcome);
    }

    fn closed(&mut self) {
        if let (true, Some(way)) = (std::mem::take(&mut self.streaming), &self.way) {
            way.meters.open.decrement(1);
            way.meters.figures.closed();
            self.row.note(|row| row.streaming = false);
        }
    }

    fn log(&self) {
        let way = self.way.as_ref();
        tracing::info!(
            target: "access",
            listener = &*self.listener.label,
            protocol = self.protocol.map(Protocol::as_str),
            tls = self.tls.then_some(true),
            client = %self.client.ip(),
            username = self.named.as_ref().map(|named| &*named.0),
            to = self.named.as_ref().map(|named| &*named.1),
            route = way.map(|way| &*way.route),
            exit = way.map(|way| tracing::field::display(&way.exit)),
            ip = way.and_then(|way| way.ip).map(tracing::field::display),
            outcome = self.outcome.map_or("none", Outcome::label),
            requests = self.requests,
            up = self.traffic.up(),
            down = self.traffic.down(),
            asked_ms = self.asked_after,
            open_ms = self.open_after,
            ms = millis(self.begun.elapsed()),
        );
    }
}

fn short(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.asked.is_some() {
            self.settle(Outcome::Cut);
        }
        self.closed();
        if self.protocol.is_none() {
            self.listener.meters.spoken("none");
        }
        self.listener.meters.0.open.decrement(1);
        self.log();
    }
}

#[cfg(test)]
mod tests;
