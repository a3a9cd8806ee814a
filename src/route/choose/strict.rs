//! Connections of a strict route: one IP, or an error.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::Rng;

use super::super::event::{Cause, Event};
use super::super::explain::{Refusal, Why};
use super::super::memory::is_up;
use super::super::pin::{Held, Pin, Pinned};
use super::{super::balance::lead, Case, Plan};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, Moment};

/// Exits looked at for a new pin: what the fewest pins use is known before, so that load alone tells them apart, and each
/// costs a look at its address. Arbitrary: the best of two, and two to spare.
const PINNABLE: usize = 4;

/// Proposals before a strict ask gives up: each that fails means that somebody else's came in between.
const TRIES: usize = 16;

impl<'a> Case<'a> {
    pub(super) fn strict<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<Refusal>> {
        for _ in 0..TRIES {
            let Some(held) = self.memory.pins().look(self.holder, self.ask.now) else {
                match self.fresh(None, rng) {
                    Some(found) => match self.propose(found, None) {
                        Some(plan) => return plan,
                        None => continue,
                    },
                    // The last free address may just have gone to this very holder, asked for by another connection.
                    None if self.memory.pins().of(self.holder, self.ask.now).is_some() => continue,
                    None => return Err(self.refuse()),
                }
            };
            match self.held(&held, rng) {
                Some(plan) => return plan,
                None => continue,
            }
        }
        Err(self.refuse_as(Why::Exclusive))
    }

    /// What becomes of a pin that there is; `None` if somebody else changed it meanwhile.
    fn held<R: Rng + ?Sized>(&self, held: &Held, rng: &mut R) -> Option<Result<Plan, Box<Refusal>>> {
        let exit = self.view.catalog.get(&held.to.exit).filter(|exit| is_up(exit, &held.to) && self.is_wanted(exit));
        let Some(exit) = exit else { return self.down(held, rng) };
        if held.down.is_some() {
            self.memory.pins().note(self.holder, &held.to, false, self.ask.now);
        }
        if self.need.policy.rotate_every.is_some_and(|every| self.ask.now.since(held.made) >= every)
            && let Some(other) = self.fresh(Some(&held.to), rng)
        {
            return self.propose(other, Some((&held.to, Cause::Rotated)));
        }
        if !self.takes(exit) {
            return Some(Err(self.refuse_as(Why::PinPort { exit: exit.id().clone() })));
        }
        Some(Ok(Plan::new(self, vec![exit.clone()])))
    }

    /// The pinned exit is down. Another exit behind the same address keeps the promise, and may take over at once; any
    /// other only after `repin_after`.
    fn down<R: Rng + ?Sized>(&self, held: &Held, rng: &mut R) -> Option<Result<Plan, Box<Refusal>>> {
        let since = self.memory.pins().note(self.holder, &held.to, true, self.ask.now)?;
        if let Some(twin) = self.twin(held.to.ip) {
            return self.propose(twin, Some((&held.to, Cause::Down)));
        }
        let repin_at = self.need.policy.repin_after.map(|after| since.after(after));
        if repin_at.is_some_and(|at| at <= self.ask.now)
            && let Some(other) = self.fresh(Some(&held.to), rng)
        {
            return self.propose(other, Some((&held.to, Cause::Down)));
        }
        Some(Err(self.refuse_as(self.pin_down(&held.to, since, repin_at))))
    }

    fn pin_down(&self, to: &Pinned, since: Moment, repin_at: Option<Moment>) -> Why {
        Why::PinDown { exit: to.exit.clone(), ip: to.ip, since, repin_at }
    }

    /// Proposes an exit; `None` if another proposal came first, or the address was taken meanwhile.
    fn propose(&self, exit: &Arc<Exit>, instead_of: Option<(&Pinned, Cause)>) -> Option<Result<Plan, Box<Refusal>>> {
        let events = self.pin(exit, instead_of)?;
        Some(Ok(Plan { events, ..Plan::new(self, vec![exit.clone()]) }))
    }

    /// Pins an exit; `None` if that did not come about.
    pub(super) fn pin(&self, exit: &Exit, instead_of: Option<(&Pinned, Cause)>) -> Option<Vec<Event>> {
        let to = Pinned { exit: exit.id().clone(), ip: exit.v4()? };
        let terms = (self.need.policy.pin_term(self.need.selector), self.need.policy.exclusive);
        match self.memory.pins().pin(self.holder, &to, instead_of, terms, self.ask.now) {
            Pin::Made(events) => {
                self.memory.changed();
                Some(events)
            }
            Pin::Other(_) | Pin::Taken => None,
        }
    }

    /// An exit that may stand in for another behind the same address.
    fn twin(&self, ip: Ipv4Addr) -> Option<&'a Arc<Exit>> {
        let mut twins = self.view.catalog.behind(ip.into());
        twins.keep(self.view.catalog.distinct());
        twins.keep(&self.fitting());
        twins.iter().filter_map(|slot| self.view.catalog.at(slot)).find(|exit| exit.v4() == Some(ip))
    }

    /// An exit for a new pin, with another address than `not`: the best of two, of those that the fewest pins use.
    pub(super) fn fresh<R: Rng + ?Sized>(&self, not: Option<&Pinned>, rng: &mut R) -> Option<&'a Arc<Exit>> {
        let catalog = self.view.catalog;
        let mut free = self.fitting();
        free.keep(catalog.distinct());
        free.drop(&not.map_or_else(Bits::default, |not| catalog.behind(not.ip.into())));
        let least = self.memory.pins().least_used(catalog, &free, self.need.policy.exclusive);
        // Which addresses are used may have been seen a moment ago; each one drawn is asked for anew.
        self.pinnable(&least, not, rng).or_else(|| self.pinnable(&free, not, rng))
    }

    fn pinnable<R: Rng + ?Sized>(&self, from: &Bits, not: Option<&Pinned>, rng: &mut R) -> Option<&'a Arc<Exit>> {
        let pins = self.memory.pins();
        let pinnable = |exit: &'a Arc<Exit>| {
            let ip = exit.v4().filter(|ip| not.is_none_or(|not| not.ip != *ip))?;
            Some((pins.free(ip, self.need.policy.exclusive)?, exit))
        };
        let drawn = self.draw_some(from, PINNABLE, rng, pinnable);
        let fewest = drawn.iter().map(|(uses, _)| *uses).min()?;
        let mut best: Vec<_> = drawn.into_iter().filter(|(uses, _)| *uses == fewest).map(|(_, exit)| exit).collect();
        let closed: Vec<_> = best.iter().copied().filter(|exit| self.is_closed(exit)).collect();
        if !closed.is_empty() {
            best = closed;
        }
        lead(&mut best, 1, self.ask.now, rng);
        best.pop()
    }
}
