//! One round of one exit: its echo probes, then, if it works, the sites that routes ask for.
//!
//! The verdict on the exit goes out before the sites are asked, because a live request may be waiting for it. Probes of
//! one step run side by side: a round takes as long as its slowest probe, not as their sum.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::fault::{Fault, Whose};
use super::probe::{self, Answer, Page};
use super::site::{self, Miss};
use super::tamper_check::{Digest, digest};
use super::verdict::{self, Conclusion, EchoReply, ProbeResult};
use super::{CheckedSite, ExitDialer, Settings, echo};
use crate::exit::ExitId;
use crate::store::Timings;

/// How often a page is asked for that somebody does not get. A second time, because exits lose a connection now and then.
const ATTEMPTS: u32 = 2;

/// What to test.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) exit: ExitId,
    /// Echo servers in service, the first to ask first.
    pub(super) echoes: Vec<usize>,
    /// Which of all echo servers are known to repeat a nonce.
    pub(super) repeats: Vec<bool>,
    /// The page that is the same for everybody to look at, and what it is, if that is known.
    pub(super) canary: Option<(usize, Option<Digest>)>,
    /// Sites to ask.
    pub(super) sites: Vec<usize>,
    /// Pages that somebody wants to have asked through this exit, this once.
    pub(super) extra: Vec<Arc<CheckedSite>>,
}

/// What a canary was seen as.
#[derive(Clone, Debug)]
pub(super) struct TamperRound {
    pub(super) canary: usize,
    pub(super) digest: Digest,
    /// It is another than was known before, and was so twice.
    pub(super) changed: bool,
}

/// One echo probe.
#[derive(Clone, Debug)]
pub(super) struct EchoProbe {
    pub(super) result: ProbeResult,
    pub(super) timings: Timings,
    /// Whether the answer repeated our nonce, if there was one.
    pub(super) repeated: Option<bool>,
}

/// What the echo probes came to.
#[derive(Clone, Debug)]
pub(super) struct EchoRound {
    pub(super) conclusion: Conclusion,
    pub(super) probes: Vec<EchoProbe>,
}

/// What one site answered in the end.
#[derive(Clone, Debug)]
pub(super) struct SiteRound {
    /// `None`: what failed was ours.
    pub(super) result: Option<Result<(), Miss>>,
    pub(super) status: Option<u16>,
    pub(super) timings: Timings,
}

/// What a round finds, as it finds it.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    Echoes(EchoRound),
    Tamper(TamperRound),
    /// A site of the configuration, by its place there.
    Site(usize, SiteRound),
    /// A page that was asked this once.
    Extra(Arc<str>, SiteRound),
}

/// Tests one exit.
pub(super) async fn run<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job, mut found: impl FnMut(Finding)) {
    let echoes = hear(dialer, settings, job).await;
    let good = matches!(echoes.conclusion, Conclusion::Good(_));
    found(Finding::Echoes(echoes));
    if good {
        // One after another: what no request waits for need not hurry, and an exit may limit streams.
        if let Some((canary, truth)) = job.canary
            && let Some(seen) = look(dialer, settings, &job.exit, canary, truth).await
        {
            found(Finding::Tamper(seen));
        }
        for site in &job.sites {
            let round = visit(dialer, settings, &job.exit, &settings.sites[*site]).await;
            found(Finding::Site(*site, round));
        }
        for extra in &job.extra {
            let round = visit(dialer, settings, &job.exit, extra).await;
            found(Finding::Extra(extra.name.clone(), round));
        }
    }
}

async fn hear<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job) -> EchoRound {
    let mut probes: Vec<EchoProbe> = Vec::with_capacity(settings.terms.probes);
    loop {
        let heard: Vec<ProbeResult> = probes.iter().map(|probe| probe.result).collect();
        if let Some(conclusion) = verdict::rule(&heard, settings.terms, job.echoes.len()) {
            return EchoRound { conclusion, probes };
        }
        let asks = verdict::next(&heard, settings.terms, &job.echoes);
        if asks.is_empty() {
            return EchoRound { conclusion: Conclusion::Bad(verdict::Why::Disagree), probes };
        }
        probes.extend(all(asks.into_iter().map(|echo| ask_echo(dialer, settings, job, echo)).collect()).await);
    }
}

async fn ask_echo<D: ExitDialer>(dialer: &D, settings: &Settings, job: &Job, echo: usize) -> EchoProbe {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let page = settings.echoes[echo].with_nonce(&nonce);
    let mut timings = Timings::default();
    let answer = probe(dialer, settings, &job.exit, &page, &mut timings).await;
    let read = answer.and_then(|answer| read_echo(&answer, &nonce));
    let repeated = match read {
        Ok((_, repeated)) => Some(repeated),
        Err(Fault::Canned) => Some(false),
        Err(_) => None,
    };
    let outcome = match read {
        Ok((_, false)) if job.repeats[echo] => Err(Fault::Canned),
        Ok((ip, _)) => Ok(EchoReply { ip, vouched: page.tls.is_some() }),
        Err(fault) => Err(fault),
    };
    EchoProbe { result: ProbeResult { echo, outcome }, timings, repeated }
}

/// The address, and whether the answer repeats the nonce. One that repeats another was made for somebody else.
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

/// Looks at a canary; again if it is not what it should be. `None` if nothing can be said: half a page is no other page.
async fn look<D: ExitDialer>(
    dialer: &D,
    settings: &Settings,
    exit: &ExitId,
    canary: usize,
    truth: Option<Digest>,
) -> Option<TamperRound> {
    let mut seen = None;
    for _ in 0..ATTEMPTS {
        let answer = probe(dialer, settings, exit, &settings.canaries[canary], &mut Timings::default()).await.ok()?;
        let digest = digest(&answer)?;
        let changed = truth.is_some_and(|truth| truth != digest);
        seen = Some(TamperRound { canary, digest, changed });
        if !changed {
            break;
        }
    }
    seen
}

async fn visit<D: ExitDialer>(dialer: &D, settings: &Settings, exit: &ExitId, checked: &CheckedSite) -> SiteRound {
    let mut round = SiteRound { result: None, status: None, timings: Timings::default() };
    for _ in 0..ATTEMPTS {
        round.timings = Timings::default();
        let answer = probe(dialer, settings, exit, &checked.page, &mut round.timings).await;
        round.status = answer.as_ref().ok().map(|answer| answer.status);
        let took = took(&round.timings);
        let result = answer.map_err(Miss::Fault).and_then(|answer| site::meets(&checked.target, &answer, took));
        let ours = matches!(result, Err(Miss::Fault(fault)) if fault.whose() == Whose::Ours);
        round.result = (!ours).then_some(result);
        if matches!(result, Ok(())) {
            break;
        }
    }
    round
}

/// What a probe took of the exit's time: circuits are built at our own pace.
fn took(timings: &Timings) -> Duration {
    timings.total.unwrap_or_default().saturating_sub(timings.circuit.unwrap_or_default())
}

/// One probe, from the stream's opening to the end of the answer.
async fn probe<D: ExitDialer>(
    dialer: &D,
    settings: &Settings,
    exit: &ExitId,
    page: &Page,
    timings: &mut Timings,
) -> Result<Answer, Fault> {
    let begun = Instant::now();
    let opened = dialer.open(exit, &page.target, settings.timeout).await?;
    (timings.circuit, timings.connect) = (opened.circuit, Some(opened.connect));
    let deadline = Instant::now() + settings.timeout.saturating_sub(opened.connect);
    let answer = probe::ask(opened.stream, page, &settings.tls, deadline, timings).await;
    timings.total = Some(begun.elapsed());
    answer
}

/// Runs futures side by side in this task, and answers in their order.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
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
