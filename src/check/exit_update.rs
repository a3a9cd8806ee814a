//! What was found out, in the words of those who keep it: a change of what is known of an exit, and rows of history.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::round::{EchoRound, SiteRound};
use super::settings::CheckedSite;
use super::site::{Effect, Miss};
use super::verdict::{Conclusion, Why};
use crate::exit::country::Country;
use crate::exit::facts::Known;
use crate::exit::{ExitId, Moment, Verdict};
use crate::state::ExitUpdate;
use crate::store::{self, Timings, Write};

/// The name under which an exit's own verdict stands beside those of targets.
pub const ECHO: &str = "echo";

/// Says in which country an address is.
pub type Geo = Arc<dyn Fn(IpAddr) -> Country + Send + Sync>;

/// What an echo round taught.
pub(super) fn of_echoes(exit: &ExitId, round: &EchoRound, past: BeforeRound, geo: &Geo, now: Moment) -> ExitUpdate {
    let mut writes = vec![Write::Check(echo_row(exit, round, now))];
    let latency = latency(round);
    let (standing, why, ips) = match &round.conclusion {
        Conclusion::Good(ips) => (store::TargetVerdict::Good, String::new(), ips.clone()),
        Conclusion::Bad(why) if past.condemned => (store::TargetVerdict::Condemned, why.to_string(), Vec::new()),
        Conclusion::Bad(why) => (store::TargetVerdict::Bad, why.to_string(), Vec::new()),
        Conclusion::Open(_) => return ExitUpdate { exit: exit.clone(), update: Box::new(|_| ()), ban: None, writes },
    };
    let good = if standing == store::TargetVerdict::Good { Some(now) } else { past.good };
    writes.extend(ips.iter().map(|ip| {
        let (exit, ip) = (exit.clone(), *ip);
        Write::Saw(store::Observed { exit, ip, first: now, last: now, times: 1 })
    }));
    let shown = (!why.is_empty()).then(|| Arc::from(why.as_str()));
    writes.push(verdict_row(exit, ECHO, standing, past.streak, (now, good), latency, why));
    let seen: Vec<_> = ips.into_iter().map(|ip| (ip, geo(ip))).collect();
    let update = move |known: &mut Known| {
        (known.checked, known.why) = (Some(now), shown);
        known.verdict = if standing == store::TargetVerdict::Good { Verdict::Good } else { Verdict::Bad };
        known.marks.bad_for_good |= standing == store::TargetVerdict::Condemned;
        if standing == store::TargetVerdict::Good {
            (known.good, known.latency) = (Some(now), latency.or(known.latency));
            seen.into_iter().for_each(|(ip, country)| known.saw(ip, country, now));
        }
    };
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes }
}

/// Nothing was learned.
pub(super) fn none(exit: &ExitId) -> ExitUpdate {
    ExitUpdate { exit: exit.clone(), update: Box::new(|_| ()), ban: None, writes: Vec::new() }
}

/// What was known before a round, as far as its lesson needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BeforeRound {
    pub(super) good: Option<Moment>,
    pub(super) streak: i32,
    /// It was caught, and is bad for good.
    pub(super) condemned: bool,
}

/// How an exit stands with a site after a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteOutcome {
    pub(super) effect: Effect,
    pub(super) streak: i32,
    /// When it last passed.
    pub(super) good: Option<Moment>,
}

/// What a site's answer taught.
pub(super) fn of_site(
    exit: &ExitId,
    site: &CheckedSite,
    round: &SiteRound,
    SiteOutcome { effect, streak, good }: SiteOutcome,
    now: Moment,
) -> ExitUpdate {
    let miss = round.result.and_then(Result::err);
    let row = store::Check {
        id: 0,
        exit: exit.clone(),
        target: site.name.to_string(),
        at: now,
        outcome: miss.map_or("good", Miss::as_str).to_owned(),
        detail: miss.map(|miss| miss.to_string()).unwrap_or_default(),
        ip: None,
        status: round.status,
        timings: round.timings,
    };
    let mut writes = vec![Write::Check(row)];
    let standing = if miss.is_some() { store::TargetVerdict::Bad } else { store::TargetVerdict::Good };
    if effect != Effect::Suspended {
        let why = miss.map(|miss| miss.to_string()).unwrap_or_default();
        writes.push(verdict_row(exit, &site.name, standing, streak, (now, good), round.timings.connect, why));
    }
    let name = site.name.clone();
    let update = move |known: &mut Known| match effect {
        Effect::Passes => _ = known.passed.insert(name),
        Effect::Misses => _ = known.passed.remove(&name),
        Effect::Suspended => {}
    };
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes }
}

/// A site refuses an exit.
pub(super) fn ban(exit: &ExitId, site: &CheckedSite, miss: Miss, until: Moment) -> ExitUpdate {
    let why = format!("check {}: {miss}", site.name);
    ExitUpdate {
        exit: exit.clone(),
        update: Box::new(|_| ()),
        ban: Some((site.site.clone(), until, why)),
        writes: Vec::new(),
    }
}

/// An exit was caught, and is bad for good.
pub(super) fn condemn(exit: &ExitId, miss: Miss, now: Moment) -> ExitUpdate {
    let why: Arc<str> = miss.to_string().into();
    let update = move |known: &mut Known| {
        (known.verdict, known.why) = (Verdict::Bad, Some(why));
        known.marks.bad_for_good = true;
    };
    let row = verdict_row(exit, ECHO, store::TargetVerdict::Condemned, -1, (now, None), None, miss.to_string());
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: vec![row] }
}

/// An exit passes a site after all: the site was to blame.
pub(super) fn pardon(exit: &ExitId, site: &CheckedSite) -> ExitUpdate {
    let name = site.name.clone();
    let update = move |known: &mut Known| _ = known.passed.insert(name);
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: Vec::new() }
}

/// A verdict is too old to count.
pub(super) fn forget(exit: &ExitId) -> ExitUpdate {
    let update = |known: &mut Known| (known.verdict, known.why) = (Verdict::Untested, None);
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: Vec::new() }
}

/// The word for a ruling in the store and in metric labels.
pub(super) fn outcome(conclusion: &Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Good(_) => "good",
        Conclusion::Bad(why) => why.as_str(),
        Conclusion::Open(fault) => fault.as_str(),
    }
}

/// Of several probes the one that shows what the ruling says.
pub(super) fn shown_by(round: &EchoRound) -> Timings {
    let shows = |outcome: &Result<_, _>| match &round.conclusion {
        Conclusion::Good(_) | Conclusion::Bad(Why::Disagree) => outcome.is_ok(),
        _ => outcome.is_err(),
    };
    round.probes.iter().rev().find(|probe| shows(&probe.result.outcome)).map(|probe| probe.timings).unwrap_or_default()
}

fn echo_row(exit: &ExitId, round: &EchoRound, now: Moment) -> store::Check {
    let (detail, ip) = match &round.conclusion {
        Conclusion::Good(ips) => (String::new(), ips.last().copied()),
        Conclusion::Bad(why) => (why.to_string(), None),
        Conclusion::Open(fault) => (fault.to_string(), None),
    };
    store::Check {
        id: 0,
        exit: exit.clone(),
        target: ECHO.to_owned(),
        at: now,
        outcome: outcome(&round.conclusion).to_owned(),
        detail,
        ip,
        status: None,
        timings: shown_by(round),
    }
}

/// The median of what opening a stream took in the probes that passed.
pub(super) fn latency(round: &EchoRound) -> Option<Duration> {
    let passed = round.probes.iter().filter(|probe| probe.result.outcome.is_ok());
    let mut took: Vec<_> = passed.filter_map(|probe| probe.timings.connect).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

fn verdict_row(
    exit: &ExitId,
    target: &str,
    standing: store::TargetVerdict,
    streak: i32,
    (checked, good): (Moment, Option<Moment>),
    latency: Option<Duration>,
    why: String,
) -> Write {
    let (exit, target) = (exit.clone(), target.to_owned());
    Write::PutVerdict(store::Verdict { exit, target, standing, streak, checked, good, latency, why })
}
