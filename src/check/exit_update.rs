//! Converts the results of checks into [`ExitUpdate`]s: a change of the recorded facts about an exit, and rows for the
//! store.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::round::{EchoRound, SiteRound};
use super::settings::CheckedSite;
use super::site::{SiteEffect, SiteFailure};
use super::verdict::{BadReason, Conclusion};
use crate::exit::country::Country;
use crate::exit::facts::Known;
use crate::exit::{Exit, ExitId, Moment, Verdict};
use crate::state::ExitUpdate;
use crate::store::{self, Timings, Write};

/// The target name for checks of the exit itself. Other checks use the name of their check target.
pub const ECHO: &str = "echo";

/// Returns the country of an IP address.
pub type Geo = Arc<dyn Fn(IpAddr) -> Country + Send + Sync>;

/// Returns the update that results from the echo probes of a check.
pub(super) fn of_echoes(exit: &ExitId, round: &EchoRound, before: BeforeRound, geo: &Geo, now: Moment) -> ExitUpdate {
    let mut writes = vec![Write::Check(echo_row(exit, round, now))];
    let latency = latency(round);
    let (verdict, why, ips) = match &round.conclusion {
        Conclusion::Good(ips) => (store::TargetVerdict::Good, String::new(), ips.clone()),
        Conclusion::Bad(why) if before.condemned => (store::TargetVerdict::Condemned, why.to_string(), Vec::new()),
        Conclusion::Bad(why) => (store::TargetVerdict::Bad, why.to_string(), Vec::new()),
        Conclusion::Open(_) => return ExitUpdate { exit: exit.clone(), update: Box::new(|_| ()), ban: None, writes },
    };
    let is_good = verdict == store::TargetVerdict::Good;
    let good = if is_good { Some(now) } else { before.good };
    writes.extend(ips.iter().map(|ip| {
        let (exit, ip) = (exit.clone(), *ip);
        Write::Saw(store::Observed { exit, ip, first: now, last: now, times: 1 })
    }));
    let shown = (!why.is_empty()).then(|| Arc::from(why.as_str()));
    writes.push(verdict_row(exit, ECHO, verdict, before.streak, (now, good), latency, why));
    let seen: Vec<_> = ips.into_iter().map(|ip| (ip, geo(ip))).collect();
    let update = move |known: &mut Known| {
        (known.checked, known.why) = (Some(now), shown);
        known.verdict = if is_good { Verdict::Good } else { Verdict::Bad };
        known.marks.bad_for_good |= verdict == store::TargetVerdict::Condemned;
        if is_good {
            (known.good, known.latency) = (Some(now), latency.or(known.latency));
            seen.into_iter().for_each(|(ip, country)| known.saw(ip, country, now));
        }
    };
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes }
}

/// Returns the update that results from an earlier check whose bad verdict counts only now, because other exits have
/// shown that the echo servers work. The update has no row for the history of checks, because that row was stored when
/// the check ended.
pub(super) fn of_held(exit: &ExitId, round: &EchoRound, before: BeforeRound, geo: &Geo, now: Moment) -> ExitUpdate {
    let mut update = of_echoes(exit, round, before, geo, now);
    update.writes.retain(|write| !matches!(write, Write::Check(_)));
    update
}

/// Returns the update that results from a client's stream through a good exit. The recorded address of the exit stays
/// the same, because a stream does not show an address.
pub(super) fn of_traffic(exit: &Exit, at: Moment) -> ExitUpdate {
    let latency = exit.known().latency;
    let row = verdict_row(exit.id(), ECHO, store::TargetVerdict::Good, 1, (at, Some(at)), latency, String::new());
    let update = move |known: &mut Known| {
        (known.checked, known.good) = (known.checked.max(Some(at)), known.good.max(Some(at)));
    };
    ExitUpdate { exit: exit.id().clone(), update: Box::new(update), ban: None, writes: vec![row] }
}

/// Returns an update that changes nothing.
pub(super) fn none(exit: &ExitId) -> ExitUpdate {
    ExitUpdate { exit: exit.clone(), update: Box::new(|_| ()), ban: None, writes: Vec::new() }
}

/// What the evaluator knows about an exit besides the echo probes of the current check.
#[derive(Clone, Copy, Debug)]
pub(super) struct BeforeRound {
    /// When the exit was last good before the current check. `None` if the exit was never good.
    pub(super) good: Option<Moment>,
    /// How many checks of the exit in a row ended in the same way: positive for good checks, negative for bad ones.
    pub(super) streak: i32,
    /// True if the exit intercepts connections. Nobody uses such an exit until its condemnation ends.
    pub(super) condemned: bool,
}

/// What the evaluator concludes from the answer of a site.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteOutcome {
    pub(super) effect: SiteEffect,
    /// How many times in a row the exit had the same result at this site: positive for passes, negative for failures.
    pub(super) streak: i32,
    /// When the exit last passed the site. `None` if the exit never passed the site.
    pub(super) good: Option<Moment>,
}

/// Returns the update that results from the answer of a site.
pub(super) fn of_site(
    exit: &ExitId,
    site: &CheckedSite,
    round: &SiteRound,
    SiteOutcome { effect, streak, good }: SiteOutcome,
    now: Moment,
) -> ExitUpdate {
    let failure = round.result.and_then(Result::err);
    let row = store::Check {
        id: 0,
        exit: exit.clone(),
        target: site.name.to_string(),
        at: now,
        outcome: failure.map_or("good", SiteFailure::as_str).to_owned(),
        detail: failure.map(|failure| failure.to_string()).unwrap_or_default(),
        ip: None,
        status: round.status,
        timings: round.timings,
    };
    let mut writes = vec![Write::Check(row)];
    let verdict = if failure.is_some() { store::TargetVerdict::Bad } else { store::TargetVerdict::Good };
    if effect != SiteEffect::Suspended {
        let why = failure.map(|failure| failure.to_string()).unwrap_or_default();
        writes.push(verdict_row(exit, &site.name, verdict, streak, (now, good), round.timings.connect, why));
    }
    let name = site.name.clone();
    let update = move |known: &mut Known| match effect {
        SiteEffect::Passes => _ = known.passed.insert(name),
        SiteEffect::Fails => _ = known.passed.remove(&name),
        SiteEffect::Suspended => {}
    };
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes }
}

/// Returns the update that bans an exit from a site, because the site refuses the exit.
pub(super) fn ban(exit: &ExitId, site: &CheckedSite, failure: SiteFailure, until: Moment) -> ExitUpdate {
    let why = format!("check {}: {failure}", site.name);
    ExitUpdate {
        exit: exit.clone(),
        update: Box::new(|_| ()),
        ban: Some((site.site.clone(), until, why)),
        writes: Vec::new(),
    }
}

/// Returns the update for an exit that tampers with a page. `condemned` is true if the exit is condemned, and false if
/// the exit only counts as bad.
pub(super) fn tampers(exit: &ExitId, failure: SiteFailure, condemned: bool, now: Moment) -> ExitUpdate {
    let why: Arc<str> = failure.to_string().into();
    let update = move |known: &mut Known| {
        (known.verdict, known.why, known.checked) = (Verdict::Bad, Some(why), Some(now));
        known.marks.bad_for_good |= condemned;
    };
    let verdict = if condemned { store::TargetVerdict::Condemned } else { store::TargetVerdict::Bad };
    let row = verdict_row(exit, ECHO, verdict, -1, (now, None), None, failure.to_string());
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: vec![row] }
}

/// Returns the update that counts an exit as passing a site again, because the site caused the exit's failure.
pub(super) fn clear(exit: &ExitId, site: &CheckedSite) -> ExitUpdate {
    let name = site.name.clone();
    let update = move |known: &mut Known| _ = known.passed.insert(name);
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: Vec::new() }
}

/// Returns the update that removes the verdict on an exit, because the verdict is too old.
pub(super) fn forget(exit: &ExitId) -> ExitUpdate {
    let update = |known: &mut Known| (known.verdict, known.why) = (Verdict::Untested, None);
    ExitUpdate { exit: exit.clone(), update: Box::new(update), ban: None, writes: Vec::new() }
}

/// Returns the code that stands for a conclusion in the store and in metric labels.
pub(super) fn outcome(conclusion: &Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Good(_) => "good",
        Conclusion::Bad(why) => why.as_str(),
        Conclusion::Open(fault) => fault.as_str(),
    }
}

/// Returns the timings of the last probe that supports the conclusion.
pub(super) fn shown_by(round: &EchoRound) -> Timings {
    let shows = |outcome: &Result<_, _>| match &round.conclusion {
        Conclusion::Good(_) | Conclusion::Bad(BadReason::Disagree) => outcome.is_ok(),
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

/// Returns the median time that the successful echo probes needed to open their streams. Returns `None` if there is no
/// such probe.
pub(super) fn latency(round: &EchoRound) -> Option<Duration> {
    let passed = round.probes.iter().filter(|probe| probe.result.outcome.is_ok());
    let mut times: Vec<_> = passed.filter_map(|probe| probe.timings.connect).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn verdict_row(
    exit: &ExitId,
    target: &str,
    verdict: store::TargetVerdict,
    streak: i32,
    (checked, good): (Moment, Option<Moment>),
    latency: Option<Duration>,
    why: String,
) -> Write {
    let (exit, target) = (exit.clone(), target.to_owned());
    Write::PutVerdict(store::Verdict { exit, target, verdict, streak, checked, good, latency, why })
}
