//! Gives a username another exit, and accepts reports that a site refuses an exit. Clients send requests to
//! `http://exit.gate/` for their own username, and operators use the API for any username. This module carries out both
//! kinds of request.
//!
//! A session or a pin moves only to an exit that was just tested with success and has another address. A successor is
//! chosen, is tested before everything else in the tester's queue, and is used only if the test succeeds. If the test
//! fails, the next successor is tried. If all tests fail, nothing changes.

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

/// The maximum number of successors that one rotation tests. Nine of ten exits that recently passed a test pass the
/// next test too. If five exits in a row fail, something other than the exits must be wrong. Not tuned.
const TRIES: usize = 5;

/// The maximum length of the field `outcome` in a report, in bytes.
const OUTCOME_MAX: usize = 64;

/// The result of an immediate test of an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The exit works. The field lists the addresses of this exit that sites see.
    Good(Vec<IpAddr>),
    /// The exit does not work, or the exit cannot be tested. The text is the reason.
    Not(String),
}

/// A function that tests an exit before everything else in the tester's queue. `app` supplies this function, because
/// the modules `gateway` and `check` must not depend on each other.
pub type Verify = Arc<dyn Fn(ExitId) -> Pin<Box<dyn Future<Output = Proof> + Send>> + Send + Sync>;

/// A successful rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The exit before the rotation. `None` if there was none.
    pub before: Option<ExitId>,
    pub before_ip: Option<IpAddr>,
    /// The exit after the rotation.
    pub after: Arc<Exit>,
    /// The address of the new exit that was seen in the exit's test. `None` if no address is known.
    pub after_ip: Option<IpAddr>,
}

/// Why a rotation failed. A failed rotation changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum RotateFault {
    #[error("there is no other exit: {}", no_other(.0))]
    NoOther(Box<route::NoPlan>),
    /// Other exits exist, but all those that were tested failed.
    #[error("{tried} other exits were tested and none is good now ({last}); nothing was changed")]
    NoneGood {
        tried: usize,
        /// The reason why the last tested exit failed.
        last: String,
    },
    #[error("no other exit was verified in time; nothing was changed")]
    Slow,
}

/// Returns a text for people that says why there is no other exit. A refusal with the reason that every exit has failed
/// the request would be misleading here: in a rotation this reason means that there is no exit except the present one.
fn no_other(refusal: &route::NoPlan) -> String {
    match refusal.why {
        Why::AllFailed => format!("those in use are the only ones ({})", refusal.funnel),
        _ => refusal.to_string(),
    }
}

/// A ban that was made because of a client's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    pub site: Site,
    /// The exit that the site refuses.
    pub exit: ExitId,
    pub until: Moment,
}

/// Why a report was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    #[error("`exit`: no exit {0:?} is known")]
    UnknownExit(String),
    #[error("`exit` is missing, and this username has neither a session nor a pin that names one")]
    WhichExit,
    #[error("`outcome` is at most {OUTCOME_MAX} printable characters that say what went wrong, such as `blocked`")]
    Outcome,
    #[error("the ban could not be stored")]
    Ours,
}

impl Outbound {
    /// Moves a username of this key to another exit. The new exit has been tested and has another IP address.
    pub async fn rotate(&self, key: &str, wish: &Wish, by: Instant) -> Result<Rotation, RotateFault> {
        let mut avoid: Vec<ExitId> = Vec::new();
        let mut last = String::new();
        while avoid.len() < TRIES {
            let next = self.question(key, wish, &avoid, |view, memory, ask| {
                successor(view, memory, ask, &mut rand::rng()).map_err(RotateFault::NoOther)
            });
            let next = match next {
                Err(_) if !avoid.is_empty() => break,
                next => next?,
            };
            match self.test(next.exit.id(), by).await? {
                Proof::Good(ips) if ips.first().is_none_or(|ip| Some(*ip) != next.before_ip) => {
                    if let Some(rotation) = self.move_to(key, wish, &next, ips, by).await? {
                        return Ok(rotation);
                    }
                }
                Proof::Good(_) => last = "it has the same address as the exit before".to_owned(),
                Proof::Not(why) => last = why,
            }
            avoid.push(next.exit.id().clone());
        }
        Err(RotateFault::NoneGood { tried: avoid.len(), last })
    }

    /// Moves the session, pin or pool of a username to a tested successor. Returns `None` if another rotation came
    /// first.
    async fn move_to(
        &self,
        key: &str,
        wish: &Wish,
        next: &Successor,
        ips: Vec<IpAddr>,
        by: Instant,
    ) -> Result<Option<Rotation>, RotateFault> {
        let state = &self.parts.state;
        let pooled = wish.is_pooled();
        let old: Vec<ExitId> = if pooled { self.explained(key, wish).pool } else { Vec::new() };
        let Some(rotated) = self.question(key, wish, &[], |view, memory, ask| succeed(view, memory, ask, next)) else {
            return Ok(None);
        };
        state.make_durable(rotated.events).await;
        if !pooled {
            return Ok(Some(rotation(next, next.exit.clone(), ips)));
        }
        if let Some(entry) = wish.entry.as_ref().filter(|_| wish.is_whole()) {
            let name = entry.route.name.clone();
            state.apply(Change::Rotated(name)).await.map_err(|_| RotateFault::Slow)?;
        }
        self.first_of_new_pool(key, wish, next, old, ips, by).await.map(Some)
    }

    /// Returns the first exit of a pool that was just rotated. This exit must work and must not have been in the pool
    /// before the rotation.
    async fn first_of_new_pool(
        &self,
        key: &str,
        wish: &Wish,
        next: &Successor,
        old: Vec<ExitId>,
        ips: Vec<IpAddr>,
        by: Instant,
    ) -> Result<Rotation, RotateFault> {
        let mut avoid = old;
        for _ in 0..TRIES {
            let plan = self.question(key, wish, &avoid, |view, memory, ask| {
                decide(view, memory, ask, &mut rand::rng()).map_err(RotateFault::NoOther)
            })?;
            let exit = plan.first().clone();
            if exit.id() == next.exit.id() {
                return Ok(rotation(next, exit, ips));
            }
            match self.test(exit.id(), by).await? {
                Proof::Good(ips) => return Ok(rotation(next, exit, ips)),
                Proof::Not(_) => avoid.push(exit.id().clone()),
            }
        }
        Ok(rotation(next, next.exit.clone(), ips))
    }

    async fn test(&self, exit: &ExitId, by: Instant) -> Result<Proof, RotateFault> {
        timeout_at(by, (self.parts.verify)(exit.clone())).await.map_err(|_| RotateFault::Slow)
    }

    /// Bans an exit for a site, because a client reports that the site refuses the exit. If `exit` is `None`, the exit
    /// that serves this username is banned.
    pub async fn report(
        &self,
        key: &str,
        wish: &Wish,
        site: &Host,
        exit: Option<&str>,
        outcome: Option<&str>,
    ) -> Result<Banned, ReportFault> {
        let outcome = outcome.unwrap_or("refused");
        let is_short_text = outcome.len() <= OUTCOME_MAX && !outcome.chars().any(char::is_control);
        if !is_short_text || outcome.is_empty() || outcome.eq_ignore_ascii_case("ok") {
            return Err(ReportFault::Outcome);
        }
        let exit = match exit {
            Some(text) => self.named(text).ok_or_else(|| ReportFault::UnknownExit(text.chars().take(64).collect()))?,
            None => bound_exit(&self.explained(key, wish)).cloned().ok_or(ReportFault::WhichExit)?,
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

    /// Explains which exits a username would use. This call opens no stream.
    pub(super) fn explained(&self, key: &str, wish: &Wish) -> Explanation {
        self.question(key, wish, &[], explain)
    }

    /// Calls `act` with the present snapshot and with the arguments for a choice of exits. The target in the arguments
    /// stands for all targets.
    fn question<T>(
        &self,
        key: &str,
        wish: &Wish,
        avoid: &[ExitId],
        act: impl FnOnce(route::View<'_>, &route::Memory, &Ask<'_>) -> T,
    ) -> T {
        let (state, target) = (&self.parts.state, any_web_target());
        let snapshot = state.load();
        act(snapshot.view(), state.memory(), &Ask { wish, key, target: &target, now: state.now(), avoid, plain: false })
    }

    /// Finds an exit by its id or by the address that sites see. Returns `None` if there is no such exit.
    fn named(&self, text: &str) -> Option<ExitId> {
        let snapshot = self.parts.state.load();
        if let Ok(fingerprint) = text.parse() {
            return snapshot.catalog.get(&ExitId::Tor(fingerprint)).map(|exit| exit.id().clone());
        }
        match text.parse() {
            Ok(ip) => snapshot.catalog.by_ip(ip).next().map(|exit| exit.id().clone()),
            // The id of a proxy, as in `X-Exitgate-Exit`.
            Err(_) => snapshot.catalog.iter().map(|exit| exit.id()).find(|id| id.to_string() == text).cloned(),
        }
    }
}

fn rotation(next: &Successor, after: Arc<Exit>, ips: Vec<IpAddr>) -> Rotation {
    let after_ip = ips.first().copied().or_else(|| after.ip());
    Rotation { before: next.before.clone(), before_ip: next.before_ip, after, after_ip }
}

/// Returns the one exit to which a session or a pin is bound. Returns `None` if there is no such exit.
pub(super) fn bound_exit(explained: &Explanation) -> Option<&ExitId> {
    explained.session.as_ref().or(explained.pin.as_ref().map(|pin| &pin.exit))
}

/// Returns a target that stands for all targets. It is used for requests that have no target. Nearly all exits allow
/// port 443.
fn any_web_target() -> Target {
    Target { host: Host::Name("exit.gate".into()), port: 443 }
}

#[cfg(test)]
mod tests;
