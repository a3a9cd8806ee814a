//! From what probes heard to what may be said of an exit. Pure.
//!
//! An exit is believed to work when enough probes of a round passed, and its address is believed when it cannot be a
//! lie: because two different echo servers named it, or because one did whose certificate was checked, so that nobody
//! on the way could speak for it. Two such servers that name different addresses describe an exit that has several. Two
//! that could be forged describe a liar.
//!
//! A round may end early, and never on one bad probe: exits lose a connection now and then.
//!
//! Next: `check/page.rs` judges what a site answered, `check/target_health.rs` whether the site is to blame.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::fault::{Fault, Whose};

/// How often a certificate must be wrong before an exit is called an interceptor: once may be a server's slip.
const TWICE: usize = 2;

/// How many probes a round has, and how many must pass.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// At most so many.
    pub probes: usize,
    /// So many of them must pass.
    pub passes: usize,
}

/// What an echo server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// The address.
    pub ip: IpAddr,
    /// Its certificate was checked: nobody else said it.
    pub vouched: bool,
}

/// What one probe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Which echo server was asked.
    pub echo: usize,
    /// What came of it.
    pub outcome: Result<EchoReply, Fault>,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It works, and sites see it with these addresses, newest last.
    Good(Vec<IpAddr>),
    /// It does not.
    Bad(Why),
    /// Nothing can be said of it: what failed was ours.
    Open(Fault),
}

/// Why an exit is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// Too few probes passed; most failed like this.
    #[error("{0}")]
    Fault(Fault),
    /// Echo servers that it could speak for disagree about its address.
    #[error("echo servers see different addresses, or it speaks for them")]
    Disagree,
    /// It is bad for good since a check that ended while this one ran.
    #[error("it was caught")]
    Caught,
    /// It shows certificates of its own.
    #[error("it shows certificates that are not the sites'")]
    Intercepts,
}

impl Why {
    /// The word for it in the store and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Disagree => "disagree",
            Self::Caught => "caught",
            Self::Intercepts => "intercepts",
        }
    }
}

/// What the probes so far come to; `None` if more of them may change it.
pub fn rule(heard: &[ProbeResult], terms: Terms, echoes: usize) -> Option<Conclusion> {
    let left = terms.probes.saturating_sub(heard.len());
    let forged = heard.iter().filter(|heard| heard.outcome == Err(Fault::Forged)).count();
    if forged >= TWICE.min(terms.probes) {
        return Some(Conclusion::Bad(Why::Intercepts));
    }
    let said: Vec<(usize, EchoReply)> = heard.iter().filter_map(|h| Some((h.echo, h.outcome.ok()?))).collect();
    let health = TWICE.min(terms.passes).min(echoes);
    let believed = |ip| {
        let by = || said.iter().filter(|(_, said)| said.ip == ip);
        let servers: BTreeSet<usize> = by().map(|(echo, _)| *echo).collect();
        servers.len() >= health || by().any(|(_, said)| said.vouched)
    };
    let good = said.iter().filter(|(_, said)| believed(said.ip)).count();
    if good >= terms.passes && good == said.len() && forged == 0 {
        return Some(Conclusion::Good(distinct(&said)));
    }
    if left > 0 && (forged > 0 || said.len() + left >= terms.passes) {
        return None;
    }
    Some(match worst(heard) {
        Some(fault) if forged > 0 || said.len() < terms.passes => match fault.whose() {
            Whose::Ours => Conclusion::Open(fault),
            _ => Conclusion::Bad(Why::Fault(fault)),
        },
        _ => Conclusion::Bad(Why::Disagree),
    })
}

/// Each address once, in the order in which they were heard last.
fn distinct(said: &[(usize, EchoReply)]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for (_, said) in said {
        ips.retain(|ip| *ip != said.ip);
        ips.push(said.ip);
    }
    ips
}

/// The fault that says most: what speaks against the exit before what may, and both before what does not.
fn worst(heard: &[ProbeResult]) -> Option<Fault> {
    let rank = |fault: &Fault| match fault.whose() {
        Whose::Exit if *fault == Fault::Forged => 0,
        Whose::Exit => 1,
        Whose::Unclear => 2,
        Whose::Target => 3,
        Whose::Ours => 4,
    };
    heard.iter().filter_map(|heard| heard.outcome.err()).min_by_key(rank)
}

/// Which echo servers to ask next, all at once. `order` names those in service, the first to ask first.
pub fn next(heard: &[ProbeResult], terms: Terms, order: &[usize]) -> Vec<usize> {
    let left = terms.probes.saturating_sub(heard.len());
    if heard.is_empty() {
        return order.iter().copied().cycle().take(terms.passes.min(left)).collect();
    }
    let passed = heard.iter().filter(|heard| heard.outcome.is_ok()).count();
    let wanted = terms.passes.saturating_sub(passed).clamp(1, left.max(1)).min(left);
    let mut asked: Vec<usize> = heard.iter().map(|heard| heard.echo).collect();
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let count = |echo: usize| asked.iter().filter(|asked| **asked == echo).count();
        let Some(echo) = order.iter().copied().min_by_key(|echo| (rank(heard, *echo), count(*echo))) else { break };
        asked.push(echo);
        chosen.push(echo);
    }
    chosen
}

/// How much another answer of an echo server may tell: a wrong certificate wants a second look, then whoever was not
/// asked, whoever speaks for itself, whoever failed, and last whoever only repeats what it said.
fn rank(heard: &[ProbeResult], echo: usize) -> u8 {
    let answers: Vec<_> = heard.iter().filter(|heard| heard.echo == echo).map(|heard| heard.outcome).collect();
    let any = |wanted: fn(&Result<EchoReply, Fault>) -> bool| answers.iter().any(wanted);
    if any(|outcome| *outcome == Err(Fault::Forged)) {
        0
    } else if answers.is_empty() {
        1
    } else if any(|outcome| outcome.is_ok_and(|said| said.vouched)) {
        2
    } else if any(Result::is_err) {
        3
    } else {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::{DialError, EngineFault, ExitFault, TargetFault};

    const TERMS: Terms = Terms { probes: 3, passes: 2 };
    const DEAD: Fault = Fault::Dial(DialError::Exit(ExitFault::Unreachable));
    const OURS: Fault = Fault::Dial(DialError::Engine(EngineFault::NotReady));
    const REFUSED: Fault = Fault::Dial(DialError::Target(TargetFault::Refused));

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// `A1` is a checked answer of server 0 that names address 1, `a1` one that could be forged, `A!` a certificate
    /// that is not its own, `Ax` an exit's failure, `At` the server's, `Ao` ours.
    fn heard(text: &str) -> Vec<ProbeResult> {
        let read = |word: &str| {
            let [server, what] = word.as_bytes() else { panic!("{word}") };
            let outcome = match what {
                b'!' => Err(Fault::Forged),
                b'x' => Err(DEAD),
                b't' => Err(REFUSED),
                b'o' => Err(OURS),
                digit => Ok(EchoReply { ip: ip(digit - b'0'), vouched: server.is_ascii_uppercase() }),
            };
            ProbeResult { echo: usize::from(server.to_ascii_lowercase() - b'a'), outcome }
        };
        text.split_whitespace().map(read).collect()
    }

    fn good(ips: &[u8]) -> Option<Conclusion> {
        Some(Conclusion::Good(ips.iter().map(|n| ip(*n)).collect()))
    }

    fn bad(why: Why) -> Option<Conclusion> {
        Some(Conclusion::Bad(why))
    }

    #[test]
    fn two_of_three_decide_as_soon_as_they_can() {
        for (text, want) in [
            ("", None),
            ("A1", None),
            ("A1 B1", good(&[1])),
            ("A1 Bx", None),
            ("A1 Bx A1", good(&[1])),
            ("A1 Bt B1", good(&[1])),
            ("Ax Bx", bad(Why::Fault(DEAD))),
            ("A1 Bx Ax", bad(Why::Fault(DEAD))),
            ("At Bt", bad(Why::Fault(REFUSED))),
            ("At Bx", bad(Why::Fault(DEAD))),
            ("Ao Bo", Some(Conclusion::Open(OURS))),
            ("A1 Bo Ao", Some(Conclusion::Open(OURS))),
            ("Ao Bx", bad(Why::Fault(DEAD))),
        ] {
            assert_eq!(rule(&heard(text), TERMS, 2), want, "{text}");
        }
    }

    #[test]
    fn an_address_is_believed_if_nobody_can_have_made_it_up() {
        for (text, echoes, want) in [
            ("a1 b1", 2, good(&[1])),
            ("a1 a1", 1, good(&[1])),
            // A plain server alone is no witness while there is another.
            ("a1 bt a1", 2, bad(Why::Disagree)),
            ("a1 bt b1", 2, good(&[1])),
            // Contradictions: several addresses if both are vouched for, a lie if one could be.
            ("A1 B2", 2, good(&[1, 2])),
            ("A2 B1 A2", 2, good(&[1, 2])),
            ("A1 b2", 2, None),
            ("A1 b2 b2", 2, bad(Why::Disagree)),
            ("A1 b2 A2", 2, good(&[1, 2])),
            ("a1 b2 a1", 2, bad(Why::Disagree)),
            ("a1 b2 c1", 3, bad(Why::Disagree)),
        ] {
            assert_eq!(rule(&heard(text), TERMS, echoes), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_certificate_is_looked_at_twice() {
        for (text, want) in [
            ("A! B!", bad(Why::Intercepts)),
            ("A! B1", None),
            ("A! B1 A!", bad(Why::Intercepts)),
            ("A! B1 A1", bad(Why::Fault(Fault::Forged))),
            ("A! Bx", None),
            ("A! Bx Ax", bad(Why::Fault(Fault::Forged))),
        ] {
            assert_eq!(rule(&heard(text), TERMS, 2), want, "{text}");
        }
        let once = Terms { probes: 1, passes: 1 };
        assert_eq!(rule(&heard("A!"), once, 1), bad(Why::Intercepts));
    }

    #[test]
    fn terms_hold_at_their_edges() {
        let strict = Terms { probes: 3, passes: 3 };
        assert_eq!(rule(&heard("A1 B1"), strict, 2), None);
        assert_eq!(rule(&heard("A1 B1 A1"), strict, 2), good(&[1]));
        assert_eq!(rule(&heard("Ax"), strict, 2), bad(Why::Fault(DEAD)));
        let once = Terms { probes: 1, passes: 1 };
        assert_eq!(rule(&heard("a1"), once, 2), good(&[1]));
    }

    #[test]
    fn asks_whoever_can_tell_most() {
        for (text, order, want) in [
            ("", &[0, 1][..], &[0, 1][..]),
            ("", &[1, 0], &[1, 0]),
            ("", &[0], &[0, 0]),
            ("A1 Bx", &[0, 1], &[0]),
            ("a1 bx", &[0, 1], &[1]),
            ("a1 bx", &[0, 1, 2], &[2]),
            ("A1 B!", &[0, 1], &[1]),
            ("a1 b2", &[0, 1], &[0]),
            ("A1 Bx B1", &[0, 1], &[]),
        ] {
            assert_eq!(next(&heard(text), TERMS, order), want, "{text}");
        }
        let patient = Terms { probes: 5, passes: 3 };
        assert_eq!(next(&heard("Ax Bx"), patient, &[0, 1]), [0, 1, 0]);
    }
}
