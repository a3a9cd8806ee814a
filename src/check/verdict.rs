//! Draws the conclusion from the echo probes of one check. Pure.
//!
//! An exit works if enough probes of a check passed and its address is certain. The address is certain in two cases:
//! two different echo servers saw it, or one server with a verified certificate saw it, because the exit cannot forge
//! that server's answer. If two servers with verified certificates see different addresses, the exit has several
//! addresses. If answers differ, and the exit could have forged one of them, the exit is bad.
//!
//! A check may end early, but never after a single bad probe, because exits sometimes lose a connection.
//!
//! Next: `check/site.rs` compares a site's answer with the expected answer. `check/target_health.rs` finds out whether
//! the site itself is down.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::fault::{Blame, Fault};

/// How many wrong certificates prove that an exit intercepts connections, and how many servers must confirm an address.
/// The value is two, because a single wrong answer may be the error of a server.
const TWICE: usize = 2;

/// How many echo probes a check makes, and how many of them must pass.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The largest number of probes in one check.
    pub probes: usize,
    /// How many of the probes must pass.
    pub passes: usize,
}

/// The answer of an echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// The address that the server saw.
    pub ip: IpAddr,
    /// True if the server's certificate was verified. Then the exit cannot have forged the answer.
    pub authentic: bool,
}

/// The result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// The echo server of this probe, by its index in the settings.
    pub echo: usize,
    pub outcome: Result<EchoReply, Fault>,
}

/// The conclusion from the echo probes of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The exit works. The value lists the addresses of the exit that echo servers saw, newest last.
    Good(Vec<IpAddr>),
    /// The exit does not work, or forges answers.
    Bad(BadReason),
    /// There is no conclusion about the exit, because one of the gateway's own engines failed, a page is down, or many
    /// exits failed together.
    Open(Fault),
}

/// Why an exit is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadReason {
    /// Too few probes passed. The value is the fault of the failed probe that says most about the exit.
    #[error("{0}")]
    Fault(Fault),
    /// Echo servers see different addresses, and the exit could have forged one of the answers.
    #[error("echo servers see different addresses, or the exit forges their answers")]
    Disagree,
    /// Another check, which ended while this check ran, showed that the exit tampers or intercepts.
    #[error("another check showed that it tampers with pages or certificates")]
    Caught,
    /// The exit shows certificates of its own.
    #[error("it shows certificates that are not the sites'")]
    Intercepts,
}

impl BadReason {
    /// The code of this reason in the store and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Disagree => "disagree",
            Self::Caught => "caught",
            Self::Intercepts => "intercepts",
        }
    }
}

/// Returns the conclusion from the probes so far. Returns `None` if more probes may change the conclusion. `echoes` is
/// how many echo servers can be used.
pub fn conclude(results: &[ProbeResult], terms: Terms, echoes: usize) -> Option<Conclusion> {
    let left = terms.probes.saturating_sub(results.len());
    let forged = results.iter().filter(|result| result.outcome == Err(Fault::Forged)).count();
    if forged >= TWICE.min(terms.probes) {
        return Some(Conclusion::Bad(BadReason::Intercepts));
    }
    let replies: Vec<(usize, EchoReply)> =
        results.iter().filter_map(|result| Some((result.echo, result.outcome.ok()?))).collect();
    let confirmations = TWICE.min(terms.passes).min(echoes);
    let is_certain = |ip| {
        let by = || replies.iter().filter(|(_, reply)| reply.ip == ip);
        let servers: BTreeSet<usize> = by().map(|(echo, _)| *echo).collect();
        servers.len() >= confirmations || by().any(|(_, reply)| reply.authentic)
    };
    let good = replies.iter().filter(|(_, reply)| is_certain(reply.ip)).count();
    if good >= terms.passes && good == replies.len() && forged == 0 {
        return Some(Conclusion::Good(distinct(&replies)));
    }
    if left > 0 && (forged > 0 || replies.len() + left >= terms.passes) {
        return None;
    }
    Some(match worst(results) {
        Some(fault) if forged > 0 || replies.len() < terms.passes => match ours_decided(results, terms) {
            Some(ours) if forged == 0 => Conclusion::Open(ours),
            _ => Conclusion::Bad(BadReason::Fault(fault)),
        },
        _ => Conclusion::Bad(BadReason::Disagree),
    })
}

/// Returns `conclusion`, or no conclusion ([`Conclusion::Open`]) if the first relay of the circuits is silent and could
/// have caused the failure. An example is a stream that opened and then fell silent. A failure that only the exit can
/// cause still makes the exit bad.
pub fn unless_offline(conclusion: Conclusion, first_hop_answers: bool) -> Conclusion {
    match conclusion {
        Conclusion::Bad(BadReason::Fault(fault)) if !first_hop_answers && fault.blame() == Blame::Unclear => {
            Conclusion::Open(fault)
        }
        other => other,
    }
}

/// Returns a fault of the gateway itself if this fault prevents a conclusion: if the probes that failed by faults of
/// the gateway had passed, enough probes would have passed. `None` if the other faults alone are enough for a verdict.
fn ours_decided(results: &[ProbeResult], terms: Terms) -> Option<Fault> {
    let mut faults = results.iter().filter_map(|result| result.outcome.err());
    let others = faults.clone().filter(|fault| fault.blame() != Blame::Ours).count();
    let may_fail = terms.probes.saturating_sub(terms.passes);
    faults.find(|fault| fault.blame() == Blame::Ours).filter(|_| others <= may_fail)
}

/// Returns the addresses in all replies, each address once. The address of the last reply comes last.
fn distinct(replies: &[(usize, EchoReply)]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for (_, reply) in replies {
        ips.retain(|ip| *ip != reply.ip);
        ips.push(reply.ip);
    }
    ips
}

/// Returns the fault that says most about the exit: first a fault of the exit, then a fault that may be the exit's,
/// then any other fault.
fn worst(results: &[ProbeResult]) -> Option<Fault> {
    let rank = |fault: &Fault| match fault.blame() {
        Blame::Exit if *fault == Fault::Forged => 0,
        Blame::Exit => 1,
        Blame::Unclear => 2,
        Blame::Target => 3,
        Blame::Ours => 4,
    };
    results.iter().filter_map(|result| result.outcome.err()).min_by_key(rank)
}

/// Returns the echo servers to use next, all at the same time. `order` lists the servers that work, in the order in
/// which to use them.
pub fn next(results: &[ProbeResult], terms: Terms, order: &[usize]) -> Vec<usize> {
    let left = terms.probes.saturating_sub(results.len());
    if results.is_empty() {
        return order.iter().copied().cycle().take(terms.passes.min(left)).collect();
    }
    let passed = results.iter().filter(|result| result.outcome.is_ok()).count();
    let count = terms.passes.saturating_sub(passed).clamp(1, left.max(1)).min(left);
    let mut asked: Vec<usize> = results.iter().map(|result| result.echo).collect();
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let times = |echo: usize| asked.iter().filter(|asked| **asked == echo).count();
        let Some(echo) = order.iter().copied().min_by_key(|echo| (rank(results, *echo), times(*echo))) else { break };
        asked.push(echo);
        chosen.push(echo);
    }
    chosen
}

/// Returns the place of an echo server in the order in which servers are used for the next probe. 0 is the first place:
/// another answer of this server shows the most. The order is: a server whose certificate was wrong, a server that was
/// not used yet, a server whose answer was verified, a server that failed, and last a server whose answer could be
/// forged.
fn rank(results: &[ProbeResult], echo: usize) -> u8 {
    let outcomes: Vec<_> = results.iter().filter(|result| result.echo == echo).map(|result| result.outcome).collect();
    let any = |matches: fn(&Result<EchoReply, Fault>) -> bool| outcomes.iter().any(matches);
    if any(|outcome| *outcome == Err(Fault::Forged)) {
        0
    } else if outcomes.is_empty() {
        1
    } else if any(|outcome| outcome.is_ok_and(|reply| reply.authentic)) {
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

    /// Parses results from a short text. `A1` is a verified answer of server 0 with address 1. `a1` is an answer of
    /// server 0 that could be forged. `A!` is a wrong certificate. `Ax` is a failure caused by the exit, `At` by the
    /// server, `Ao` by our own side.
    fn results(text: &str) -> Vec<ProbeResult> {
        let read = |word: &str| {
            let [server, what] = word.as_bytes() else { panic!("{word}") };
            let outcome = match what {
                b'!' => Err(Fault::Forged),
                b'x' => Err(DEAD),
                b't' => Err(REFUSED),
                b'o' => Err(OURS),
                digit => Ok(EchoReply { ip: ip(digit - b'0'), authentic: server.is_ascii_uppercase() }),
            };
            ProbeResult { echo: usize::from(server.to_ascii_lowercase() - b'a'), outcome }
        };
        text.split_whitespace().map(read).collect()
    }

    fn good(ips: &[u8]) -> Option<Conclusion> {
        Some(Conclusion::Good(ips.iter().map(|n| ip(*n)).collect()))
    }

    fn bad(why: BadReason) -> Option<Conclusion> {
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
            ("Ax Bx", bad(BadReason::Fault(DEAD))),
            ("A1 Bx Ax", bad(BadReason::Fault(DEAD))),
            ("At Bt", bad(BadReason::Fault(REFUSED))),
            ("At Bx", bad(BadReason::Fault(DEAD))),
            ("Ao Bo", Some(Conclusion::Open(OURS))),
            ("A1 Bo Ao", Some(Conclusion::Open(OURS))),
            // `Bx` is a failure of the exit. `Ao` is a fault of the gateway, so it says nothing about the exit. One
            // failure of the exit is not enough for a conclusion.
            ("Ao Bx", Some(Conclusion::Open(OURS))),
            ("Ax Bo", Some(Conclusion::Open(OURS))),
            ("Ao Bt", Some(Conclusion::Open(OURS))),
            ("A1 Bx Ao", Some(Conclusion::Open(OURS))),
        ] {
            assert_eq!(conclude(&results(text), TERMS, 2), want, "{text}");
        }
    }

    #[test]
    fn an_address_is_certain_if_the_exit_cannot_have_forged_it() {
        for (text, echoes, want) in [
            ("a1 b1", 2, good(&[1])),
            ("a1 a1", 1, good(&[1])),
            // If an answer could be forged (`a1`), the exit is good only if a second server confirms the address.
            ("a1 bt a1", 2, bad(BadReason::Disagree)),
            ("a1 bt b1", 2, good(&[1])),
            // Two servers saw different addresses. If both answers are verified, the exit has several addresses. If one
            // of the answers could be forged, the exit is bad.
            ("A1 B2", 2, good(&[1, 2])),
            ("A2 B1 A2", 2, good(&[1, 2])),
            ("A1 b2", 2, None),
            ("A1 b2 b2", 2, bad(BadReason::Disagree)),
            ("A1 b2 A2", 2, good(&[1, 2])),
            ("a1 b2 a1", 2, bad(BadReason::Disagree)),
            ("a1 b2 c1", 3, bad(BadReason::Disagree)),
        ] {
            assert_eq!(conclude(&results(text), TERMS, echoes), want, "{text}");
        }
    }

    #[test]
    fn only_a_second_wrong_certificate_makes_an_interceptor() {
        for (text, want) in [
            ("A! B!", bad(BadReason::Intercepts)),
            ("A! B1", None),
            ("A! B1 A!", bad(BadReason::Intercepts)),
            ("A! B1 A1", bad(BadReason::Fault(Fault::Forged))),
            ("A! Bx", None),
            ("A! Bx Ax", bad(BadReason::Fault(Fault::Forged))),
        ] {
            assert_eq!(conclude(&results(text), TERMS, 2), want, "{text}");
        }
        let once = Terms { probes: 1, passes: 1 };
        assert_eq!(conclude(&results("A!"), once, 1), bad(BadReason::Intercepts));
    }

    #[test]
    fn failures_of_our_own_never_add_up_to_a_bad_exit() {
        let patient = Terms { probes: 5, passes: 2 };
        for (text, want) in [
            ("Ao Bo Ao Bo", Some(Conclusion::Open(OURS))),
            ("Ax Bx Ao Bo", Some(Conclusion::Open(OURS))),
            ("Ax Bx Ax Bo", Some(Conclusion::Open(OURS))),
            ("Ax Bx Ax Bx", bad(BadReason::Fault(DEAD))),
            // `A!` is a wrong certificate. `Ao` and `Bo` are faults of the gateway. A fault of the gateway never causes
            // a wrong certificate, so the exit is bad.
            ("A! Bo Ao Bo Ao", bad(BadReason::Fault(Fault::Forged))),
        ] {
            assert_eq!(conclude(&results(text), patient, 2), want, "{text}");
        }
        let all = Terms { probes: 2, passes: 2 };
        assert_eq!(conclude(&results("Ax Bo"), all, 2), bad(BadReason::Fault(DEAD)));
    }

    #[test]
    fn while_the_first_relay_is_silent_only_an_exits_own_fault_makes_it_bad() {
        for (conclusion, offline) in [
            (Conclusion::Bad(BadReason::Fault(Fault::Slow)), Conclusion::Open(Fault::Slow)),
            (Conclusion::Bad(BadReason::Fault(Fault::Broken)), Conclusion::Open(Fault::Broken)),
            (Conclusion::Bad(BadReason::Fault(DEAD)), Conclusion::Bad(BadReason::Fault(DEAD))),
            (Conclusion::Bad(BadReason::Fault(Fault::Forged)), Conclusion::Bad(BadReason::Fault(Fault::Forged))),
            (Conclusion::Bad(BadReason::Disagree), Conclusion::Bad(BadReason::Disagree)),
            (Conclusion::Good(vec![ip(1)]), Conclusion::Good(vec![ip(1)])),
        ] {
            assert_eq!(unless_offline(conclusion.clone(), false), offline);
            assert_eq!(unless_offline(conclusion.clone(), true), conclusion);
        }
    }

    #[test]
    fn all_probes_may_have_to_pass_and_one_may_be_enough() {
        let strict = Terms { probes: 3, passes: 3 };
        assert_eq!(conclude(&results("A1 B1"), strict, 2), None);
        assert_eq!(conclude(&results("A1 B1 A1"), strict, 2), good(&[1]));
        assert_eq!(conclude(&results("Ax"), strict, 2), bad(BadReason::Fault(DEAD)));
        let once = Terms { probes: 1, passes: 1 };
        assert_eq!(conclude(&results("a1"), once, 2), good(&[1]));
    }

    #[test]
    fn the_server_whose_answer_shows_most_is_asked_next() {
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
            assert_eq!(next(&results(text), TERMS, order), want, "{text}");
        }
        let patient = Terms { probes: 5, passes: 3 };
        assert_eq!(next(&results("Ax Bx"), patient, &[0, 1]), [0, 1, 0]);
    }
}
