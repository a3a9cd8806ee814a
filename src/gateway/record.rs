//! The record of one connection: the metrics that the connection changes, and the connection's line in the access log.
//!
//! When a connection ends, its record is dropped, and the drop writes the access line. This happens for every kind of
//! end (the client leaves, a limit is reached, an operator cuts the connection, the task panics), so every connection
//! has its line. Bytes and open streams are counted while the connection is open. A tunnel that is open for ten hours
//! is therefore visible in the metrics during the whole time.
//!
//! Targets and usernames are written only if `log.targets` allows it. The field `id` also stands in the connection's
//! debug lines and in the header `X-Exitgate-Id` of error answers, so `grep ID` finds everything about one connection.
//!
//! Next: `gateway/meters.rs` (metric handles), `gateway/connection_table.rs` (the connections that are open now).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::Histogram;

use super::connection_table::{ServedBy, TableEntry};
use super::failure::Failure;
use super::gate::{ExitFacts, Refusal};
use super::listener::ListenerConfig;
use super::meters::{RouteMeters, Share};
use super::protocol::Protocol;
use super::relay::{Direction, Meter, Reason, Traffic};
use crate::exit::ExitId;
use crate::lifecycle::Cut;
use crate::net::Target;
use crate::telemetry::history::TOTALS;
use crate::telemetry::trace_id::TraceId;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request failed.
    Failed(Failure),
    /// A tunnel was open and ended for this reason.
    Ended(Reason),
    /// A plain HTTP request was answered by its target.
    Answered,
    /// A name or an address was looked up.
    Resolved,
    /// The gateway answered the request itself, with its web page or as exit.gate.
    Local,
    /// The connection was cut while the request was being served.
    Cut,
}

impl Outcome {
    /// Returns the text that metric labels and the access line's field `outcome` use.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.label(),
            Self::Ended(reason) => reason.as_str(),
            Self::Answered => "answered",
            Self::Resolved => "resolved",
            Self::Local => "here",
            Self::Cut => "cut",
        }
    }
}

/// Counts the bytes of a tunnel or an exchange while they are written. They are counted for the connection and for its
/// route.
#[derive(Clone, Copy, Debug)]
pub struct ByteMeter<'a> {
    traffic: &'a Traffic,
    route: Option<(&'a RouteMeters, &'a Share)>,
    first: &'a FirstByte,
}

/// Measures the time from a request to the first byte of the target's answer.
#[derive(Debug, Default)]
struct FirstByte {
    waiting: AtomicBool,
    since: Option<(Instant, Histogram)>,
}

impl FirstByte {
    fn wait_from(&mut self, asked: Instant, histogram: Histogram) {
        (self.since, self.waiting) = (Some((asked, histogram)), AtomicBool::new(true));
    }

    /// Called after every write to the client. After the first byte, a call costs only one atomic load.
    fn arrived(&self) {
        if self.waiting.load(Ordering::Relaxed)
            && self.waiting.swap(false, Ordering::Relaxed)
            && let Some((asked, histogram)) = &self.since
        {
            histogram.record(asked.elapsed());
        }
    }
}

impl Meter for ByteMeter<'_> {
    fn moved(&self, direction: Direction, bytes: u64) {
        self.traffic.moved(direction, bytes);
        if direction == Direction::Down {
            self.first.arrived();
        }
        if let Some((route, share)) = self.route {
            match direction {
                Direction::Up => {
                    route.figures.moved_up(bytes);
                    route.up.increment(bytes);
                    share.moved_up(bytes);
                }
                Direction::Down => {
                    route.figures.moved_down(bytes);
                    route.down.increment(bytes);
                    share.moved_down(bytes);
                }
            }
        }
    }
}

/// The record of one connection, from accept to close.
#[derive(Debug)]
pub struct Record {
    listener: Arc<ListenerConfig>,
    begun: Instant,
    /// The time at which the present request was completely read. `None` while no request is being served.
    asked: Option<Instant>,
    client: SocketAddr,
    tls: bool,
    protocol: Option<Protocol>,
    traffic: Arc<Traffic>,
    /// Boxed, because a record is part of every connection's task and must stay small.
    served_by: Option<Box<LastExit>>,
    streaming: bool,
    /// The time from the accept of the connection to the first complete request, in ms. `None` before that request. The
    /// field has only 32 bits, because a record is part of every connection's task and must stay small.
    asked_after: Option<u32>,
    open_after: Option<u32>,
    requests: u32,
    outcome: Option<Outcome>,
    /// The username and the target of the latest request. `None` before the first request, and always if the setting
    /// `log.targets` forbids writing them.
    named: Option<Box<(String, String)>>,
    entry: TableEntry,
    first: FirstByte,
}

/// The exit that served the latest request.
#[derive(Debug)]
struct LastExit {
    route: Arc<str>,
    exit: ExitId,
    ip: Option<IpAddr>,
    meters: Arc<RouteMeters>,
    /// The counters of this route and the exit's source.
    share: Arc<Share>,
}

impl Record {
    /// Begins the record of a connection that was just accepted.
    pub fn begin(listener: Arc<ListenerConfig>, client: SocketAddr, cut: &Cut) -> Self {
        listener.meters.0.open.increment(1);
        let traffic = Arc::<Traffic>::default();
        let entry = listener.connections.enter(listener.label.clone(), client, traffic.clone(), cut.clone());
        Self {
            listener,
            begun: Instant::now(),
            asked: None,
            client,
            tls: false,
            protocol: None,
            traffic,
            entry,
            first: FirstByte::default(),
            served_by: None,
            streaming: false,
            asked_after: None,
            open_after: None,
            requests: 0,
            outcome: None,
            named: None,
        }
    }

    /// Returns the connection's id in logs and error answers.
    pub fn id(&self) -> TraceId {
        self.entry.trace()
    }

    /// Returns a meter that counts bytes for the connection and for the route that serves the connection now.
    pub fn byte_meter(&self) -> ByteMeter<'_> {
        let route = self.served_by.as_ref().map(|served| (&*served.meters, &*served.share));
        ByteMeter { traffic: &self.traffic, route, first: &self.first }
    }

    /// Returns the exit that served the latest request of this connection. `None` if no exit served one.
    pub fn exit(&self) -> Option<&ExitId> {
        self.served_by.as_ref().map(|served| &served.exit)
    }

    /// Records the client's address, from the socket or from a trusted peer's PROXY header, and whether the client uses
    /// TLS.
    pub fn client_known(&mut self, client: SocketAddr, tls: bool) {
        (self.client, self.tls) = (client, tls);
        self.entry.update(|state| (state.client, state.tls) = (client, tls));
    }

    /// Records the protocol. Called again when an HTTP connection changes from plain requests to a tunnel. The
    /// connection is counted only once.
    pub fn protocol_known(&mut self, protocol: Protocol) {
        if self.protocol.is_none() {
            self.listener.meters.count_connection(protocol.as_str());
        }
        self.protocol = Some(protocol);
        self.entry.update(|state| state.protocol = Some(protocol));
    }

    /// Records the name of the client's key. `None` means that the client needed no key.
    pub fn key_known(&self, key: Option<&Arc<str>>) {
        if let Some(key) = key {
            self.entry.update(|state| state.key = Some(key.clone()));
        }
    }

    /// Records that a complete request has been read.
    pub fn asked(&mut self, username: &str, target: Option<&Target>) {
        self.asked = Some(Instant::now());
        if self.asked_after.is_none() {
            let after = self.begun.elapsed();
            self.listener.meters.0.handshake.record(after);
            self.asked_after = Some(short_millis(after));
        }
        if self.listener.log_targets {
            let target = target.map(Target::to_string).unwrap_or_default();
            self.entry.update(|state| state.named = Some((username.to_owned(), target.clone())));
            self.named = Some(Box::new((username.to_owned(), target)));
        }
    }

    /// Records that a new stream to the target was opened.
    pub fn opened(&mut self, exit: &ExitFacts) {
        self.stream_ended();
        let asked = self.asked.unwrap_or(self.begun);
        let latencies = exit.meters.latencies(exit.exit.source(), exit.country);
        let after = asked.elapsed();
        latencies.open.record(after);
        TOTALS.opened(after);
        self.first.wait_from(asked, latencies.first_byte);
        self.open_after = Some(short_millis(after));
        self.stream_used(exit);
    }

    /// Records that a stream serves this request. Called for new streams and for streams that were already open.
    pub fn stream_used(&mut self, facts: &ExitFacts) {
        self.stream_ended();
        facts.meters.open.increment(1);
        facts.meters.figures.opened(&facts.exit, facts.ip);
        self.streaming = true;
        let ExitFacts { exit, ip, route, rule, meters, .. } = facts;
        let label = meters.label().clone();
        let (scope, rule) = (route.clone(), rule.clone());
        let served_by = ServedBy { label, scope, exit: exit.clone(), ip: *ip, rule };
        self.entry.update(|state| (state.served_by, state.streaming) = (Some(served_by), true));
        let (share, meters) = (meters.share(exit.source()), meters.clone());
        share.served();
        let (route, exit, ip) = (route.clone(), exit.clone(), *ip);
        self.served_by = Some(Box::new(LastExit { route, exit, ip, meters, share }));
    }

    /// Records that the request ended.
    pub fn ended(&mut self, outcome: Outcome) {
        self.count(outcome, None);
    }

    /// Records that the request was refused. The refusal is counted for the route that refused the request, if a route
    /// was found.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.count(Outcome::Failed(refusal.failure), refusal.meters.as_deref());
    }

    /// Counts a request for the route that refused it, or else for the route that serves the connection now, or else
    /// for no route.
    fn count(&mut self, outcome: Outcome, refused_by: Option<&RouteMeters>) {
        let serving = self.served_by.as_ref().filter(|_| self.streaming).map(|served| &*served.meters);
        let route = refused_by.or(serving);
        if let Some(route) = route {
            route.figures.ended(matches!(outcome, Outcome::Failed(_)));
        }
        let requests = route.map_or(&self.listener.meters.0.requests, |route| &route.requests);
        requests.count(self.protocol.map_or("none", Protocol::as_str), outcome.label());
        let at_fault = if let Outcome::Failed(failure) = outcome { Some(failure.at_fault()) } else { None };
        TOTALS.ended(at_fault);
        self.stream_ended();
        self.asked = None;
        self.requests += 1;
        self.entry.update(|state| state.requests += 1);
        self.outcome = Some(outcome);
    }

    fn stream_ended(&mut self) {
        if let (true, Some(served)) = (std::mem::take(&mut self.streaming), &self.served_by) {
            served.meters.open.decrement(1);
            served.meters.figures.closed();
            self.entry.update(|state| state.streaming = false);
        }
    }

    fn log(&self) {
        let served = self.served_by.as_ref();
        tracing::info!(
            target: "access",
            id = %self.id(),
            listener = &*self.listener.label,
            protocol = self.protocol.map(Protocol::as_str),
            tls = self.tls.then_some(true),
            client = %self.client.ip(),
            key = self.entry.key().as_deref(),
            username = self.named.as_ref().map(|named| &*named.0),
            to = self.named.as_ref().map(|named| &*named.1),
            route = served.map(|served| &*served.route),
            rule = self.entry.rule().as_deref(),
            exit = served.map(|served| tracing::field::display(&served.exit)),
            ip = served.and_then(|served| served.ip).map(tracing::field::display),
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

fn short_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.asked.is_some() {
            self.ended(Outcome::Cut);
        }
        self.stream_ended();
        if self.protocol.is_none() {
            self.listener.meters.count_connection("none");
        }
        self.listener.meters.0.open.decrement(1);
        self.log();
    }
}

#[cfg(test)]
mod tests;
