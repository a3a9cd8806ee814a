use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::due_queue::Ended;
use super::super::fault::Fault;
use super::super::round::{EchoProbe, EchoRound};
use super::super::verdict::{self, BadReason, Conclusion, EchoReply, ProbeResult};
use super::echoes::CONTROLS;
use super::*;
use crate::dial::{DialError, ExitFault, TargetFault};
use crate::exit::country::Country;
use crate::exit::{Fingerprint, Verdict};
use crate::store::Timings;

const START: Moment = Moment(1_788_314_400_000_000);
const SECOND: Duration = Duration::from_secs(1);
const SILENT: Fault = Fault::Dial(DialError::Target(TargetFault::Timeout));
const DEAD: Fault = Fault::Dial(DialError::Exit(ExitFault::Unreachable));
const HUNG: Fault = Fault::Dial(DialError::Exit(ExitFault::Hung));

fn exit(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn ip(n: u8) -> IpAddr {
    [198, 51, 100, n].into()
}

fn evaluator() -> Evaluator {
    let text = r#"
        [check]
        echo = ["https://one.test/ip", "https://two.test/ip", "http://plain.test/ip"]
        canary = ["http://one.test/page", "http://text.test/"]
    "#;
    let check = crate::config::parse("test", text, [], None).unwrap().0.check;
    Evaluator::new(Arc::new(Settings::of(&check).unwrap()), Arc::new(|_| Country::UNKNOWN))
}

fn good() -> Known {
    Known { verdict: Verdict::Good, ..Known::default() }
}

/// A check whose probes at the two echo servers had these results.
fn round(outcomes: [Result<u8, Fault>; 2]) -> EchoRound {
    let probe = |(echo, outcome): (usize, Result<u8, Fault>)| {
        let tls = outcome.is_ok().then_some(SECOND);
        let outcome = outcome.map(|n| EchoReply { ip: ip(n), authentic: true });
        let (result, timings) = (ProbeResult { echo, outcome }, Timings { tls, ..Timings::default() });
        EchoProbe { result, timings, repeated: None }
    };
    let probes: Vec<_> = outcomes.into_iter().enumerate().map(probe).collect();
    let results: Vec<_> = probes.iter().map(|probe| probe.result).collect();
    let terms = verdict::Terms { probes: 2, passes: 2 };
    EchoRound { conclusion: verdict::conclude(&results, terms, 2).unwrap(), probes }
}

impl Evaluator {
    /// Records a check of exit `n`, which announces the address `n`.
    fn check(&mut self, n: u8, outcomes: [Result<u8, Fault>; 2], known: &Known, now: Moment) -> (Conclusion, Ended) {
        let mut round = round(outcomes);
        let (_, ended) = self.note_echoes(&exit(n), &mut round, known, &[ip(n)], now);
        (round.conclusion, ended)
    }

    fn pass(&mut self, n: u8, now: Moment) {
        assert_eq!(self.check(n, [Ok(n), Ok(n)], &good(), now).1, Ended::Good, "{n}");
    }

    /// Returns the exits for which the evaluator decides on a verdict now.
    fn decided(&mut self, now: Moment) -> Vec<ExitId> {
        self.settle(now).updates.into_iter().map(|update| update.exit).collect()
    }
}

#[test]
fn a_good_exit_is_not_bad_before_another_one_has_passed() {
    for fault in [SILENT, HUNG, Fault::Slow] {
        let mut all = evaluator();
        (1..=50).for_each(|n| all.pass(n, START));
        let failed = START.after(SECOND);
        assert_eq!(all.check(1, [Err(fault), Err(fault)], &good(), failed).1, Ended::TargetDown, "{fault}");
        let settled = all.settle(failed);
        assert!(settled.updates.is_empty() && settled.again.len() == CONTROLS, "others are checked");
        assert!(settled.again.iter().all(|id| *id != exit(1)));
        assert!(all.settle(failed.after(SECOND)).again.is_empty(), "once");
        all.pass(9, failed.after(SECOND));
        assert_eq!(all.decided(failed.after(SECOND)), [exit(1)]);
        assert!(all.decided(failed.after(2 * SECOND)).is_empty() && !all.is_unsettled());
    }
}

#[test]
fn a_failure_that_is_the_exits_own_counts_at_once() {
    let mut all = evaluator();
    (1..=50).for_each(|n| all.pass(n, START));
    assert_eq!(all.check(1, [Err(DEAD), Err(DEAD)], &good(), START).1, Ended::Bad);
    assert_eq!(all.check(60, [Err(SILENT), Err(SILENT)], &Known::default(), START).1, Ended::Bad, "never good");
    for n in 2..=40 {
        all.check(n, [Err(DEAD), Err(DEAD)], &good(), START);
    }
    assert!(all.serves(0, START) && all.serves(1, START), "dead exits say nothing about the servers");
}

#[test]
fn when_echo_servers_die_nobody_is_called_bad() {
    let mut all = evaluator();
    // Two hundred exits passed within the last minute. So many exits must fail before more than half of the tested
    // exits fail.
    (1..=200).for_each(|n| all.pass(n, START));
    let mut now = START;
    for n in 1..=100 {
        now = now.after(SECOND / 2);
        assert_eq!(all.check(n, [Err(SILENT), Err(SILENT)], &good(), now).1, Ended::TargetDown, "{n}");
        assert!(all.decided(now).is_empty(), "{n}");
        assert_eq!(all.serves(0, now), n < 4, "{n}");
    }
    let events = all.events();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Suspended { .. })).count(), 2);
    assert_eq!(all.check(150, [Err(SILENT), Err(SILENT)], &Known::default(), now).1, Ended::TargetDown);
    all.pass(1, now.after(SECOND));
    assert!(all.decided(now.after(SECOND)).is_empty() && all.serves(0, now.after(SECOND)));
    assert!(matches!(all.events()[..], [Event::Resumed { .. }, Event::Resumed { .. }]));
}

#[test]
fn a_server_that_names_wrong_addresses_changes_no_address() {
    let mut all = evaluator();
    for n in 1..=20 {
        let (conclusion, _) = all.check(n, [Ok(n), Ok(250)], &good(), START);
        assert_eq!(conclusion, Conclusion::Good(vec![ip(n)]), "{n}");
        assert_eq!(all.serves(1, START), n < 4, "{n}");
    }
    assert!(all.serves(0, START), "the other one is right");
    assert!(all.page_health(START)[1].wrong && !all.page_health(START)[0].wrong);
    let mut known = good();
    known.saw(ip(77), Country::UNKNOWN, START);
    let (conclusion, _) = all.check(30, [Ok(77), Ok(250)], &known, START);
    assert_eq!(conclusion, Conclusion::Good(vec![ip(77)]), "an address that checks saw before");
    let (conclusion, _) = all.check(31, [Ok(78), Ok(250)], &good(), START);
    assert_eq!(conclusion, Conclusion::Good(vec![ip(78)]), "of the server that is trusted");
}

#[test]
fn certificates_of_two_hosts_condemn_an_exit() {
    let mut all = evaluator();
    (1..=5).for_each(|n| all.pass(n, START));
    let forged = [Err(Fault::Forged), Err(Fault::Forged)];
    let mut bad = round(forged);
    bad.probes[1].result.echo = 0;
    bad.conclusion = Conclusion::Bad(BadReason::Intercepts);
    let condemns = |update: ExitUpdate| {
        let mut known = Known::default();
        (update.update)(&mut known);
        known.marks.bad_for_good
    };
    let (update, _) = all.note_echoes(&exit(9), &mut bad, &good(), &[], START);
    assert!(!condemns(update), "one host");
    assert_eq!(all.check(9, [Ok(9), Ok(9)], &good(), START).1, Ended::Good, "the true certificate clears it");
    let mut bad = round(forged);
    let (update, _) = all.note_echoes(&exit(9), &mut bad, &good(), &[], START);
    assert!(condemns(update));
    assert!(!all.is_unsettled(), "it is not checked again");
    assert_eq!(all.check(9, [Ok(9), Ok(9)], &good(), START).0, Conclusion::Bad(BadReason::Caught));
}

#[test]
fn changed_pages_of_two_hosts_condemn_an_exit() {
    let page = |canary, what, changed| TamperRound { canary, digest: [what; 32], changed };
    let mut all = evaluator();
    for canary in 0..2 {
        (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(canary, 1, false), START));
    }
    let verdicts = |all: &mut Evaluator, now| {
        let marks = |update: ExitUpdate| {
            let mut known = Known::default();
            (update.update)(&mut known);
            (known.verdict, known.marks.bad_for_good)
        };
        all.settle(now).updates.into_iter().map(marks).collect::<Vec<_>>()
    };
    all.note_canary(&exit(9), &page(0, 2, true), START.after(SECOND));
    (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(0, 1, false), START.after(2 * SECOND)));
    let later = START.after(2 * SECOND);
    assert_eq!(verdicts(&mut all, later), [(Verdict::Bad, false)], "one host");
    assert!(all.is_suspect(&exit(9), later));
    let checked = all.check(9, [Ok(9), Ok(9)], &good(), later).0;
    assert_eq!(checked, Conclusion::Bad(BadReason::Caught), "a true certificate of the same host clears no page");
    all.note_canary(&exit(9), &page(1, 2, true), later);
    (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(1, 1, false), later.after(SECOND)));
    assert_eq!(verdicts(&mut all, later.after(SECOND)), [(Verdict::Bad, true)]);
    all.note_canary(&exit(8), &page(0, 2, true), later);
    (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(0, 1, false), later.after(SECOND)));
    assert_eq!(verdicts(&mut all, later.after(SECOND)), [(Verdict::Bad, false)]);
    let again = all.note_canary(&exit(8), &page(0, 1, false), later.after(2 * SECOND));
    assert_eq!((again, all.is_suspect(&exit(8), later.after(2 * SECOND))), (vec![exit(8)], false), "it was an error");
}

#[test]
fn an_interceptor_of_one_host_is_checked_again_once_and_at_another_host() {
    let mut all = evaluator();
    let intercepts = |all: &mut Evaluator, echo| {
        let mut bad = round([Err(Fault::Forged), Err(Fault::Forged)]);
        bad.probes.iter_mut().for_each(|probe| probe.result.echo = echo);
        bad.conclusion = Conclusion::Bad(BadReason::Intercepts);
        all.note_echoes(&exit(9), &mut bad, &good(), &[], START);
        all.settle(START).again
    };
    assert_eq!(intercepts(&mut all, 0), [], "nobody has seen the true certificate yet");
    (1..=5).for_each(|n| all.pass(n, START));
    assert_eq!(all.settle(START).again, [exit(9)]);
    assert_eq!(intercepts(&mut all, 0), [exit(9)], "to see another host");
    let mut echoes = [2, 0, 1];
    all.sort_echoes(&exit(8), &mut echoes);
    assert_eq!(echoes, [2, 0, 1], "nothing is known against this one");
    all.sort_echoes(&exit(9), &mut echoes);
    assert_eq!(echoes, [1, 0, 2]);
    let settings = all.settings.clone();
    let mut servers = ["https://three.test/ip", "http://plain.test/ip", "https://two.test/ip", "https://one.test/ip"];
    for _ in 0..servers.len() {
        servers.rotate_left(1);
        let text = format!("[check]\necho = {servers:?}\n");
        let check = crate::config::parse("test", &text, [], None).unwrap().0.check;
        all.settings = Arc::new(Settings::of(&check).unwrap());
        let mut echoes = [0, 1, 2, 3];
        all.sort_echoes(&exit(9), &mut echoes);
        let order = echoes.map(|echo| servers[echo]);
        assert_eq!(
            (order[1], order[3]),
            ("https://one.test/ip", "http://plain.test/ip"),
            "one server that can clear it"
        );
    }
    all.settings = settings;
    assert_eq!(intercepts(&mut all, 0), [], "another check would show the same");
    assert_eq!(intercepts(&mut all, 1), []);
    assert!(all.condemned.contains(&exit(9)));
}

#[test]
fn an_exit_that_changes_one_page_is_checked_again_once() {
    let page = |canary, what| TamperRound { canary, digest: [what; 32], changed: what != 1 };
    let mut all = evaluator();
    for canary in 0..2 {
        (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(canary, 1), START));
    }
    let mut now = START;
    for wants_more in [true, false, false] {
        now = now.after(5 * SECOND);
        assert!(all.note_canary(&exit(9), &page(0, 2), now).is_empty());
        assert!(all.note_canary(&exit(9), &page(1, 1), now).is_empty(), "it never changed this page");
        (1..=4).for_each(|n| _ = all.note_canary(&exit(n), &page(0, 1), now.after(SECOND)));
        let settled = all.settle(now.after(SECOND));
        assert_eq!((settled.updates.len(), settled.again.contains(&exit(9))), (1, wants_more), "{now:?}");
    }
    assert!(all.condemned.is_empty() && all.is_suspect(&exit(9), now));
}

/// Six good exits and two that tamper are checked together, and again as often as the evaluator wants.
#[test]
fn in_any_order_exits_that_tamper_are_condemned_and_good_exits_stay_good() {
    const TAMPER: [u8; 2] = [7, 8];
    for seed in 0..300 {
        let (mut rng, mut all, mut now) = (SmallRng::seed_from_u64(seed), evaluator(), START);
        let mut running: Vec<(u8, Vec<(usize, Option<Digest>)>)> = Vec::new();
        let (mut wanted, mut condemned): (BTreeSet<u8>, BTreeSet<u8>) = ((1..=8).collect(), BTreeSet::new());
        for _ in 0..200 {
            for n in wanted.extract_if(.., |n| running.iter().all(|(other, _)| other != n)).collect::<Vec<_>>() {
                let one = rng.random_range(0..2);
                let canaries = if all.needs_all_canaries(&exit(n), now) { vec![0, 1] } else { vec![one] };
                running.push((n, canaries.into_iter().map(|canary| (canary, all.truth(canary))).collect()));
            }
            now = now.after(SECOND / 10);
            let mut again = Vec::new();
            if !running.is_empty() {
                let (n, canaries) = running.swap_remove(rng.random_range(0..running.len()));
                let tampers = TAMPER.contains(&n);
                let (conclusion, _) = all.check(n, [Ok(n), Ok(n)], &good(), now);
                assert!(
                    tampers || conclusion == Conclusion::Good(vec![ip(n)]),
                    "seed {seed}, exit {n}: {conclusion:?}"
                );
                for (canary, truth) in canaries {
                    let digest = [1 + u8::from(tampers); 32];
                    let round = TamperRound { canary, digest, changed: truth.is_some_and(|truth| truth != digest) };
                    again.extend(all.note_canary(&exit(n), &round, now));
                }
            }
            let settled = all.settle(now);
            for id in again.into_iter().chain(settled.again) {
                wanted.extend((1..=8).filter(|n| exit(*n) == id));
            }
            condemned.extend((1..=8).filter(|n| all.condemned.contains(&exit(*n))));
            wanted.retain(|n| !condemned.contains(n));
            let accused = |update: &ExitUpdate| TAMPER.iter().any(|n| update.exit == exit(*n));
            assert!(settled.updates.iter().all(accused), "seed {seed}: only exits that tamper");
        }
        assert_eq!(condemned, BTreeSet::from(TAMPER), "seed {seed}: within 20 seconds");
    }
}
