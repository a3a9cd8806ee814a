//! Chooses exits for the connections of a strict route: each connection gets the one fixed IP of its holder, or an
//! error.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;

use super::super::ban::Site;
use super::super::event::{Cause, Event};
use super::super::memory::is_up;
use super::super::no_plan::{NoPlan, Why};
use super::super::pin::{CurrentPin, PinResult, PinnedExit};
use super::super::pinned::Pinned;
use super::{super::balance::lead, Chooser, Plan};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, Moment};

/// The number of exits whose loads are compared for a new pin. These exits are drawn at random, weighted by capacity,
/// from the exits whose addresses the fewest pins use. Not tuned: each compared exit costs a look-up of its address,
/// two exits would be enough, and two more are a reserve.
const PINNABLE: usize = 4;

/// The number of proposals before a strict connection gives up. A proposal fails if another connection's proposal was
/// earlier. Not tuned: any value above the number of threads is enough.
const TRIES: usize = 16;

impl<'a> Chooser<'a> {
    pub(super) fn strict<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<NoPlan>> {
        for _ in 0..TRIES {
            let Some(pin) = self.memory.pins().touch(self.holder, self.ask.now) else {
                match self.fresh(None, rng) {
                    Some(found) => match self.propose(found, None) {
                        Some(plan) => return plan,
                        None => continue,
                    },
                    // There is no free exit, but another connection of the same holder may have made the pin a moment
                    // ago. The loop then tries again, to use that pin.
                    None if self.memory.pins().of(self.holder, self.ask.now).is_some() => continue,
                    None => return Err(self.refuse()),
                }
            };
            match self.use_pin(&pin, rng) {
                Some(plan) => return plan,
                None => continue,
            }
        }
        Err(self.refuse_as(Why::Exclusive))
    }

    /// Returns the plan for a holder that has a pin. `None` if another connection changed the pin meanwhile.
    fn use_pin<R: Rng + ?Sized>(&self, pin: &CurrentPin, rng: &mut R) -> Option<Result<Plan, Box<NoPlan>>> {
        let Some(exit) = self.pinned_exit(pin) else { return self.down(pin, rng) };
        if pin.down.is_some() {
            self.memory.pins().note(self.holder, &pin.to, PinnedExit::Fits, self.ask.now);
        }
        if let Some(since) = exit.listing().unlisted
            && self.is_repin_due(since)
            && let Some(other) = self.fresh(Some(&pin.to), rng)
        {
            return self.propose(other, Some((&pin.to, Cause::Down)));
        }
        if self.need.policy.rotate_every.is_some_and(|every| self.ask.now.since(pin.made) >= every)
            && let Some(other) = self.fresh(Some(&pin.to), rng)
        {
            return self.propose(other, Some((&pin.to, Cause::Rotated)));
        }
        Some(match self.exit_problem(pin, exit) {
            Some(why) => Err(self.refuse_as(why)),
            None => Ok(Plan::new(self, vec![exit.clone()])),
        })
    }

    /// Returns the exit of a pin, if the exit is up and still meets the selector.
    fn pinned_exit(&self, pin: &CurrentPin) -> Option<&'a Arc<Exit>> {
        self.view.catalog.get(&pin.to.exit).filter(|exit| is_up(exit, &pin.to) && self.may_keep(exit))
    }

    /// Returns why a connection with this pin would be refused now. `None` if the connection would not be refused.
    pub(in crate::route) fn pin_problem(&self, pin: &CurrentPin) -> Option<Why> {
        match self.pinned_exit(pin) {
            Some(exit) => self.exit_problem(pin, exit),
            None => Some(self.pin_down(&pin.to, self.down_since(&pin.to, pin.down.unwrap_or(self.ask.now)))),
        }
    }

    /// Returns why the pinned exit, which is up, cannot serve this connection. A ban alone never moves a pin. The owner
    /// of the pin was promised that the IP changes only on request, and the refusal tells the owner that a rotation may
    /// help.
    fn exit_problem(&self, pin: &CurrentPin, exit: &Exit) -> Option<Why> {
        if !self.allows(exit) {
            return Some(Why::PinPort { exit: exit.id().clone() });
        }
        let until = self.bans?.until(exit.id(), self.ask.now)?;
        let Pinned { exit, ip } = pin.to.clone();
        let site = Site::of(&self.ask.target.host);
        Some(Why::PinBanned { exit, ip, site, until, scope: self.ask.wish.scope.clone() })
    }

    /// Handles a pinned exit that is down. Another exit with the same address keeps the promised IP and replaces the
    /// pinned exit immediately. An exit with another address replaces the pinned exit only after `repin_after`.
    fn down<R: Rng + ?Sized>(&self, pin: &CurrentPin, rng: &mut R) -> Option<Result<Plan, Box<NoPlan>>> {
        let up = self.view.catalog.get(&pin.to.exit).is_some_and(|exit| is_up(exit, &pin.to));
        let is = if up { PinnedExit::Unfit } else { PinnedExit::Down };
        let since = self.memory.pins().note(self.holder, &pin.to, is, self.ask.now)?;
        let since = self.down_since(&pin.to, since);
        if let Some(twin) = self.twin(pin.to.ip) {
            return self.propose(twin, Some((&pin.to, Cause::Down)));
        }
        if self.is_repin_due(since)
            && let Some(other) = self.fresh(Some(&pin.to), rng)
        {
            return self.propose(other, Some((&pin.to, Cause::Down)));
        }
        Some(Err(self.refuse_as(self.pin_down(&pin.to, since))))
    }

    /// Returns since when a pinned exit has been down. `noted` is the start of the down time that the pin has recorded.
    /// If the exit went missing from the directory before that time, the result is the time at which it went missing.
    /// At first, an exit that is missing from the directory still serves its pin, but that time counts as down time
    /// too.
    fn down_since(&self, to: &Pinned, noted: Moment) -> Moment {
        let unlisted = self.view.catalog.get(&to.exit).and_then(|exit| exit.listing().unlisted);
        unlisted.map_or(noted, |unlisted| unlisted.min(noted))
    }

    fn is_repin_due(&self, since: Moment) -> bool {
        self.repin_at(since).is_some_and(|at| at <= self.ask.now)
    }

    fn repin_at(&self, since: Moment) -> Option<Moment> {
        self.need.policy.repin_after.map(|after| since.after(after))
    }

    fn pin_down(&self, to: &Pinned, since: Moment) -> Why {
        Why::PinDown { exit: to.exit.clone(), ip: to.ip, since, repin_at: self.repin_at(since) }
    }

    /// Pins an exit and returns a plan with that exit. `None` if another connection was earlier, or if another pin took
    /// the address meanwhile.
    fn propose(&self, exit: &Arc<Exit>, instead_of: Option<(&Pinned, Cause)>) -> Option<Result<Plan, Box<NoPlan>>> {
        let events = self.pin(exit, instead_of)?;
        Some(Ok(Plan { events, ..Plan::new(self, vec![exit.clone()]) }))
    }

    /// Pins an exit. `None` if another connection was earlier, or if another pin took the address meanwhile.
    pub(super) fn pin(&self, exit: &Exit, instead_of: Option<(&Pinned, Cause)>) -> Option<Vec<Event>> {
        let to = Pinned { exit: exit.id().clone(), ip: exit.pinnable()? };
        let terms = (self.need.policy.pin_term(self.need.selector), self.need.policy.exclusive);
        match self.memory.pins().pin(self.holder, &to, instead_of, terms, self.ask.now) {
            PinResult::Made(events) => {
                self.memory.changed();
                Some(events)
            }
            PinResult::Other(_) | PinResult::Taken => None,
        }
    }

    /// Returns another usable exit with this address.
    fn twin(&self, ip: IpAddr) -> Option<&'a Arc<Exit>> {
        let mut twins = self.view.catalog.behind(ip);
        twins.keep(self.view.catalog.distinct());
        twins.keep(&self.fitting());
        twins.iter().filter_map(|slot| self.view.catalog.at(slot)).find(|exit| exit.pinnable() == Some(ip))
    }

    /// Returns an exit for a new pin, with another address than `not`. The exit is chosen by load from a few exits
    /// whose addresses the fewest pins use. Exits that are rarely down are preferred, because a pin is a promise for
    /// weeks.
    pub(super) fn fresh<R: Rng + ?Sized>(&self, not: Option<&Pinned>, rng: &mut R) -> Option<&'a Arc<Exit>> {
        let catalog = self.view.catalog;
        let mut free = self.fitting();
        free.keep(catalog.distinct());
        free.drop(&not.map_or_else(Bits::default, |not| catalog.behind(not.ip)));
        let least = self.memory.pins().least_used(catalog, &free, self.need.policy.exclusive);
        // The set of used addresses may be slightly out of date, so each exit that is drawn from the set is checked
        // again.
        let stable = least.and(catalog.stable());
        let found = self.pinnable(&stable, not, rng).or_else(|| self.pinnable(&least, not, rng));
        found.or_else(|| self.pinnable(&free, not, rng))
    }

    fn pinnable<R: Rng + ?Sized>(&self, from: &Bits, not: Option<&Pinned>, rng: &mut R) -> Option<&'a Arc<Exit>> {
        let pins = self.memory.pins();
        let pinnable = |exit: &'a Arc<Exit>| {
            let ip = exit.pinnable().filter(|ip| not.is_none_or(|not| not.ip != *ip))?;
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
