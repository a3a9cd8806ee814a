//! When a request to a source is made, and whether its answer is used.
//!
//! A complete answer can still be worse than the one before: empty, half as long, older, or unchanged for so long that it
//! must come from a stale cache. Such an answer is rejected or marked, with a reason, and the last good answer stays in
//! use. All decisions are functions of what is known and of the time ([`evaluate`], [`check`], [`pause`], [`due`]); around
//! them is a short loop that makes the requests.
//!
//! Next: `source/relays.rs` and `source/public.rs` start these and receive their updates.

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

/// The clock of the gateway's state.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The first pause after a failure; it doubles up to the source's period. A server that restarts is back by then; not
/// tuned.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// At most this share of a period is added at random: gateways that start together must not make requests together.
const SPREAD: f64 = 0.05;

/// The least time between two requests that a person triggers.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

/// A list of at least this length that halves is rejected at first. A shorter one may halve when two exits go.
const LONG_LIST: u32 = 100;

/// A halved list is accepted in this request, if the source gave nothing better in those before.
const HALVED_REQUESTS: u32 = 3;

/// Why a halved list is rejected at first.
const HALVED: Garbage = Garbage("it has less than half as many exits as before");

/// How far a source's clock may be ahead of ours before its data counts as being from the future.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// What to request, and how often.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The source's name in `/sources`, metrics and the log.
    pub name: Arc<str>,
    pub url: Uri,
    /// The least time between two requests. A longer `max-age` of the answer counts.
    pub every: Duration,
    /// The source's data is stale when it is older than this.
    pub stale_after: Duration,
    pub limits: Limits,
}

/// The result of one request.
#[derive(Clone, Debug)]
pub struct Update<T> {
    /// The source's status after it.
    pub status: Source,
    /// The source's data, if it is new and is used.
    pub value: Option<T>,
}

/// How one request to a source is made.
pub(super) trait Request: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Makes one request. `before` is the source's status so far.
    fn send(&self, before: &Source) -> impl Future<Output = Result<Reply<Self::Output>, FetchError>> + Send;
}

/// Starts requests for one document, until shutdown. `known` is the source's status of the last run. It must contain
/// validators only if the data of that time is still here, because an answer "unchanged" means that data.
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

/// Like [`start`], with any kind of request.
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

/// A source's worker.
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
                return; // the receiver is gone: the gateway stops
            }
        }
    }

    /// Waits until the next request is due, or triggered by a person.
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

/// Requests one document, and obeys its `max-age`.
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

/// An error if "unchanged" answered a request without validators.
pub(super) fn check_conditional(known: &Validators) -> Result<(), FetchError> {
    let conditional = *known != Validators::default();
    conditional.then_some(()).ok_or(Garbage("it answers `unchanged` to a request that was not conditional").into())
}

/// A source's answer.
#[derive(Debug)]
pub(super) enum Reply<T> {
    /// A document, its validators and its `max-age`.
    Fresh(Parsed<T>, Validators, Option<Duration>),
    /// The last document is still current; with its `max-age`.
    Unchanged(Option<Duration>),
}

/// The validators of the next request: none while the data is stale, because a stale cache would answer `unchanged` for
/// ever.
pub(super) fn usable_validators(status: &Source) -> Validators {
    if status.outcome == "stale" {
        return Validators::default();
    }
    Validators { etag: status.etag.clone(), last_modified: status.last_modified.clone() }
}

/// An error if a complete answer is not to be used.
fn check<T>(parsed: &Parsed<T>, before: &Source, now: Moment) -> Result<(), Garbage> {
    if parsed.records == 0 {
        return Err(Garbage("it contains no exit"));
    }
    // An earlier date from the future was the source's mistake: later answers must not look old because of it.
    let latest = before.published.filter(|published| published.since(now) <= CLOCK_SLACK);
    if parsed.published.is_some() && parsed.published < latest {
        return Err(Garbage("it is older than the answer before"));
    }
    let halved = before.records >= LONG_LIST && parsed.records < before.records / 2;
    let repeated = before.why.ends_with(HALVED.0) && before.failures + 1 >= HALVED_REQUESTS;
    if halved && !repeated { Err(HALVED) } else { Ok(()) }
}

/// The outcome of a good answer, and a remark, by the age of its data.
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

/// The pause before the next request. `random` is between 0 and 1.
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

/// How long until the next request. A time further off than any pause was noted while the clock was wrong.
fn due(status: &Source, every: Duration, now: Moment) -> Duration {
    let pause = status.next.map_or(Duration::ZERO, |next| next.since(now));
    if pause > every.max(LONGEST_WAIT) * 2 { Duration::ZERO } else { pause }
}

/// The update that follows from one request.
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
