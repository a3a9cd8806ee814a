//! Decides when a request to a source is made, and whether the answer is used.
//!
//! A complete answer can still be worse than the answer before: empty, half as long, older, or unchanged for so long
//! that a stale cache must have sent it. Such an answer is rejected or marked, with a reason, and the last good answer
//! stays in use. All decisions are pure functions of the source's status and the time ([`evaluate`], [`check`],
//! [`pause`], [`due`]). A short loop makes the requests and calls these functions.
//!
//! Next: `source/relay_sources.rs` and `source/public.rs` start these loops and receive the updates.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rand::RngExt;
use tokio::sync::{Notify, mpsc, watch};

use super::fetch::{Answer, Client, Connect, FetchError, LONGEST_WAIT, Limits, Validators};
use super::handle::{Handle, report};
use super::{Garbage, Parse, Parsed};
use crate::exit::Moment;
use crate::lifecycle::Tasks;
use crate::store::Source;

/// A function that returns the current time of the clock that the gateway's state uses.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The first pause after a failed request. The pause doubles with each failure, up to the period of the source. A
/// server that restarts is normally back after this time. Not tuned.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The largest random addition to a period, as a share of the period. The addition is needed because gateways that
/// start at the same time must not send all their requests at the same time.
const SPREAD: f64 = 0.05;

/// The least time between two requests that a person triggers.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

/// If a list has at least this many exits and shrinks to less than half, the new list is rejected at first. Shorter
/// lists are exempt, because the loss of two exits may already be half of such a list.
const LONG_LIST: u32 = 100;

/// A list that has shrunk to less than half is rejected at first, and the request counts as failed. The list is
/// accepted when this many requests in a row would count as failed and the last two of them brought such a list.
const HALVED_REQUESTS: u32 = 3;

/// Why a list that has shrunk to less than half is rejected at first.
const HALVED: Garbage = Garbage("it has less than half as many exits as before");

/// How far a source's clock may be ahead of our clock. Data with a later date counts as data from the future.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// Which source to request, and when.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The name of the source in the API path `/sources`, in metrics and in the log.
    pub name: Arc<str>,
    pub url: Uri,
    /// The least time between two requests. If the `max-age` of an answer is longer, that time is used.
    pub every: Duration,
    /// The age after which the data of the source is stale.
    pub stale_after: Duration,
    pub limits: Limits,
}

/// The result of one request.
#[derive(Clone, Debug)]
pub struct Update<T> {
    /// The status of the source after the request.
    pub status: Source,
    /// The data of the source. `None` if the request brought no new data, or if the data is not used.
    pub value: Option<T>,
}

/// Makes the requests to one source. Each kind of source implements this trait.
pub(super) trait Request: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Makes one request. `before` is the status of the source before the request.
    fn send(&self, before: &Source) -> impl Future<Output = Result<Reply<Self::Output>, FetchError>> + Send;
}

/// Starts the requests for one document, which continue until shutdown. `known` is the status of the source at the end
/// of the last run. If the data of the last run is not available any more, this status must contain no validators
/// (`ETag` and `Last-Modified`), because the answer "unchanged" refers to that data.
pub fn start<P: Parse + 'static, C: Connect>(
    feed: Feed,
    client: Client<C>,
    known: Option<Source>,
    clock: Clock,
    tasks: &Tasks,
    updates: mpsc::Sender<Update<P::Output>>,
) -> Handle {
    let get = Get::<P, C> { url: feed.url.clone(), limits: feed.limits, client, parser: PhantomData };
    start_requests(feed, get, known, clock, tasks, updates)
}

/// Does the same as [`start`], for any kind of request.
pub(super) fn start_requests<R: Request>(
    feed: Feed,
    request: R,
    known: Option<Source>,
    clock: Clock,
    tasks: &Tasks,
    updates: mpsc::Sender<Update<R::Output>>,
) -> Handle {
    let (handle, status) = Handle::new(&feed.name, known);
    let poller = Arc::new(Poller { feed, request, status, refresh: handle.refresh.clone(), clock });
    let stopping = tasks.clone();
    tasks.supervise("source", move || {
        let (poller, updates, stopping) = (poller.clone(), updates.clone(), stopping.clone());
        async move {
            tokio::select! {
                () = stopping.stopping() => {}
                () = poller.run(&updates) => {}
            }
        }
    });
    handle
}

/// The worker of one source.
struct Poller<R> {
    feed: Feed,
    request: R,
    status: watch::Sender<Source>,
    refresh: Arc<Notify>,
    clock: Clock,
}

impl<R: Request> Poller<R> {
    async fn run(&self, updates: &mpsc::Sender<Update<R::Output>>) {
        loop {
            self.wait().await;
            let before = self.status.borrow().clone();
            let reply = self.request.send(&before).await;
            let update = evaluate(&self.feed, &before, reply, (self.clock)(), rand::rng().random_range(0.0..1.0));
            report(&before, &update.status);
            self.status.send_replace(update.status.clone());
            if updates.send(update).await.is_err() {
                return; // nobody receives updates: the gateway stops
            }
        }
    }

    /// Waits until the next request is due, or until a person triggers a request.
    async fn wait(&self) {
        let (now, status) = ((self.clock)(), self.status.borrow().clone());
        let pause = status.attempt.map_or(now, |attempt| attempt.after(REFRESH_PAUSE)).since(now).min(REFRESH_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(due(&status, self.feed.every, now)) => {}
            () = async {
                self.refresh.notified().await;
                tokio::time::sleep(pause).await;
            } => {}
        }
    }
}

/// Requests one document, and follows the `max-age` that the server sends.
struct Get<P, C> {
    url: Uri,
    limits: Limits,
    client: Client<C>,
    parser: PhantomData<fn() -> P>,
}

impl<P: Parse + 'static, C: Connect> Request for Get<P, C> {
    type Output = P::Output;

    async fn send(&self, before: &Source) -> Result<Reply<P::Output>, FetchError> {
        let known = usable_validators(before);
        let mut parser = P::default();
        let mut feed = |bytes: &[u8]| parser.feed(bytes);
        match self.client.get(&self.url, &known, self.limits, &mut feed).await? {
            Answer::Fresh { validators, max_age } => Ok(Reply::Fresh(parser.finish()?, validators, max_age)),
            Answer::Unchanged { max_age } => check_conditional(&known).map(|()| Reply::Unchanged(max_age)),
        }
    }
}

/// Returns an error if the server answered "unchanged" to a request that contained no validators (`ETag` or
/// `Last-Modified`).
pub(super) fn check_conditional(known: &Validators) -> Result<(), FetchError> {
    let conditional = *known != Validators::default();
    conditional.then_some(()).ok_or(Garbage("it answers `unchanged` to a request that was not conditional").into())
}

/// The answer of a source.
#[derive(Debug)]
pub(super) enum Reply<T> {
    /// A document, its validators and its `max-age`.
    Fresh(Parsed<T>, Validators, Option<Duration>),
    /// The last document is still current. The value is the `max-age` of this answer.
    Unchanged(Option<Duration>),
}

/// Returns the validators (`ETag` and `Last-Modified`) for the next request. While the data is stale, no validators are
/// sent, because a stale cache would answer `unchanged` again and again.
pub(super) fn usable_validators(status: &Source) -> Validators {
    if status.outcome == "stale" {
        return Validators::default();
    }
    Validators { etag: status.etag.clone(), last_modified: status.last_modified.clone() }
}

/// Returns an error if a complete answer must not be used.
fn check<T>(parsed: &Parsed<T>, before: &Source, now: Moment) -> Result<(), Garbage> {
    if parsed.records == 0 {
        return Err(Garbage("it contains no exit"));
    }
    // If the date of the earlier answer is in the future, the date was the source's mistake and is ignored. If the date
    // were used, all later answers would look older than that answer.
    let latest = before.published.filter(|published| published.since(now) <= CLOCK_SLACK);
    if parsed.published.is_some() && parsed.published < latest {
        return Err(Garbage("it is older than the answer before"));
    }
    let halved = before.records >= LONG_LIST && parsed.records < before.records / 2;
    let repeated = before.why.ends_with(HALVED.0) && before.failures + 1 >= HALVED_REQUESTS;
    if halved && !repeated { Err(HALVED) } else { Ok(()) }
}

/// Returns the outcome of a good answer, and a remark. Both depend on how old the data in the answer is.
fn age(
    published: Option<Moment>,
    stale_after: Duration,
    now: Moment,
    good: &'static str,
) -> (&'static str, &'static str) {
    let Some(published) = published else { return (good, "") };
    if now.since(published) > stale_after {
        return ("stale", "its data is old: the source no longer updates it, or this machine's clock is ahead");
    }
    if published.since(now) > CLOCK_SLACK {
        return (good, "its data is from the future: this machine's clock is behind");
    }
    (good, "")
}

/// Returns the pause before the next request. `random` is a number between 0 and 1.
fn pause(every: Duration, outcome: Result<Option<Duration>, &FetchError>, failures: u32, random: f64) -> Duration {
    match outcome {
        Ok(max_age) => every.max(max_age.unwrap_or_default()) + every.mul_f64(SPREAD * random),
        Err(error) => {
            let grown = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
            let demanded = match error {
                FetchError::Status { retry_after: Some(wait), .. } => *wait + FIRST_PAUSE.mul_f64(random),
                _ => Duration::ZERO,
            };
            demanded.max(grown.min(every).mul_f64(0.75 + 0.5 * random))
        }
    }
}

/// Returns the time until the next request. If the recorded time is further away than the longest possible pause, the
/// clock was wrong when that time was recorded, and the recorded time is not used.
fn due(status: &Source, every: Duration, now: Moment) -> Duration {
    let pause = status.next.map_or(Duration::ZERO, |next| next.since(now));
    if pause > every.max(LONGEST_WAIT) * 2 { Duration::ZERO } else { pause }
}

/// Returns the update that results from one request.
fn evaluate<T>(
    feed: &Feed,
    before: &Source,
    reply: Result<Reply<T>, FetchError>,
    now: Moment,
    random: f64,
) -> Update<T> {
    let mut status = Source { attempt: Some(now), ..before.clone() };
    let checked = reply.and_then(|reply| match reply {
        Reply::Fresh(parsed, validators, max_age) => {
            check(&parsed, before, now)?;
            Ok((Some((parsed, validators)), max_age))
        }
        Reply::Unchanged(max_age) => Ok((None, max_age)),
    });
    match checked {
        Ok((fresh, max_age)) => {
            let good = if fresh.is_some() { "fresh" } else { "unchanged" };
            let value = fresh.map(|(parsed, Validators { etag, last_modified })| {
                (status.etag, status.last_modified) = (etag, last_modified);
                (status.records, status.skipped) = (parsed.records, parsed.skipped);
                status.published = parsed.published;
                parsed.value
            });
            let (outcome, why) = age(status.published, feed.stale_after, now, good);
            (status.outcome, status.why) = (outcome.to_owned(), why.to_owned());
            (status.good, status.failures) = (Some(now), 0);
            status.next = Some(now.after(pause(feed.every, Ok(max_age), 0, random)));
            Update { status, value }
        }
        Err(error) => {
            status.failures += 1;
            (status.outcome, status.why) = (error.as_str().to_owned(), error.to_string());
            status.next = Some(now.after(pause(feed.every, Err(&error), status.failures, random)));
            Update { status, value: None }
        }
    }
}

#[cfg(test)]
mod tests;
