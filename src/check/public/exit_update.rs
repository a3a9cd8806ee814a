//! What was found out about a proxy, in the words of those who keep it.
//!
//! `known` is what is known by now, with what was learned a moment ago and has not been told yet; it learns too. What the
//! lesson itself leaves alone it reads when it is told, not before: two lessons of one proxy may be told together.

use std::net::IpAddr;

use super::super::exit_update::Geo;
use super::report::{Why, Works};
use crate::exit::facts::Known;
use crate::exit::{Abilities, Exit, ExitId, Moment, PublicId, Verdict};
use crate::state::ExitUpdate;
use crate::store::{self, Write};

/// It works.
pub(super) fn good(exit: &Exit, known: &mut Known, works: Works, geo: &Geo, now: Moment) -> ExitUpdate {
    let seen: Vec<_> = works.ips.iter().map(|ip| (*ip, geo(*ip))).collect();
    let Works { anonymity, tunnels, tls, took, connect, .. } = works;
    learned(exit, known, now, 0, move |known| {
        let (passed, asked) = known.public.map_or((0, 0), |able| (able.passed, able.asked));
        (known.checked, known.good, known.verdict) = (Some(now), Some(now), Verdict::Good);
        known.public = Some(Abilities { anonymity, tunnels, tls, took, passed, asked });
        known.latency = Some(connect);
        seen.iter().for_each(|(ip, country)| known.saw(*ip, *country, now));
    })
}

/// The long test was passed, or not.
pub(super) fn lasts(
    exit: &Exit,
    known: &mut Known,
    (passed, asked): (u16, u16),
    well: bool,
    failures: u32,
    now: Moment,
) -> ExitUpdate {
    learned(exit, known, now, failures, move |known| {
        known.checked = Some(now);
        known.verdict = if well { Verdict::Good } else { Verdict::Bad };
        if well {
            known.good = Some(now);
        }
        if let Some(able) = &mut known.public {
            (able.passed, able.asked) = (passed, asked);
        }
    })
}

/// It does not work.
pub(super) fn bad(exit: &Exit, known: &mut Known, failures: u32, now: Moment) -> ExitUpdate {
    learned(exit, known, now, failures, move |known| (known.checked, known.verdict) = (Some(now), Verdict::Bad))
}

/// It was caught, and is bad for good.
pub(super) fn condemned(exit: &Exit, known: &mut Known, why: Why, now: Moment) -> ExitUpdate {
    tracing::info!(exit = %exit.id(), %why, "a public proxy is bad for good");
    learned(exit, known, now, 1, move |known| {
        (known.checked, known.verdict) = (Some(now), Verdict::Bad);
        known.marks.bad_for_good = true;
    })
}

/// A change of what is known, and the row that is kept of it: of those that have worked once, or were caught.
fn learned(
    exit: &Exit,
    known: &mut Known,
    now: Moment,
    failures: u32,
    change: impl Fn(&mut Known) + Send + 'static,
) -> ExitUpdate {
    change(known);
    let kept = known.good.is_some() || known.marks.bad_for_good;
    let row = kept.then(|| row(exit, known, failures, now)).flatten();
    ExitUpdate {
        exit: exit.id().clone(),
        update: Box::new(change),
        ban: None,
        writes: row.map(Write::PutPublic).into_iter().collect(),
    }
}

fn row(exit: &Exit, known: &Known, failures: u32, now: Moment) -> Option<store::Public> {
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
