//! When a source is asked, and what its answer is worth.
//!
//! An answer can be whole and still worth less than what we have: empty, half as long as yesterday's, older than the
//! one before, or the same for so long that it must be a cache that forgot to look. Each of these is refused or marked,
//! with its reason; what stands is always the last good answer. Everything that decides is [`weigh`] and [`pause`],
//! which know no clock and no network.
//!
//! Next: [`crate::app`] starts a [`Poller`] a source and hands its updates to [`crate::state`].

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rand::RngExt;
use tokio::sync::{Notify, mpsc, watch};

use super::fetch::{Answer, Client, Connect, FetchError, Limits, Validators};
use super::{Garbage, Parse, Parsed};
use crate::exit::{Listing, Moment};
use crate::lifecycle::Tasks;
use crate::store::{self, Source, Write};
use crate::telemetry::metrics as names;

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

/// So many answers in a row that say the same of a halved list are believed.
const BELIEVED: u32 = 3;

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

impl Update<Vec<Listing>> {
    /// What to write of it. One change: the marks that make the next request conditional must not outlive the exits
    /// that they stand for.
    pub fn writes(&self, now: Moment) -> Vec<Write> {
        let exits =
            self.news.iter().flatten().map(|listing| {
                Write::PutExit(store::Exit { listing: listing.clone(), first_seen: now, last_seen: now })
            });
        exits.chain([Write::PutSource(self.status.clone())]).collect()
    }
}

/// A handle on a source that is asked again and again.
#[derive(Clone, Debug)]
pub struct Poller {
    status: watch::Receiver<Source>,
    refresh: Arc<Notify>,
}

impl Poller {
    /// Starts asking. `known` is what the store remembers of the source; pass it only if what it said then is still
    /// here, because an answer of "unchanged" will be taken for it.
    pub fn start<P: Parse + 'static, C: Connect>(
        feed: Feed,
        client: Client<C>,
        known: Option<Source>,
        clock: Clock,
        tasks: &Tasks,
        updates: mpsc::Sender<Update<P::Output>>,
    ) -> Self {
        let fresh = || Source { name: feed.name.to_string(), outcome: "never".to_owned(), ..Source::default() };
        let (tell, status) = watch::channel(known.unwrap_or_else(fresh));
        let (tell, refresh) = (Arc::new(tell), Arc::new(Notify::new()));
        let poller = Self { status, refresh: refresh.clone() };
        let stopping = tasks.clone();
        tasks.supervise("source", move || {
            let course = Course {
                feed: feed.clone(),
                client: client.clone(),
                status: tell.clone(),
                refresh: refresh.clone(),
                clock: clock.clone(),
            };
            let (updates, stopping) = (updates.clone(), stopping.clone());
            async move {
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = course.run::<P>(&updates) => {}
                }
            }
        });
        poller
    }

    /// How the source fares, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<Source> {
        self.status.clone()
    }

    /// Asks now rather than when it is due (but not twice within a minute).
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }
}

/// One run of a source's worker.
struct Course<C> {
    feed: Feed,
    client: Client<C>,
    status: Arc<watch::Sender<Source>>,
    refresh: Arc<Notify>,
    clock: Clock,
}

impl<C: Connect> Course<C> {
    async fn run<P: Parse>(&self, updates: &mpsc::Sender<Update<P::Output>>) {
        loop {
            self.wait().await;
            let before = self.status.borrow().clone();
            let validators = usable_validators(&before);
            let answer = self.ask::<P>(&validators).await;
            let update = settle(&self.feed, &before, answer, (self.clock)(), rand::rng().random_range(0.0..1.0));
            self.tell(&before, &update.status);
            self.status.send_replace(update.status.clone());
            if updates.send(update).await.is_err() {
                return; // nobody listens: the gateway ends
            }
        }
    }

    /// Until the next request is due or wished for.
    async fn wait(&self) {
        let (now, status) = ((self.clock)(), self.status.borrow().clone());
        let due = status.next.filter(|next| next.since(now) <= self.feed.every * 2).unwrap_or(now);
        let calm = status.attempt.map_or(now, |attempt| attempt.after(REFRESH_PAUSE)).since(now).min(REFRESH_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(due.since(now)) => {}
            () = async {
                self.refresh.notified().await;
                tokio::time::sleep(calm).await;
            } => {}
        }
    }

    async fn ask<P: Parse>(&self, known: &Validators) -> Result<Reply<P::Output>, FetchError> {
        let mut parser = P::default();
        let mut feed = |bytes: &[u8]| parser.feed(bytes);
        match self.client.get(&self.feed.url, known, self.feed.limits, &mut feed).await? {
            Answer::Fresh { validators, max_age } => Ok(Reply::Fresh(parser.finish()?, validators, max_age)),
            Answer::Unchanged { .. } if *known == Validators::default() => {
                Err(Garbage("it says `unchanged` to a question that was not conditional").into())
            }
            Answer::Unchanged { max_age } => Ok(Reply::Unchanged(max_age)),
        }
    }

    /// Says in metrics what happened, and in the log what changed.
    fn tell(&self, before: &Source, now: &Source) {
        let name = self.feed.name.to_string();
        metrics::counter!(names::SOURCE_REQUESTS, "source" => name.clone(), "outcome" => now.outcome.clone())
            .increment(1);
        metrics::gauge!(names::SOURCE_RECORDS, "source" => name.clone()).set(now.records);
        if let Some(good) = now.good {
            metrics::gauge!(names::SOURCE_GOOD, "source" => name).set(good.0 as f64 / 1e6);
        }
        let (source, outcome) = (&now.name, &now.outcome);
        match (now.why.as_str(), before.outcome == now.outcome) {
            ("", true) => tracing::debug!(source, outcome, records = now.records, "asked a source"),
            ("", false) => {
                tracing::info!(source, outcome, records = now.records, skipped = now.skipped, "a source answers")
            }
            (why, true) => tracing::debug!(source, outcome, why, "a source still gives no good answer"),
            (why, false) => {
                tracing::warn!(source, outcome, why, "a source gives no good answer; what it last said stands")
            }
        }
    }
}

/// What came back.
#[derive(Debug)]
enum Reply<T> {
    Fresh(Parsed<T>, Validators, Option<Duration>),
    Unchanged(Option<Duration>),
}

/// The marks to ask with: none while the data is stale, lest a cache that forgot to look says `unchanged` for ever.
fn usable_validators(status: &Source) -> Validators {
    if status.outcome == "stale" {
        return Validators::default();
    }
    Validators { etag: status.etag.clone(), last_modified: status.last_modified.clone() }
}

/// What is wrong with an answer that is whole, if something is.
fn weigh<T>(parsed: &Parsed<T>, before: &Source) -> Result<(), Garbage> {
    if parsed.records == 0 {
        return Err(Garbage("no exit is in it"));
    }
    if parsed.published.is_some() && parsed.published < before.published {
        return Err(Garbage("it is older than what it said before"));
    }
    let halved = before.records >= LONG_LIST && parsed.records < before.records / 2;
    if halved && before.failures + 1 < BELIEVED {
        return Err(Garbage("it has less than half as many exits as before"));
    }
    Ok(())
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
        Err(FetchError::Status { retry_after: Some(wait), .. }) => *wait + FIRST_PAUSE.mul_f64(chance),
        Err(_) => {
            let grown = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
            grown.min(every).mul_f64(0.75 + 0.5 * chance)
        }
    }
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
            weigh(&parsed, before)?;
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
