//! When a source is asked, and what its answer is worth.
//!
//! An answer can be whole and still worth less than what we have: empty, half as long as yesterday's, older than the
//! one before, or the same for so long that it must be a cache that forgot to look. Each of these is refused or marked,
//! with its reason; what stands is always the last good answer. Everything that decides is a function of what is known
//! and of the time ([`settle`], [`weigh`], [`pause`], [`due`]); what asks and waits is a loop of ten lines around them.
//!
//! Next: `source/relays.rs` starts these and listens to them.

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

/// The process's one clock.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The first pause after a failure; it doubles up to the source's own period. Arbitrary: a server that restarts is back.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// At most this share of a period is added by chance, so that gateways started together do not ask together.
const SPREAD: f64 = 0.05;

/// The least time between two requests that a person asks for.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

/// A list at least this long that halves is not believed at once. Shorter ones halve when two exits go.
const LONG_LIST: u32 = 100;

/// A halved list is believed when it is said again and the source has brought nothing better in so many requests.
const BELIEVED: u32 = 3;

/// Why a halved list is not believed at first.
const HALVED: Garbage = Garbage("it has less than half as many exits as before");

/// How far ahead of us a source's clock may be before somebody should look at ours.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// What to ask, where and how often.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Its name in `/sources`, metrics and the log.
    pub name: Arc<str>,
    /// The whole URL.
    pub url: Uri,
    /// How often at most. A longer `max-age` of the answer counts.
    pub every: Duration,
    /// The source's data is stale when it is older than this.
    pub stale_after: Duration,
    /// What one request may take.
    pub limits: Limits,
}

/// What one request came to.
#[derive(Clone, Debug)]
pub struct Update<T> {
    /// How the source fares now.
    pub status: Source,
    /// What it says, if that is new and to be believed.
    pub news: Option<T>,
}

/// One way of asking a source once.
pub(super) trait Ask: Send + Sync + 'static {
    /// What it says.
    type Output: Send + 'static;

    /// Asks, knowing how the source fared so far.
    fn ask(&self, before: &Source) -> impl Future<Output = Result<Reply<Self::Output>, FetchError>> + Send;
}

/// Starts asking for one document, until shutdown. `known` is what is remembered of the source; its marks must be gone
/// from it unless what it said then is still here, because an answer of "unchanged" will be taken for that.
pub fn start<P: Parse + 'static, C: Connect>(
    feed: Feed,
    client: Client<C>,
    known: Option<Source>,
    clock: Clock,
    tasks: &Tasks,
    updates: mpsc::Sender<Update<P::Output>>,
) -> Handle {
    let get = Get::<P, C> { url: feed.url.clone(), limits: feed.limits, client, parser: PhantomData };
    start_asking(feed, get, known, clock, tasks, updates)
}

/// The same for whatever way of asking.
pub(super) fn start_asking<A: Ask>(
    feed: Feed,
    ask: A,
    known: Option<Source>,
    clock: Clock,
    tasks: &Tasks,
    updates: mpsc::Sender<Update<A::Output>>,
) -> Handle {
    let (handle, status) = Handle::new(&feed.name, known);
    let course = Arc::new(Course { feed, ask, status, refresh: handle.refresh.clone(), clock });
    let stopping = tasks.clone();
    tasks.supervise("source", move || {
        let (course, updates, stopping) = (course.clone(), updates.clone(), stopping.clone());
        async move {
            tokio::select! {
                () = stopping.stopping() => {}
                () = course.run(&updates) => {}
            }
        }
    });
    handle
}

/// A source's worker.
struct Course<A> {
    feed: Feed,
    ask: A,
    status: watch::Sender<Source>,
    refresh: Arc<Notify>,
    clock: Clock,
}

impl<A: Ask> Course<A> {
    async fn run(&self, updates: &mpsc::Sender<Update<A::Output>>) {
        loop {
            self.wait().await;
            let before = self.status.borrow().clone();
            let answer = self.ask.ask(&before).await;
            let update = settle(&self.feed, &before, answer, (self.clock)(), rand::rng().random_range(0.0..1.0));
            report(&before, &update.status);
            self.status.send_replace(update.status.clone());
            if updates.send(update).await.is_err() {
                return; // nobody listens: the gateway ends
            }
        }
    }

    /// Until the next request is due or wished for.
    async fn wait(&self) {
        let (now, status) = ((self.clock)(), self.status.borrow().clone());
        let calm = status.attempt.map_or(now, |attempt| attempt.after(REFRESH_PAUSE)).since(now).min(REFRESH_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(due(&status, self.feed.every, now)) => {}
            () = async {
                self.refresh.notified().await;
                tokio::time::sleep(calm).await;
            } => {}
        }
    }
}

/// Asks for one document, whose own word on how long it stays fresh counts.
struct Get<P, C> {
    url: Uri,
    limits: Limits,
    client: Client<C>,
    parser: PhantomData<fn() -> P>,
}

impl<P: Parse + 'static, C: Connect> Ask for Get<P, C> {
    type Output = P::Output;

    async fn ask(&self, before: &Source) -> Result<Reply<P::Output>, FetchError> {
        let known = usable_validators(before);
        let mut parser = P::default();
        let mut feed = |bytes: &[u8]| parser.feed(bytes);
        match self.client.get(&self.url, &known, self.limits, &mut feed).await? {
            Answer::Fresh { validators, max_age } => Ok(Reply::Fresh(parser.finish()?, validators, max_age)),
            Answer::Unchanged { max_age } => unasked(&known).map(|()| Reply::Unchanged(max_age)),
        }
    }
}

/// "Unchanged" answers conditional questions only.
pub(super) fn unasked(known: &Validators) -> Result<(), FetchError> {
    let conditional = *known != Validators::default();
    conditional.then_some(()).ok_or(Garbage("it says `unchanged` to a question that was not conditional").into())
}

/// What came back.
#[derive(Debug)]
pub(super) enum Reply<T> {
    /// A document, its marks, and how long it stays fresh.
    Fresh(Parsed<T>, Validators, Option<Duration>),
    /// What it said last still holds, and for how long.
    Unchanged(Option<Duration>),
}

/// The marks to ask with: none while the data is stale, lest a cache that forgot to look says `unchanged` for ever.
pub(super) fn usable_validators(status: &Source) -> Validators {
    if status.outcome == "stale" {
        return Validators::default();
    }
    Validators { etag: status.etag.clone(), last_modified: status.last_modified.clone() }
}

/// What is wrong with an answer that is whole, if something is.
fn weigh<T>(parsed: &Parsed<T>, before: &Source, now: Moment) -> Result<(), Garbage> {
    if parsed.records == 0 {
        return Err(Garbage("no exit is in it"));
    }
    // A date from the future was a slip of theirs; it must not make everything after it look old.
    let credible = before.published.filter(|published| published.since(now) <= CLOCK_SLACK);
    if parsed.published.is_some() && parsed.published < credible {
        return Err(Garbage("it is older than what it said before"));
    }
    let halved = before.records >= LONG_LIST && parsed.records < before.records / 2;
    let insisted = before.why.ends_with(HALVED.0) && before.failures + 1 >= BELIEVED;
    if halved && !insisted { Err(HALVED) } else { Ok(()) }
}

/// How old the data is: what that makes of a good answer, and what to say of it.
fn age(
    published: Option<Moment>,
    stale_after: Duration,
    now: Moment,
    good: &'static str,
) -> (&'static str, &'static str) {
    let Some(published) = published else { return (good, "") };
    if now.since(published) > stale_after {
        return ("stale", "its data is old: the source has stopped, or this machine's clock is ahead");
    }
    if published.since(now) > CLOCK_SLACK {
        return (good, "its data is from the future: this machine's clock is behind");
    }
    (good, "")
}

/// The pause before the next request. `chance` is between 0 and 1.
fn pause(every: Duration, outcome: Result<Option<Duration>, &FetchError>, failures: u32, chance: f64) -> Duration {
    match outcome {
        Ok(max_age) => every.max(max_age.unwrap_or_default()) + every.mul_f64(SPREAD * chance),
        Err(error) => {
            let grown = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
            let asked = match error {
                FetchError::Status { retry_after: Some(wait), .. } => *wait + FIRST_PAUSE.mul_f64(chance),
                _ => Duration::ZERO,
            };
            asked.max(grown.min(every).mul_f64(0.75 + 0.5 * chance))
        }
    }
}

/// How long it is until the next request. One that is further off than any pause was noted by a clock that was wrong.
fn due(status: &Source, every: Duration, now: Moment) -> Duration {
    let pause = status.next.map_or(Duration::ZERO, |next| next.since(now));
    if pause > every.max(LONGEST_WAIT) * 2 { Duration::ZERO } else { pause }
}

/// Everything that follows from one request.
fn settle<T>(
    feed: &Feed,
    before: &Source,
    answer: Result<Reply<T>, FetchError>,
    now: Moment,
    chance: f64,
) -> Update<T> {
    let mut status = Source { attempt: Some(now), ..before.clone() };
    let weighed = answer.and_then(|reply| match reply {
        Reply::Fresh(parsed, validators, max_age) => {
            weigh(&parsed, before, now)?;
            Ok((Some((parsed, validators)), max_age))
        }
        Reply::Unchanged(max_age) => Ok((None, max_age)),
    });
    match weighed {
        Ok((fresh, max_age)) => {
            let good = if fresh.is_some() { "fresh" } else { "unchanged" };
            let news = fresh.map(|(parsed, Validators { etag, last_modified })| {
                (status.etag, status.last_modified) = (etag, last_modified);
                (status.records, status.skipped) = (parsed.records, parsed.skipped);
                status.published = parsed.published;
                parsed.value
            });
            let (outcome, why) = age(status.published, feed.stale_after, now, good);
            (status.outcome, status.why) = (outcome.to_owned(), why.to_owned());
            (status.good, status.failures) = (Some(now), 0);
            status.next = Some(now.after(pause(feed.every, Ok(max_age), 0, chance)));
            Update { status, news }
        }
        Err(error) => {
            status.failures += 1;
            (status.outcome, status.why) = (error.as_str().to_owned(), error.to_string());
            status.next = Some(now.after(pause(feed.every, Err(&error), status.failures, chance)));
            Update { status, news: None }
        }
    }
}

#[cfg(test)]
mod tests;
