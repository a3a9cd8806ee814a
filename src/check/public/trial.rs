//! One test of one proxy, step by step: the cheapest question first, and no further than the first answer that damns.
//!
//! Most proxies are dead and cost one connection. Of the others each step asks what the one before left open: does it
//! bring an answer that was made for us; does it open tunnels, and leave TLS alone; where does it leave from; what does
//! it add; what does it change. HTTP proxies are asked to forward where a client's plain request would be forwarded,
//! because that is where they add and change things.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::fault::{Fault, Whose};
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

/// Checks share circuits with one another and with nobody else.
const CHECKS: Isolation = Isolation(u64::from_be_bytes(*b"publicck"));

/// Relays on the way to a proxy that is reached through Tor.
const HOPS: u8 = 3;

/// How long a circuit to the exit before a proxy may take. Arbitrary: as patient as the tester of Tor exits.
const CIRCUIT: Duration = Duration::from_secs(60);

/// How we get to proxies.
pub struct ProxyDialer {
    /// Where they may stand.
    pub rules: Rules,
    /// The engines, for those that are reached through Tor.
    pub tor: Option<Tor>,
}

/// How a page is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Tunnel,
    Forward,
}

/// A page that did not come; `opened` if there was a stream to its server, or to a proxy that forwards.
struct Trouble {
    fault: Fault,
    opened: bool,
}

/// A page that came.
struct Got {
    answer: Answer,
    connect: Duration,
    took: Duration,
}

/// What an echo said.
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

/// Tests one proxy.
pub(super) async fn run(dialer: &ProxyDialer, settings: &Settings, job: Job) -> Report {
    let Job { subject, test, echoes } = &job;
    let (answers, timings) = (Vec::new(), Timings::default());
    let mut trial = Trial { dialer, settings, subject, echoes, answers, canary: None, timings };
    let outcome = match test {
        Test::First { canary } => match trial.first(*canary).await {
            Ok(works) => Outcome::Works(works),
            Err(RejectReason::Fault(fault)) if fault.whose() == Whose::Ours => Outcome::Open(fault),
            Err(why) => Outcome::Fails(why),
        },
        Test::Long { tls } => trial.long(*tls).await,
    };
    let Trial { answers, canary, timings, .. } = trial;
    Report { outcome, answers, canary, timings }
}

impl Trial<'_> {
    async fn first(&mut self, canary: Option<(usize, Option<Digest>)>) -> Result<Works, RejectReason> {
        let plain = self.in_the_clear().await?;
        let secure = self.over_tls().await?;
        let ips = self.agree(plain.as_ref(), secure.as_ref()).await?;
        let inner = ips.iter().any(|ip| scope(*ip) != Scope::Public);
        if inner && !self.settings.private {
            return Err(RejectReason::Disagree);
        }
        let how = if plain.is_some() { self.plainly() } else { How::Tunnel };
        let tunnels = secure.is_some() || self.plainly() == How::Tunnel || self.tunnels_at_all().await;
        let anonymity = self.anonymity(how, &ips).await;
        if let Some((page, truth)) = canary {
            self.look(how, page, truth).await?;
        }
        let tls = secure.is_some();
        // Its plain answer is what compares with others'; opening a tunnel is what a client will wait for.
        let connect = secure.as_ref().or(plain.as_ref()).map(|said| said.connect).unwrap_or_default();
        let took = plain.as_ref().or(secure.as_ref()).map(|said| said.took).unwrap_or_default();
        Ok(Works { ips, anonymity, tunnels, tls, took, connect })
    }

    /// How a plain request goes.
    fn plainly(&self) -> How {
        if self.subject.public.protocol == Protocol::Http { How::Forward } else { How::Tunnel }
    }

    /// Does it bring an answer that was made for us? `None`: it forwards nothing, and may still open tunnels.
    async fn in_the_clear(&mut self) -> Result<Option<EchoReply>, RejectReason> {
        let mut last = Fault::NoAddress;
        for at in 0..2 {
            let Some(echo) = nth(&self.echoes.plain, at) else { return Ok(None) };
            match self.echo(false, echo, self.plainly()).await {
                Ok(said) => return Ok(Some(said)),
                Err(Trouble { fault, opened }) => {
                    last = fault;
                    if !opened || matches!(fault, Fault::Slow | Fault::Status(407)) {
                        break;
                    }
                }
            }
        }
        let refused = matches!(last, Fault::Status(400..=599)) && last != Fault::Status(407);
        if refused && self.plainly() == How::Forward && !self.echoes.secure.is_empty() {
            return Ok(None);
        }
        Err(RejectReason::Fault(last))
    }

    /// Does it open tunnels, and leave TLS in them alone?
    async fn over_tls(&mut self) -> Result<Option<EchoReply>, RejectReason> {
        let mut forged = 0;
        for at in 0..2 {
            let Some(echo) = nth(&self.echoes.secure, at) else { break };
            match self.echo(true, echo, How::Tunnel).await {
                Ok(said) if forged == 0 => return Ok(Some(said)),
                Ok(_) => return Err(RejectReason::Fault(Fault::Forged)),
                Err(Trouble { fault: Fault::Forged, .. }) => forged += 1,
                Err(Trouble {
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

    /// One that was not seen with TLS may still open tunnels to elsewhere, where there is no echo over TLS to ask.
    async fn tunnels_at_all(&mut self) -> bool {
        let Some(echo) = nth(&self.echoes.plain, 0).filter(|_| self.echoes.secure.is_empty()) else { return false };
        self.echo(false, echo, How::Tunnel).await.is_ok()
    }

    /// Where does it leave from? An address that could be made up wants a second witness.
    async fn agree(
        &mut self,
        plain: Option<&EchoReply>,
        secure: Option<&EchoReply>,
    ) -> Result<Vec<IpAddr>, RejectReason> {
        match (plain, secure) {
            (Some(plain), Some(secure)) if plain.ip == secure.ip => Ok(vec![plain.ip]),
            (Some(plain), Some(secure)) => {
                // Several addresses, or a lie? TLS, where it cannot lie, shows which.
                let echo = nth(&self.echoes.secure, 1).ok_or(RejectReason::Disagree)?;
                let again = self.echo(true, echo, How::Tunnel).await.map_err(|_| RejectReason::Disagree)?;
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
                    .echo(false, echo, self.plainly())
                    .await
                    .map_err(|trouble| RejectReason::Fault(trouble.fault))?;
                if again.ip == plain.ip { Ok(vec![plain.ip]) } else { Err(RejectReason::Disagree) }
            }
            (None, None) => Err(RejectReason::Fault(Fault::NoAddress)),
        }
    }

    /// What does it add?
    async fn anonymity(&mut self, how: How, ips: &[IpAddr]) -> Anonymity {
        let Some(page) = &self.settings.headers else { return Anonymity::Unknown };
        let nonce = nonce();
        let page = page.with_header("x-check", &nonce);
        match self.get(&page, how, self.settings.timeout).await {
            Ok(got) if got.answer.status == 200 => anonymity::read(&got.answer.body, &nonce, ips).unwrap_or_default(),
            _ => Anonymity::Unknown,
        }
    }

    /// What does it change? Half a page is no other page, and no page says nothing.
    async fn look(&mut self, how: How, page: usize, truth: Option<Digest>) -> Result<(), RejectReason> {
        for _ in 0..2 {
            let asked = self.settings.canaries[page].clone();
            let Ok(got) = self.get(&asked, how, self.settings.timeout).await else { return Ok(()) };
            let Some(seen) = digest(&got.answer) else { return Ok(()) };
            let changed = truth.is_some_and(|truth| truth != seen);
            self.canary = Some((page, seen, changed));
            if !changed {
                return Ok(());
            }
        }
        Err(RejectReason::Changes)
    }

    /// Many requests, one after the other. Ends early when it cannot pass any more.
    async fn long(&mut self, tls: bool) -> Outcome {
        let (wanted, needed) = self.settings.long;
        let how = if tls { How::Tunnel } else { self.plainly() };
        let (mut passed, mut asked, mut why) = (0, 0, None);
        while asked < wanted && passed + (wanted - asked) >= needed {
            let echoes = if tls { &self.echoes.secure } else { &self.echoes.plain };
            let Some(echo) = nth(echoes, usize::from(asked)) else { break };
            asked += 1;
            match self.echo(tls, echo, how).await {
                Ok(_) => passed += 1,
                Err(Trouble { fault, .. }) if fault.whose() == Whose::Ours => return Outcome::Open(fault),
                Err(Trouble { fault, .. }) => why = Some(fault),
            }
        }
        Outcome::Lasts { passed, asked, why: why.filter(|_| passed < needed) }
    }

    async fn echo(&mut self, secure: bool, (at, repeats): (usize, bool), how: How) -> Result<EchoReply, Trouble> {
        let nonce = nonce();
        let pages = if secure { &self.settings.secure } else { &self.settings.plain };
        let page = pages[at].with_nonce(&nonce);
        // An echo's answer is one packet: in the clear it is there as soon as the proxy says anything.
        let patience = if secure { self.settings.timeout } else { self.settings.times.reply };
        let got = self.get(&page, how, patience).await;
        let read = got.and_then(|got| match read_echo(&got.answer, &nonce) {
            Ok((_, false)) if repeats => Err(Trouble { fault: Fault::Canned, opened: true }),
            Ok((ip, repeated)) => Ok((EchoReply { ip, connect: got.connect, took: got.took }, repeated)),
            Err(fault) => Err(Trouble { fault, opened: true }),
        });
        let noted = read.as_ref().map(|(_, repeated)| *repeated).map_err(|trouble| trouble.fault);
        self.answers.push((Echo { secure, at }, noted));
        read.map(|(said, _)| said)
    }

    async fn get(&mut self, page: &Page, how: How, patience: Duration) -> Result<Got, Trouble> {
        let begun = Instant::now();
        self.timings = Timings::default();
        let closed = |error: DialError| Trouble { fault: error.into(), opened: false };
        let stream = self.open(page, how).await.map_err(closed)?;
        let connect = begun.elapsed();
        self.timings.connect = Some(connect);
        let deadline = Instant::now() + patience;
        let login = self.subject.offer.login.as_ref().map(authorization);
        let forwarded;
        let asked = match how {
            How::Tunnel => page,
            How::Forward => {
                forwarded = page.forwarded(login.as_deref());
                &forwarded
            }
        };
        let answer = probe::ask(stream, asked, &self.settings.tls, deadline, &mut self.timings).await;
        let answer = answer.map_err(|fault| Trouble { fault, opened: true })?;
        self.timings.total = Some(begun.elapsed());
        Ok(Got { answer, connect, took: begun.elapsed() })
    }

    async fn open(&self, page: &Page, how: How) -> Result<Stream, DialError> {
        let Subject { public, offer, carrier, .. } = self.subject;
        let times = self.settings.times;
        let mut by = Instant::now() + times.connect + times.reply;
        let reach = match (offer.through, &self.dialer.tor, carrier) {
            (Through::Direct, ..) => Reach::Direct,
            (Through::Tor, Some(tor), Some(exit)) => {
                by += CIRCUIT;
                Reach::Tor(tor, tor::Way { exit: *exit, hops: HOPS, isolation: CHECKS, own: None })
            }
            (Through::Tor, ..) => return Err(EngineFault::NotReady.into()),
        };
        let (login, rules) = (offer.login.as_ref(), &self.dialer.rules);
        let way = Way { id: public, login, reach, times, rules, judge_names: false };
        match how {
            How::Forward => forward(way, &page.target, by).await,
            How::Tunnel => {
                let opened = tunnel(way, &page.target, by).await?;
                // No server of ours speaks before it is asked.
                if opened.first.is_empty() { Ok(opened.stream) } else { Err(ExitFault::Refused.into()) }
            }
        }
    }
}

fn nonce() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The echo whose turn it is.
fn nth(echoes: &[(usize, bool)], at: usize) -> Option<(usize, bool)> {
    echoes.get(at % echoes.len().max(1)).copied()
}
