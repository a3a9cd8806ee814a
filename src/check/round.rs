//! One check of one Tor exit. First the check makes echo probes, which are requests to servers that answer with the
//! address they see. Then, if the exit works, it requests the sites that routes name.
//!
//! The verdict on the exit is reported before the sites are requested, because a live request may wait for the verdict.
//! The probes of one step run at the same time, so a step takes as long as its slowest probe.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::fault::{Blame, Fault};
use super::probe::{self, Answer, Page};
use super::site::{self, SiteFailure};
use super::tamper_check::{Digest, digest};
use super::verdict::{self, Conclusion, EchoReply, ProbeResult};
use super::{CheckedSite, ExitDialer, Settings, Wait, echo};
use crate::exit::ExitId;
use crate::store::Timings;

/// How many times a page is requested at most, until the answer is as expected. The value is two, because exits
/// sometimes lose a connection.
const ATTEMPTS: u32 = 2;

/// What to request in one check of an exit. Pages are given by their index in the settings.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) exit: ExitId,
    /// True if a client waits for the result, because the exit was never found good.
    pub(super) awaited: bool,
    /// The echo servers that work, in the order in which to use them.
    pub(super) echoes: Vec<usize>,
    /// For each echo server in the settings: true if the server is known to repeat the nonce of a request.
    pub(super) repeats: Vec<bool>,
    /// The canaries (pages that are the same for all clients) to fetch, each with its digest if the digest is known.
    pub(super) canaries: Vec<(usize, Option<Digest>)>,
    pub(super) sites: Vec<usize>,
    /// Pages that callers want to request through this exit once.
    pub(super) extra: Vec<Arc<CheckedSite>>,
}

impl Job {
    fn wait(&self, settings: &Settings) -> Wait {
        Wait { timeout: settings.timeout, awaited: self.awaited }
    }
}

/// The result of fetching a canary (a page that is the same for all clients) through an exit.
#[derive(Clone, Debug)]
pub(super) struct TamperRound {
    pub(super) canary: usize,
    pub(super) digest: Digest,
    /// True if the digest differed from the known digest in both attempts.
    pub(super) changed: bool,
}

/// The result of one echo probe.
#[derive(Clone, Debug)]
pub(super) struct EchoProbe {
    pub(super) result: ProbeResult,
    pub(super) timings: Timings,
    /// Whether the answer repeated our nonce. `None` if there was no answer.
    pub(super) repeated: Option<bool>,
}

/// All echo probes of a check, and the conclusion from them.
#[derive(Clone, Debug)]
pub(super) struct EchoRound {
    pub(super) conclusion: Conclusion,
    pub(super) probes: Vec<EchoProbe>,
}

/// The result of one site: of the first attempt that passed, or of the last attempt if none passed.
#[derive(Clone, Debug)]
pub(super) struct SiteRound {
    /// Whether the exit passed the site. `None` if one of the gateway's own engines failed, which says nothing about
    /// the exit.
    pub(super) result: Option<Result<(), SiteFailure>>,
    pub(super) status: Option<u16>,
    pub(super) timings: Timings,
}

/// A part of the results of a check, which is reported immediately.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    Echoes(EchoRound),
    Tamper(TamperRound),
    /// The result of a site in the settings, with its index there.
    Site(usize, SiteRound),
    /// The result of a page that a caller requested, with the page's name.
    Extra(Arc<str>, SiteRound),
}

/// Checks one exit, and calls `found` with each part of the result.
pub(super) async fn run<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job, mut found: impl FnMut(Finding)) {
    let echoes = ask_echoes(dialer, settings, job).await;
    let good = matches!(echoes.conclusion, Conclusion::Good(_));
    found(Finding::Echoes(echoes));
    if good {
        // The canaries (pages that show tampering) are requested one after another, because no live request waits for
        // these results, and an exit may limit its streams.
        for (canary, truth) in &job.canaries {
            if let Some(seen) = fetch_canary(dialer, settings, job, *canary, *truth).await {
                found(Finding::Tamper(seen));
            }
        }
        for site in &job.sites {
            let round = ask_site(dialer, settings, job, &settings.sites[*site]).await;
            found(Finding::Site(*site, round));
        }
        for extra in &job.extra {
            let round = ask_site(dialer, settings, job, extra).await;
            found(Finding::Extra(extra.name.clone(), round));
        }
    }
}

async fn ask_echoes<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job) -> EchoRound {
    let mut probes: Vec<EchoProbe> = Vec::with_capacity(settings.terms.probes);
    loop {
        let results: Vec<ProbeResult> = probes.iter().map(|probe| probe.result).collect();
        if let Some(conclusion) = verdict::conclude(&results, settings.terms, job.echoes.len()) {
            let online = first_hop_answers(dialer, settings, job, &conclusion, &results).await;
            let conclusion = verdict::unless_offline(conclusion, online);
            tracing::debug!(?conclusion, probes = probes.len(), "the echo probes have ended");
            return EchoRound { conclusion, probes };
        }
        let next = verdict::next(&results, settings.terms, &job.echoes);
        if next.is_empty() {
            return EchoRound { conclusion: Conclusion::Bad(verdict::BadReason::Disagree), probes };
        }
        probes.extend(join_all(next.into_iter().map(|echo| ask_echo(dialer, settings, job, echo)).collect()).await);
    }
}

/// Returns true if the first relay of the circuits answers. If nothing arrived from this relay lately, one more stream
/// is opened through the exit. The reason: while the gateway is idle, nothing else makes the first relay answer, and a
/// silent exit would then never become bad.
async fn first_hop_answers<D: ExitDialer>(
    dialer: &D,
    settings: &Settings,
    job: &Job,
    conclusion: &Conclusion,
    results: &[ProbeResult],
) -> bool {
    let now = Instant::now();
    if now.checked_sub(settings.timeout / 2).is_none_or(|since| dialer.first_hop_answered(since)) {
        return true;
    }
    if verdict::unless_offline(conclusion.clone(), false) == *conclusion {
        return false; // an answer of the first relay would not change the conclusion
    }
    let Some(failed) = results.iter().find(|result| result.outcome.is_err()) else { return false };
    let opened = dialer.open(&job.exit, &settings.echoes[failed.echo].target, job.wait(settings)).await;
    opened.is_ok() || dialer.first_hop_answered(now)
}

async fn ask_echo<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job, echo: usize) -> EchoProbe {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let page = settings.echoes[echo].with_nonce(&nonce);
    let mut timings = Timings::default();
    let answer = probe(dialer, settings, job, &page, &mut timings).await;
    let read = answer.and_then(|answer| read_echo(&answer, &nonce));
    let repeated = match read {
        Ok((_, repeated)) => Some(repeated),
        Err(Fault::Canned) => Some(false),
        Err(_) => None,
    };
    let outcome = match read {
        Ok((_, false)) if job.repeats[echo] => Err(Fault::Canned),
        Ok((ip, _)) => Ok(EchoReply { ip, authentic: page.tls.is_some() }),
        Err(fault) => Err(fault),
    };
    EchoProbe { result: ProbeResult { echo, outcome }, timings, repeated }
}

/// Returns the address in an echo server's answer, and true if the answer repeats the nonce of the request. An answer
/// that repeats another nonce was made for another request, and is an error.
pub(super) fn read_echo(answer: &Answer, nonce: &str) -> Result<(IpAddr, bool), Fault> {
    if answer.status != 200 {
        return Err(Fault::Status(answer.status));
    }
    let echoed = echo::read(&answer.body).ok_or(Fault::NoAddress)?;
    let header = answer.headers.get("x-nonce").and_then(|value| value.to_str().ok());
    match header.or(echoed.nonce.as_deref()) {
        Some(repeated) if repeated == nonce => Ok((echoed.ip, true)),
        Some(_) => Err(Fault::Canned),
        None => Ok((echoed.ip, false)),
    }
}

/// Fetches a canary (a page that is the same for all clients), and fetches it a second time if its digest differs from
/// the known digest. Returns `None` if the page did not arrive completely, which is no sign of tampering.
async fn fetch_canary<D: ExitDialer>(
    dialer: &D,
    settings: &Settings,
    job: &Job,
    canary: usize,
    truth: Option<Digest>,
) -> Option<TamperRound> {
    let mut seen = None;
    for _ in 0..ATTEMPTS {
        let answer = probe(dialer, settings, job, &settings.canaries[canary], &mut Timings::default()).await.ok()?;
        let digest = digest(&answer)?;
        let changed = truth.is_some_and(|truth| truth != digest);
        seen = Some(TamperRound { canary, digest, changed });
        if !changed {
            break;
        }
    }
    seen
}

async fn ask_site<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job, checked: &CheckedSite) -> SiteRound {
    let mut round = SiteRound { result: None, status: None, timings: Timings::default() };
    for _ in 0..ATTEMPTS {
        round.timings = Timings::default();
        let answer = probe(dialer, settings, job, &checked.page, &mut round.timings).await;
        round.status = answer.as_ref().ok().map(|answer| answer.status);
        let took = took(&round.timings);
        let result = answer.map_err(SiteFailure::Fault).and_then(|answer| site::expect(&checked.target, &answer, took));
        let ours = matches!(result, Err(SiteFailure::Fault(fault)) if fault.blame() == Blame::Ours);
        tracing::debug!(site = %checked.name, ?result, "a site was asked");
        round.result = (!ours).then_some(result);
        if matches!(result, Ok(())) {
            break;
        }
    }
    round
}

/// Returns how long a probe took, without the wait for its circuit, because that wait depends on our own engines.
fn took(timings: &Timings) -> Duration {
    timings.total.unwrap_or_default().saturating_sub(timings.circuit.unwrap_or_default())
}

/// Runs one probe, from the opening of the stream to the end of the answer.
async fn probe<D: ExitDialer>(
    dialer: &D,
    settings: &Settings,
    job: &Job,
    page: &Page,
    timings: &mut Timings,
) -> Result<Answer, Fault> {
    let begun = Instant::now();
    let opened = dialer.open(&job.exit, &page.target, job.wait(settings)).await;
    let opened =
        opened.inspect_err(|error| tracing::debug!(host = %page.target.host, %error, "a probe got no stream"))?;
    (timings.circuit, timings.connect) = (opened.circuit, Some(opened.connect));
    let deadline = Instant::now() + settings.timeout.saturating_sub(opened.connect);
    let answer = probe::ask(opened.stream, page, &settings.tls, deadline, timings).await;
    timings.total = Some(begun.elapsed());
    match &answer {
        Ok(answer) => tracing::debug!(host = %page.target.host, status = answer.status, "a probe was answered"),
        Err(fault) => tracing::debug!(host = %page.target.host, %fault, "a probe got no answer"),
    }
    answer
}

/// Runs futures at the same time in this task, and returns their results in the order of the futures.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<(Pin<Box<F>>, Option<F::Output>)> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(done) => *output = Some(done),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
