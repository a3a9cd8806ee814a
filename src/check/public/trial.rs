//! One test of one proxy, step by step. The cheapest step is first, and the test ends at the first step that fails.
//!
//! Most proxies are dead, and their test ends after one connection. For the other proxies, the steps find out: whether
//! the proxy returns an answer to our request, whether it opens tunnels and leaves TLS inside them unchanged, from
//! which address its traffic leaves, what it adds to requests, and whether it changes pages.
//!
//! An HTTP proxy may forward plain requests instead of opening a tunnel for them. If it would forward a client's plain
//! requests, it is tested with forwarded requests too, because it can change only what it forwards.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::fault::{Blame, Fault};
use super::super::probe::{self, Answer, Page};
use super::super::round::read_echo;
use super::super::tamper_check::{Digest, digest};
use super::report::{Echo, Job, Outcome, RejectReason, Report, Subject, Test, Works};
use super::settings::Settings;
use super::{anonymity, report};
use crate::dial::public::{Reach, Way, authorization, forward, tunnel};
use crate::dial::{DialError, EngineFault, ExitFault, Stream, tor};
use crate::exit::{Anonymity, Protocol, Through};
use crate::limit::target::{Rules, Scope, scope};
use crate::route::Isolation;
use crate::store::Timings;
use crate::tor::Tor;

/// The isolation of checks: checks share circuits with one another, and with no client.
const CHECKS: Isolation = Isolation(u64::from_be_bytes(*b"publicck"));

/// The number of relays in a circuit, for proxies that are reached through Tor.
const HOPS: u8 = 3;

/// How long a test waits for a circuit to the Tor exit, if the proxy is reached through Tor. Checks of Tor exits wait
/// equally long.
const CIRCUIT: Duration = Duration::from_secs(60);

/// How the tester reaches proxies.
pub struct ProxyDialer {
    /// Which addresses a proxy may have.
    pub rules: Rules,
    /// The Tor engines, for proxies that are reached through Tor.
    pub tor: Option<Tor>,
}

/// How a page is requested through a proxy: in a tunnel, or as a forwarded request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tunnel,
    Forward,
}

/// Why a page did not arrive. `opened` is true if there was a stream to the server of the page, or to a proxy that
/// forwards.
struct PageError {
    fault: Fault,
    opened: bool,
}

/// A page that arrived, and how long its request took.
struct PageAnswer {
    answer: Answer,
    /// The time from the start of the connection to the proxy until the stream to the target was open.
    connect: Duration,
    /// The time from the start of the connection to the proxy until the answer was complete.
    took: Duration,
}

/// The answer of an echo server. `connect` and `took` have the same meaning as in [`PageAnswer`].
struct EchoReply {
    ip: IpAddr,
    connect: Duration,
    took: Duration,
}

struct Trial<'a> {
    dialer: &'a ProxyDialer,
    settings: &'a Settings,
    subject: &'a Subject,
    echoes: &'a report::Echoes,
    answers: Vec<(Echo, Result<bool, Fault>)>,
    canary: Option<(usize, Digest, bool)>,
    timings: Timings,
}

/// Tests one proxy, and returns the report.
pub(super) async fn run(dialer: &ProxyDialer, settings: &Settings, job: Job) -> Report {
    let Job { subject, test, echoes } = &job;
    let (answers, timings) = (Vec::new(), Timings::default());
    let mut trial = Trial { dialer, settings, subject, echoes, answers, canary: None, timings };
    let outcome = match test {
        Test::First { canary } => match trial.first(*canary).await {
            Ok(works) => Outcome::Works(works),
            Err(RejectReason::Fault(fault)) if fault.blame() == Blame::Ours => Outcome::Open(fault),
            Err(why) => Outcome::Fails(why),
        },
        Test::Long { tls } => trial.long(*tls).await,
    };
    let Trial { answers, canary, timings, .. } = trial;
    tracing::debug!(?outcome, "the test of a public proxy has ended");
    Report { outcome, answers, canary, timings }
}

impl Trial<'_> {
    async fn first(&mut self, canary: Option<(usize, Option<Digest>)>) -> Result<Works, RejectReason> {
        let plain = self.ask_plain_echo().await?;
        let secure = self.ask_secure_echo().await?;
        let ips = self.addresses(plain.as_ref(), secure.as_ref()).await?;
        let inner = ips.iter().any(|ip| scope(*ip) != Scope::Public);
        if inner && !self.settings.private {
            return Err(RejectReason::Disagree);
        }
        let mode = if plain.is_some() { self.plain_mode() } else { Mode::Tunnel };
        let tunnels = secure.is_some() || self.plain_mode() == Mode::Tunnel || self.opens_plain_tunnels().await;
        let anonymity = self.anonymity(mode, &ips).await;
        if let Some((page, truth)) = canary {
            self.fetch_canary(mode, page, truth).await?;
        }
        let tls = secure.is_some();
        // `took` (the time of a whole request) is that of the request without TLS if there was one, so the times of all
        // proxies can be compared. `connect` is the time in which a tunnel was opened, if there was a tunnel, because
        // clients wait for the opening of a tunnel.
        let connect = secure.as_ref().or(plain.as_ref()).map(|reply| reply.connect).unwrap_or_default();
        let took = plain.as_ref().or(secure.as_ref()).map(|reply| reply.took).unwrap_or_default();
        Ok(Works { ips, anonymity, tunnels, tls, took, connect })
    }

    /// Returns how a client's plain HTTP request would be sent through this proxy: in a tunnel, or as a forwarded
    /// request.
    fn plain_mode(&self) -> Mode {
        if self.subject.public.protocol == Protocol::Http { Mode::Forward } else { Mode::Tunnel }
    }

    /// Requests a page from an echo server without TLS. Returns `None` if the proxy does not forward requests. Such a
    /// proxy may still open tunnels.
    async fn ask_plain_echo(&mut self) -> Result<Option<EchoReply>, RejectReason> {
        let mut last = Fault::NoAddress;
        for at in 0..2 {
            let Some(echo) = nth(&self.echoes.plain, at) else { return Ok(None) };
            match self.echo(false, echo, self.plain_mode()).await {
                Ok(reply) => return Ok(Some(reply)),
                Err(PageError { fault, opened }) => {
                    last = fault;
                    if !opened || matches!(fault, Fault::Slow | Fault::Status(407)) {
                        break;
                    }
                }
            }
        }
        let refused = matches!(last, Fault::Status(400..=599)) && last != Fault::Status(407);
        if refused && self.plain_mode() == Mode::Forward && !self.echoes.secure.is_empty() {
            return Ok(None);
        }
        Err(RejectReason::Fault(last))
    }

    /// Requests a page from an echo server with TLS, in a tunnel. Returns `None` if the proxy opens no tunnel, or if
    /// the servers do not answer.
    async fn ask_secure_echo(&mut self) -> Result<Option<EchoReply>, RejectReason> {
        let mut forged = 0;
        for at in 0..2 {
            let Some(echo) = nth(&self.echoes.secure, at) else { break };
            match self.echo(true, echo, Mode::Tunnel).await {
                Ok(reply) if forged == 0 => return Ok(Some(reply)),
                Ok(_) => return Err(RejectReason::Fault(Fault::Forged)),
                Err(PageError { fault: Fault::Forged, .. }) => forged += 1,
                Err(PageError {
                    fault: Fault::Dial(DialError::Exit(ExitFault::Refused | ExitFault::Policy)), ..
                }) => break,
                Err(_) => {}
            }
        }
        match forged {
            0 => Ok(None),
            1 => Err(RejectReason::Fault(Fault::Forged)),
            _ => Err(RejectReason::Intercepts),
        }
    }

    /// Returns true if the proxy opens tunnels to an echo server without TLS. Called only if no echo server with TLS is
    /// configured.
    async fn opens_plain_tunnels(&mut self) -> bool {
        let Some(echo) = nth(&self.echoes.plain, 0).filter(|_| self.echoes.secure.is_empty()) else { return false };
        self.echo(false, echo, Mode::Tunnel).await.is_ok()
    }

    /// Returns the addresses from which the proxy leaves, newest last. The proxy may have forged an answer without TLS,
    /// so a second answer must confirm such an answer.
    async fn addresses(
        &mut self,
        plain: Option<&EchoReply>,
        secure: Option<&EchoReply>,
    ) -> Result<Vec<IpAddr>, RejectReason> {
        match (plain, secure) {
            (Some(plain), Some(secure)) if plain.ip == secure.ip => Ok(vec![plain.ip]),
            (Some(plain), Some(secure)) => {
                // There are two possible causes: the proxy has several addresses, or the proxy forged the answer
                // without TLS. A second answer over TLS shows which cause is true.
                let echo = nth(&self.echoes.secure, 1).ok_or(RejectReason::Disagree)?;
                let again = self.echo(true, echo, Mode::Tunnel).await.map_err(|_| RejectReason::Disagree)?;
                if again.ip == secure.ip {
                    return Err(RejectReason::Disagree);
                }
                let other = if again.ip == plain.ip { plain.ip } else { again.ip };
                Ok(vec![secure.ip, other])
            }
            (None, Some(secure)) => Ok(vec![secure.ip]),
            (Some(plain), None) => {
                let echo = nth(&self.echoes.plain, 1).ok_or(RejectReason::Disagree)?;
                let again = self
                    .echo(false, echo, self.plain_mode())
                    .await
                    .map_err(|error| RejectReason::Fault(error.fault))?;
                if again.ip == plain.ip { Ok(vec![plain.ip]) } else { Err(RejectReason::Disagree) }
            }
            (None, None) => Err(RejectReason::Fault(Fault::NoAddress)),
        }
    }

    /// Finds out what the proxy adds to a request, and returns how much this reveals about the client.
    async fn anonymity(&mut self, mode: Mode, ips: &[IpAddr]) -> Anonymity {
        let Some(page) = &self.settings.headers else { return Anonymity::Unknown };
        let nonce = nonce();
        let page = page.with_header("x-check", &nonce);
        match self.get(&page, mode, self.settings.timeout).await {
            Ok(got) if got.answer.status == 200 => anonymity::read(&got.answer.body, &nonce, ips).unwrap_or_default(),
            _ => Anonymity::Unknown,
        }
    }

    /// Fetches a canary (a page that is the same for all clients), and fetches it a second time if its digest differs
    /// from the known digest. A page that does not arrive completely is no sign of tampering.
    async fn fetch_canary(&mut self, mode: Mode, page: usize, truth: Option<Digest>) -> Result<(), RejectReason> {
        for _ in 0..2 {
            let asked = self.settings.canaries[page].clone();
            let Ok(got) = self.get(&asked, mode, self.settings.timeout).await else { return Ok(()) };
            let Some(seen) = digest(&got.answer) else { return Ok(()) };
            let changed = truth.is_some_and(|truth| truth != seen);
            self.canary = Some((page, seen, changed));
            if !changed {
                return Ok(());
            }
        }
        Err(RejectReason::Changes)
    }

    /// Runs the long test: many requests, one after another. The test ends early when it can no longer
    /// pass.
    async fn long(&mut self, tls: bool) -> Outcome {
        let (wanted, needed) = self.settings.long;
        let mode = if tls { Mode::Tunnel } else { self.plain_mode() };
        let (mut passed, mut asked, mut why) = (0, 0, None);
        while asked < wanted && passed + (wanted - asked) >= needed {
            let echoes = if tls { &self.echoes.secure } else { &self.echoes.plain };
            let Some(echo) = nth(echoes, usize::from(asked)) else { break };
            asked += 1;
            match self.echo(tls, echo, mode).await {
                Ok(_) => passed += 1,
                Err(PageError { fault, .. }) if fault.blame() == Blame::Ours => return Outcome::Open(fault),
                Err(PageError { fault, .. }) => why = Some(fault),
            }
        }
        Outcome::Lasts { passed, asked, why: why.filter(|_| passed < needed) }
    }

    async fn echo(&mut self, secure: bool, (at, repeats): (usize, bool), mode: Mode) -> Result<EchoReply, PageError> {
        let nonce = nonce();
        let pages = if secure { &self.settings.secure } else { &self.settings.plain };
        let page = pages[at].with_nonce(&nonce);
        // The answer of an echo server is a single packet. Without TLS all of it arrives together with the proxy's
        // first bytes, so the shorter time limit is enough.
        let patience = if secure { self.settings.timeout } else { self.settings.times.reply };
        let got = self.get(&page, mode, patience).await;
        let read = got.and_then(|got| match read_echo(&got.answer, &nonce) {
            Ok((_, false)) if repeats => Err(PageError { fault: Fault::Canned, opened: true }),
            Ok((ip, repeated)) => Ok((EchoReply { ip, connect: got.connect, took: got.took }, repeated)),
            Err(fault) => Err(PageError { fault, opened: true }),
        });
        let noted = read.as_ref().map(|(_, repeated)| *repeated).map_err(|error| error.fault);
        tracing::debug!(secure, at, ?noted, "an echo server was asked; Ok(true) if it repeated the nonce");
        self.answers.push((Echo { secure, at }, noted));
        read.map(|(reply, _)| reply)
    }

    async fn get(&mut self, page: &Page, mode: Mode, patience: Duration) -> Result<PageAnswer, PageError> {
        let begun = Instant::now();
        self.timings = Timings::default();
        let closed = |error: DialError| PageError { fault: error.into(), opened: false };
        let stream = self.open(page, mode).await.map_err(closed)?;
        let connect = begun.elapsed();
        self.timings.connect = Some(connect);
        let deadline = Instant::now() + patience;
        let login = self.subject.offer.login.as_ref().map(authorization);
        let forwarded;
        let asked = match mode {
            Mode::Tunnel => page,
            Mode::Forward => {
                forwarded = page.forwarded(login.as_deref());
                &forwarded
            }
        };
        let answer = probe::ask(stream, asked, &self.settings.tls, deadline, &mut self.timings).await;
        let answer = answer.map_err(|fault| PageError { fault, opened: true })?;
        self.timings.total = Some(begun.elapsed());
        Ok(PageAnswer { answer, connect, took: begun.elapsed() })
    }

    async fn open(&self, page: &Page, mode: Mode) -> Result<Stream, DialError> {
        let Subject { public, offer, carrier, .. } = self.subject;
        let times = self.settings.times;
        let mut by = Instant::now() + times.connect + times.reply;
        let reach = match (offer.through, &self.dialer.tor, carrier) {
            (Through::Direct, ..) => Reach::Direct,
            (Through::Tor, Some(tor), Some(exit)) => {
                by += CIRCUIT;
                Reach::Tor(
                    tor,
                    tor::Way { exit: *exit, hops: HOPS, isolation: CHECKS, class: tor::BuildClass::Check, own: None },
                )
            }
            (Through::Tor, ..) => return Err(EngineFault::NotReady.into()),
        };
        let (login, rules) = (offer.login.as_ref(), &self.dialer.rules);
        let way = Way { id: public, login, reach, times, rules, check_names: false };
        match mode {
            Mode::Forward => forward(way, &page.target, by).await,
            Mode::Tunnel => {
                let opened = tunnel(way, &page.target, by).await?;
                // The servers of pages send nothing before a request, so bytes that arrive here come from the proxy
                // itself.
                if opened.first.is_empty() { Ok(opened.stream) } else { Err(ExitFault::Refused.into()) }
            }
        }
    }
}

fn nonce() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Returns the echo server to use at attempt number `at`. The servers are used one after another, and then again from
/// the first.
fn nth(echoes: &[(usize, bool)], at: usize) -> Option<(usize, bool)> {
    echoes.get(at % echoes.len().max(1)).copied()
}
