//! What somebody may ask for the exits of a username: another one, and a ban. One code for the client that asks
//! `http://exit.gate/` about its own, and for the operator who asks the API about any.
//!
//! A promise is moved only to an exit that was just seen to work and to have another address: the successor is chosen,
//! tested ahead of everything else, and then moved to. An exit that fails its test is told so by the test itself, and
//! the next one is tried; when none passes everything stays as it was.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Outbound, Wish};
use crate::exit::{Exit, ExitId, Moment};
use crate::net::{Host, Target};
use crate::route::ban::Site;
use crate::route::{self, Ask, Explanation, Successor, Why, decide, explain, succeed, successor};
use crate::state::Change;

/// Successors that are tested before the caller is told that none is good. Arbitrary: of recently good exits nine in
/// ten pass again, so that five failures say that something else is wrong.
const TRIES: usize = 5;

/// The longest word for what a site did.
const OUTCOME_MAX: usize = 64;

/// What a test of an exit that is wanted now came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It works, and sites see it with these addresses.
    Good(Vec<IpAddr>),
    /// It does not, or cannot be tested.
    Not(String),
}

/// Tests an exit ahead of everything else. The tester is a room beside this one, so `app` hands in how to ask it.
pub type Verify = Arc<dyn Fn(ExitId) -> Pin<Box<dyn Future<Output = Proof> + Send>> + Send + Sync>;

/// A rotation that came about.
#[derive(Clone, Debug)]
pub struct Turned {
    /// The exit before, if there was one.
    pub before: Option<ExitId>,
    /// The address before.
    pub before_ip: Option<IpAddr>,
    /// The exit now, as it was just tested.
    pub after: Arc<Exit>,
    /// The address that the test saw.
    pub after_ip: Option<IpAddr>,
}

/// Why there is no other exit. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RotateFault {
    /// There is none.
    #[error("there is no other exit for this: {}", no_other(.0))]
    NoOther(Box<route::Refusal>),
    /// There are others, and those that were tried failed.
    #[error("{tried} other exits were tested and none is good now ({last}); nothing was changed")]
    NoneGood {
        /// How many.
        tried: usize,
        /// What the last one's test said.
        last: String,
    },
    /// The time was up.
    #[error("no other exit was verified in time; nothing was changed")]
    Slow,
}

/// "Every such exit has failed this request" is what a choice says that has nothing left; here it is what it has.
fn no_other(refusal: &route::Refusal) -> String {
    match refusal.why {
        Why::AllFailed => format!("what it has is all there is ({})", refusal.funnel),
        _ => refusal.to_string(),
    }
}

/// A ban that somebody's word made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    /// The site.
    pub site: Site,
    /// The exit that it refuses.
    pub exit: ExitId,
    /// Until when.
    pub until: Moment,
}

/// Why a word of a scraper was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// Nobody knows the exit.
    #[error("`exit`: no exit {0:?} is known")]
    UnknownExit(String),
    /// It may have been any of several.
    #[error("`exit` is missing, and no session or pin says which one it was")]
    WhichExit,
    /// What it says of the exit is no complaint.
    #[error("`outcome` is at most {OUTCOME_MAX} printable characters that say what went wrong, such as `blocked`")]
    Outcome,
    /// It could not be kept.
    #[error("the ban could not be kept")]
    Ours,
}

impl Outbound {
    /// Gives the holder of this wish another exit, verified, with another IP.
    pub async fn rotate(&self, key: &str, wish: &Wish, by: Instant) -> Result<Turned, RotateFault> {
        let mut avoid: Vec<ExitId> = Vec::new();
        let mut last = String::new();
        while avoid.len() < TRIES {
            let next = self.ask(key, wish, &avoid, |view, memory, ask| {
                successor(view, memory, ask, &mut rand::rng()).map_err(RotateFault::NoOther)
            });
            let next = match next {
                Err(_) if !avoid.is_empty() => break,
                next => next?,
            };
            match self.proof(next.exit.id(), by).await? {
                Proof::Good(ips) if ips.first().is_none_or(|ip| Some(*ip) != next.before_ip) => {
                    if let Some(turned) = self.move_on(key, wish, &next, ips, by).await? {
                        return Ok(turned);
                    }
                }
                Proof::Good(_) => last = "it shows the address that is to be left".to_owned(),
                Proof::Not(why) => last = why,
            }
            avoid.push(next.exit.id().clone());
        }
        Err(RotateFault::NoneGood { tried: avoid.len(), last })
    }

    /// Moves to a successor that was verified; `None` if somebody else has moved meanwhile.
    async fn move_on(
        &self,
        key: &str,
        wish: &Wish,
        next: &Successor,
        ips: Vec<IpAddr>,
        by: Instant,
    ) -> Result<Option<Turned>, RotateFault> {
        let state = &self.parts.state;
        let pooled = wish.is_pooled();
        let old: Vec<ExitId> = if pooled { self.explained(key, wish).pool } else { Vec::new() };
        let Some(rotated) = self.ask(key, wish, &[], |view, memory, ask| succeed(view, memory, ask, next)) else {
            return Ok(None);
        };
        state.make_durable(rotated.events).await;
        if !pooled {
            return Ok(Some(turned(next, next.exit.clone(), ips)));
        }
        if let Some(entry) = wish.entry.as_ref().filter(|_| wish.is_whole()) {
            let name = entry.route.name.clone();
            state.apply(Change::Rotated(name)).await.map_err(|_| RotateFault::Slow)?;
        }
        self.first_of_new(key, wish, next, old, ips, by).await.map(Some)
    }

    /// The exit that a pool which was just turned leads with: one that it did not have, and that works.
    async fn first_of_new(
        &self,
        key: &str,
        wish: &Wish,
        next: &Successor,
        old: Vec<ExitId>,
        ips: Vec<IpAddr>,
        by: Instant,
    ) -> Result<Turned, RotateFault> {
        let mut avoid = old;
        for _ in 0..TRIES {
            let plan = self.ask(key, wish, &avoid, |view, memory, ask| {
                decide(view, memory, ask, &mut rand::rng()).map_err(RotateFault::NoOther)
            })?;
            let exit = plan.first().clone();
            if exit.id() == next.exit.id() {
                return Ok(turned(next, exit, ips));
            }
            match self.proof(exit.id(), by).await? {
                Proof::Good(ips) => return Ok(turned(next, exit, ips)),
                Proof::Not(_) => avoid.push(exit.id().clone()),
            }
        }
        Ok(turned(next, next.exit.clone(), ips))
    }

    async fn proof(&self, exit: &ExitId, by: Instant) -> Result<Proof, RotateFault> {
        timeout_at(by, (self.parts.verify)(exit.clone())).await.map_err(|_| RotateFault::Slow)
    }

    /// Takes somebody's word that a site refuses an exit: the one that is named, or the one that serves this wish.
    pub async fn report(
        &self,
        key: &str,
        wish: &Wish,
        site: &Host,
        exit: Option<&str>,
        outcome: Option<&str>,
    ) -> Result<Banned, ReportFault> {
        let outcome = outcome.unwrap_or("refused");
        let is_word = outcome.len() <= OUTCOME_MAX && !outcome.chars().any(char::is_control);
        if !is_word || outcome.is_empty() || outcome.eq_ignore_ascii_case("ok") {
            return Err(ReportFault::Outcome);
        }
        let exit = match exit {
            Some(text) => self.named(text).ok_or_else(|| ReportFault::UnknownExit(text.chars().take(64).collect()))?,
            None => bound(&self.explained(key, wish)).cloned().ok_or(ReportFault::WhichExit)?,
        };
        let state = &self.parts.state;
        let (site, until) = (Site::of(site), state.now().after(self.terms.load().ban_for));
        let why = format!("reported: {outcome}");
        tracing::info!(%exit, %why, "a site refuses an exit");
        let ban = Change::Banned { site: site.clone(), exit: exit.clone(), until, why };
        state.apply(ban).await.map_err(|error| {
            tracing::error!(%error, "a ban could not be made");
            ReportFault::Ours
        })?;
        Ok(Banned { site, exit, until })
    }

    /// What this wish uses, without using it.
    pub(super) fn explained(&self, key: &str, wish: &Wish) -> Explanation {
        self.ask(key, wish, &[], explain)
    }

    fn ask<T>(
        &self,
        key: &str,
        wish: &Wish,
        avoid: &[ExitId],
        act: impl FnOnce(route::View<'_>, &route::Memory, &Ask<'_>) -> T,
    ) -> T {
        let (state, target) = (&self.parts.state, nowhere());
        let snapshot = state.load();
        act(snapshot.view(), state.memory(), &Ask { wish, key, target: &target, now: state.now(), avoid, plain: false })
    }

    /// An exit by its fingerprint or by the address that sites see.
    fn named(&self, text: &str) -> Option<ExitId> {
        let snapshot = self.parts.state.load();
        if let Ok(fingerprint) = text.parse() {
            return snapshot.catalog.get(&ExitId::Tor(fingerprint)).map(|exit| exit.id().clone());
        }
        let ip = text.parse().ok()?;
        snapshot.catalog.by_ip(ip).next().map(|exit| exit.id().clone())
    }
}

fn turned(next: &Successor, after: Arc<Exit>, ips: Vec<IpAddr>) -> Turned {
    let after_ip = ips.first().copied().or_else(|| after.ip());
    Turned { before: next.before.clone(), before_ip: next.before_ip, after, after_ip }
}

/// The one exit that a session or a pin is bound to.
pub(super) fn bound(said: &Explanation) -> Option<&ExitId> {
    said.session.as_ref().or(said.pin.as_ref().map(|pin| &pin.exit))
}

/// Errands have no target; an exit that serves the web stands for all.
fn nowhere() -> Target {
    Target { host: Host::Name("exit.gate".into()), port: 443 }
}

#[cfg(test)]
mod tests;
