//! Changes of the recorded facts about a public proxy, and the rows that the store keeps of them.
//!
//! Updates are collected and published together, so two updates of one proxy may wait at the same time. Therefore each
//! update is applied twice. First, an update is applied immediately to the tester's own copy of the recorded facts. The
//! rows for the store are made from this copy, and the next check of the proxy reads this copy. Second, the update is
//! applied to the published facts.
//!
//! Between the first time and the second time, another update may have changed the published facts. So an update must
//! compute new values only from the facts to which it is applied.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::condemnation;
use super::super::exit_update::{ECHO, Geo};
use super::report::{RejectReason, Works};
use crate::exit::facts::Known;
use crate::exit::{Abilities, Exit, ExitId, Moment, PublicId, Verdict};
use crate::state::ExitUpdate;
use crate::store::{self, Timings, Write};

/// A function that changes the recorded facts about an exit.
pub(super) type Change = Box<dyn Fn(&mut Known) + Send>;

/// Returns the change that records that a proxy works.
pub(super) fn good(works: Works, geo: &Geo, now: Moment) -> Change {
    let seen: Vec<_> = works.ips.iter().map(|ip| (*ip, geo(*ip))).collect();
    let Works { anonymity, tunnels, tls, took, connect, .. } = works;
    Box::new(move |known| {
        let (passed, asked) = known.public.map_or((0, 0), |able| (able.passed, able.asked));
        (known.checked, known.good, known.verdict, known.why) = (Some(now), Some(now), Verdict::Good, None);
        known.public = Some(Abilities { anonymity, tunnels, tls, took, passed, asked });
        known.latency = Some(connect);
        seen.iter().for_each(|(ip, country)| known.saw(*ip, *country, now));
    })
}

/// Returns the change that records a long test, in which `passed` of `asked` requests were answered. `well` is true if
/// the proxy passed the test.
pub(super) fn lasts((passed, asked): (u16, u16), well: bool, why: &str, now: Moment) -> Change {
    let why: Arc<str> = if why.is_empty() { RejectReason::Unreliable.to_string().into() } else { why.into() };
    Box::new(move |known| {
        known.checked = Some(now);
        if well {
            (known.good, known.verdict, known.why) = (Some(now), Verdict::Good, None);
        } else {
            (known.verdict, known.why) = (Verdict::Bad, Some(why.clone()));
        }
        if let Some(able) = &mut known.public {
            (able.passed, able.asked) = (passed, asked);
        }
    })
}

/// Returns the change that records that a proxy does not work.
pub(super) fn bad(why: &str, now: Moment) -> Change {
    let why: Arc<str> = why.into();
    Box::new(move |known| {
        (known.checked, known.verdict, known.why) = (Some(now), Verdict::Bad, Some(why.clone()));
    })
}

/// Returns the change that records that a proxy tampers or intercepts. Nobody uses the proxy until the
/// condemnation ends (`check/condemnation.rs`).
pub(super) fn condemned(id: &ExitId, reason: RejectReason, now: Moment) -> Change {
    tracing::info!(exit = %id, why = %reason, "a public proxy is condemned: it is not used for two weeks");
    let bad = bad(&reason.to_string(), now);
    Box::new(move |known| {
        bad(known);
        known.marks.bad_for_good = true;
    })
}

/// Returns the update that ends the condemnation of a proxy.
pub(super) fn pardon(exit: &Exit, now: Moment) -> ExitUpdate {
    let mut known = exit.known().clone();
    condemnation::pardon(&mut known);
    let writes = row(exit, &known, 0, now).into_iter().map(Write::PutPublic).collect();
    ExitUpdate { exit: exit.id().clone(), update: Box::new(condemnation::pardon), ban: None, writes }
}

/// Returns the row of one test for the history of checks. A long test gets a row of the same form as any other test.
pub(super) fn history_row(
    exit: &Exit,
    outcome: &str,
    why: &str,
    ip: Option<IpAddr>,
    timings: Timings,
    now: Moment,
) -> store::Check {
    store::Check {
        id: 0,
        exit: exit.id().clone(),
        target: ECHO.to_owned(),
        at: now,
        outcome: outcome.to_owned(),
        detail: why.to_owned(),
        ip,
        status: None,
        timings,
    }
}

/// Returns the update to publish and the rows to keep. Rows are kept only of proxies that have worked once or are
/// condemned, because in a list of twenty thousand proxies nearly all never work. Returns `None` if there is nothing to
/// change and nothing to keep.
pub(super) fn update(
    exit: &Exit,
    known: &mut Known,
    change: Option<Change>,
    failures: u32,
    history: Option<store::Check>,
    now: Moment,
) -> Option<ExitUpdate> {
    if let Some(change) = &change {
        change(known);
    }
    let mut writes = Vec::new();
    if known.good.is_some() || known.marks.bad_for_good {
        if change.is_some() {
            writes.extend(row(exit, known, failures, now).map(Write::PutPublic));
        }
        writes.extend(history.map(Write::Check));
    }
    let nothing = change.is_none() && writes.is_empty();
    let update = change.unwrap_or_else(|| Box::new(|_| ()));
    (!nothing).then(|| ExitUpdate { exit: exit.id().clone(), update, ban: None, writes })
}

pub(super) fn row(exit: &Exit, known: &Known, failures: u32, now: Moment) -> Option<store::Public> {
    let (ExitId::Public(id), Some(offer)) = (exit.id(), &exit.listing().public) else { return None };
    let able = known.public;
    let seen: Option<(IpAddr, _)> = known.observed.last().map(|seen| (seen.ip, seen.country));
    Some(store::Public {
        id: PublicId::clone(id),
        list: offer.list.to_string(),
        login: offer.login.clone(),
        through: offer.through,
        working: known.verdict == Verdict::Good && !known.marks.bad_for_good,
        response_time: able.map(|able| able.took),
        failed_count: failures,
        last_tested: known.checked,
        last_working: known.good,
        created_at: now,
        anonymity: able.map(|able| able.anonymity).unwrap_or_default(),
        https: able.is_some_and(|able| able.tls),
        connect: able.is_some_and(|able| able.tunnels),
        country: seen.filter(|(_, country)| country.is_known()).map(|(_, country)| country.to_string()),
        exit_ip: seen.map(|(ip, _)| ip),
        several: known.marks.several_ips,
        condemned: known.marks.bad_for_good,
        asked: able.map_or(0, |able| able.asked),
        passed: able.map_or(0, |able| able.passed),
    })
}
