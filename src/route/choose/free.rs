//! Chooses exits for connections without session or pin: the best exit of the pool, or another exit for each connection
//! (`rotate`).

use std::sync::Arc;

use rand::{Rng, RngExt};

use super::super::balance::lead;
use super::super::no_plan::NoPlan;
use super::super::pool::Pool;
use super::super::selector::Mode;
use super::{Chooser, EXITS, Plan};
use crate::exit::Exit;
use crate::exit::load::State;

/// Every member of a pool up to this size is examined. From a larger pool only a few members are drawn. Not tuned.
const SMALL: usize = 32;

/// The number of members drawn from a large pool. If too few of them are suitable, the whole pool is examined. Not
/// tuned: if half of the members are suitable, one connection in a thousand finds fewer than three.
const DRAWS: usize = 16;

impl<'a> Chooser<'a> {
    pub(super) fn free<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<NoPlan>> {
        let pool = if self.need.selector.exit.is_none() { self.pool() } else { Arc::default() };
        let rotating = self.need.selector.mode == Mode::Rotate;
        let last = if rotating { self.memory.last(self.holder) } else { None };
        let mut exits = self.free_exits(&pool, last, rng);
        if exits.is_empty() {
            return Err(self.refuse());
        }
        if let Some(trial) = exits.iter().position(|exit| self.claims_trial(exit)) {
            exits[..=trial].rotate_right(1);
        }
        Ok(Plan::new(self, exits.into_iter().cloned().collect()))
    }

    /// Returns up to three exits, best first: members of the pool, then its slow members, then exits outside the pool,
    /// then ejected exits. `last` is the seed (a hash) of the exit that the holder's previous connection used. This
    /// exit comes last in the result. `None` if no previous exit is known.
    fn free_exits<R: Rng + ?Sized>(&self, pool: &Pool, last: Option<u64>, rng: &mut R) -> Vec<&'a Arc<Exit>> {
        let mut exits = self.members(pool, rng);
        let trials: Vec<_> = exits.extract_if(.., |exit| self.is_due(exit)).collect();
        let repeated = |exit: &&mut &'a Arc<Exit>| Some(exit.seed()) == last;
        let repeat: Vec<_> = exits.extract_if(.., |exit| repeated(&exit)).collect();
        // An ejected exit that is due for a trial (one dial that shows whether the exit works again) gets a place of
        // its own in the result. Otherwise three suitable members would fill the result, and the trial would never be
        // made.
        let trial = trials.into_iter().next();
        let places = EXITS - usize::from(trial.is_some());
        lead(&mut exits, places, self.ask.now, rng);
        if exits.len() + repeat.len() < 2 {
            exits.extend(self.slow(pool, places - exits.len() - repeat.len(), rng));
        }
        if exits.len() + repeat.len() < 2 {
            exits.extend(self.beyond(pool, places - exits.len() - repeat.len(), last, rng));
        }
        exits.extend(trial);
        exits.extend(repeat);
        if exits.is_empty() {
            exits = self.ejected(pool, rng);
        }
        exits.truncate(EXITS);
        exits
    }

    /// Returns the members that are suitable and not ejected. Members that are due for a trial are included.
    fn members<R: Rng + ?Sized>(&self, pool: &Pool, rng: &mut R) -> Vec<&'a Arc<Exit>> {
        let open = |exit: &Exit| self.fits(exit) && !matches!(exit.load().state(self.ask.now), State::Ejected(_));
        let catalog = self.view.catalog;
        let members = pool.members();
        if members.len() > SMALL {
            let mut drawn: Vec<&Arc<Exit>> = Vec::with_capacity(EXITS + 1);
            for _ in 0..DRAWS {
                let exit = members[rng.random_range(0..members.len())].exit(catalog);
                let new = |exit: &&Arc<Exit>| open(exit) && drawn.iter().all(|other| other.slot() != exit.slot());
                drawn.extend(exit.filter(new));
                if drawn.len() > EXITS {
                    return drawn;
                }
            }
        }
        members.iter().filter_map(|member| member.exit(catalog)).filter(|exit| open(exit)).collect()
    }

    /// Returns members that were ejected because they were slow. These members work, and a route with a pool of three
    /// addresses should use these three before it uses a fourth.
    fn slow<R: Rng + ?Sized>(&self, pool: &Pool, count: usize, rng: &mut R) -> Vec<&'a Arc<Exit>> {
        let members = pool.members().iter().take(SMALL).filter_map(|member| member.exit(self.view.catalog));
        let out = |exit: &Exit| matches!(exit.load().state(self.ask.now), State::Ejected(_)) && exit.load().is_slow();
        let mut slow: Vec<_> = members.filter(|exit| self.fits(exit) && out(exit)).collect();
        lead(&mut slow, count, self.ask.now, rng);
        slow
    }

    /// Returns suitable exits outside the pool.
    fn beyond<R: Rng + ?Sized>(&self, pool: &Pool, count: usize, last: Option<u64>, rng: &mut R) -> Vec<&'a Arc<Exit>> {
        let mut free = self.fitting();
        pool.members()
            .iter()
            .filter_map(|member| member.exit(self.view.catalog))
            .for_each(|exit| free.set(exit.slot(), false));
        let mut drawn = self.draw(&free, rng, |exit| self.is_closed(exit) && Some(exit.seed()) != last);
        lead(&mut drawn, count, self.ask.now, rng);
        drawn
    }

    /// Returns suitable exits that are ejected. This function is called when all suitable exits are ejected. The result
    /// has members of the pool if there are any, and other exits otherwise.
    pub(super) fn ejected<R: Rng + ?Sized>(&self, pool: &Pool, rng: &mut R) -> Vec<&'a Arc<Exit>> {
        let of_pool = pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let mut exits: Vec<_> = of_pool.filter(|exit| self.fits(exit)).collect();
        if exits.is_empty() {
            exits = self.draw(&self.fitting(), rng, |_| true);
        }
        lead(&mut exits, EXITS, self.ask.now, rng);
        exits
    }

    fn is_due(&self, exit: &Exit) -> bool {
        exit.load().state(self.ask.now) == State::HalfOpen
    }

    /// Claims the trial of an ejected exit (one dial that shows whether the exit works again). Returns true if this
    /// connection makes the trial. The caller then puts the exit first in the plan, because the trial would hardly ever
    /// be made at a later place.
    fn claims_trial(&self, exit: &Exit) -> bool {
        self.is_due(exit) && exit.load().claim_trial(self.ask.now)
    }
}
