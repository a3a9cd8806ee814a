//! Connections of a session: where it is, as long as it can be there.
//!
//! What moves a session: its exit is gone or no longer what was asked for, the target's site bans it, a dial through it
//! failed by its own fault, or its time is over. What does not: another exit that comes or goes, its own exit's being
//! slow, full or ejected (others are kept off it, and whoever is logged in through it would rather wait), and one
//! connection to a port that its exit refuses, which takes another way without the session.

use std::sync::Arc;

use rand::Rng;

use super::super::balance::{lead, stir};
use super::super::event::{Cause, Moved};
use super::super::explain::Refusal;
use super::super::pool::Pool;
use super::super::session::Look;
use super::{Case, EXITS, Plan};
use crate::exit::{Exit, ExitId, Verdict};

impl<'a> Case<'a> {
    pub(super) fn sticky<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<Refusal>> {
        match self.memory.sessions().look(self.holder, self.ask.now) {
            Look::Absent => self.place(None, None, rng),
            // A stated time that is over asks for another exit; an idle session was forgotten, and may come back.
            Look::Ended(exit, term) => {
                self.place(Some((&exit, Cause::Expired)), Some(&exit).filter(|_| term.fixed), rng)
            }
            Look::Live(id) => match self.standing(&id) {
                Ok(exit) if self.takes(exit) => Ok(self.stay(exit, None, rng)),
                Ok(_) => self.detour(rng),
                Err(cause) => self.place(Some((&id, cause)), None, rng),
            },
        }
    }

    /// The exit that a session is on, unless something moves it.
    fn standing(&self, id: &ExitId) -> Result<&'a Arc<Exit>, Cause> {
        let exit = self.view.catalog.get(id).ok_or(Cause::Down)?;
        if !exit.alive() || exit.known().verdict == Verdict::Bad || !self.is_wanted(exit) {
            Err(Cause::Down)
        } else if self.is_banned(exit) {
            Err(Cause::Banned)
        } else if self.is_avoided(exit) {
            Err(Cause::Failed)
        } else {
            Ok(exit)
        }
    }

    /// Proposes a place, and goes where the session then is.
    fn place<R: Rng + ?Sized>(
        &self,
        from: Option<(&ExitId, Cause)>,
        leave: Option<&ExitId>,
        rng: &mut R,
    ) -> Result<Plan, Box<Refusal>> {
        let pool = self.session_pool();
        let proposal = self.proposal(&pool, leave, rng).or_else(|| leave.and_then(|_| self.proposal(&pool, None, rng)));
        let proposal = proposal.ok_or_else(|| self.refuse())?;
        let term = self.need.policy.session_term(self.need.selector);
        let before = from.map(|(from, _)| from);
        let bound = self.memory.sessions().bind(self.holder, proposal.id(), before, term, self.ask.now);
        let exit = self.view.catalog.get(&bound.exit).unwrap_or(proposal);
        let moved = from.filter(|(from, _)| *from != exit.id());
        let moved = moved.map(|(from, cause)| Moved { from: from.clone(), to: exit.id().clone(), cause });
        // Another connection's proposal may have come first, from one whose port is another.
        if self.takes(exit) { Ok(self.stay(exit, moved, rng)) } else { self.detour(rng) }
    }

    /// Rendezvous over the pool; what the pool cannot serve is drawn beyond it.
    pub(super) fn proposal<R: Rng + ?Sized>(
        &self,
        pool: &Pool,
        leave: Option<&ExitId>,
        rng: &mut R,
    ) -> Option<&'a Arc<Exit>> {
        let fits = |exit: &Exit| self.fits(exit) && self.is_closed(exit) && Some(exit.id()) != leave;
        let seed = self.holder.seed();
        let members = pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let placed = members.filter(|exit| fits(exit)).max_by_key(|exit| stir(seed, exit.seed()));
        placed.or_else(|| {
            let open = |exit: &Exit| self.is_closed(exit) && Some(exit.id()) != leave;
            let mut drawn = self.draw(&self.fitting(), rng, open);
            lead(&mut drawn, 1, self.ask.now, rng);
            drawn.pop().or_else(|| self.ejected(pool, rng).into_iter().find(|exit| Some(exit.id()) != leave))
        })
    }

    pub(super) fn session_pool(&self) -> Arc<Pool> {
        if self.need.selector.exit.is_none() { self.pool() } else { Arc::default() }
    }

    /// The session's exit first, then where it would go next.
    fn stay<R: Rng + ?Sized>(&self, exit: &'a Arc<Exit>, moved: Option<Moved>, rng: &mut R) -> Plan {
        let pool = self.session_pool();
        let others = pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let mut others: Vec<_> =
            others.filter(|other| other.id() != exit.id() && self.fits(other) && self.is_closed(other)).collect();
        let seed = self.holder.seed();
        others.sort_unstable_by_key(|other| std::cmp::Reverse(stir(seed, other.seed())));
        if others.is_empty() && self.need.selector.exit.is_none() {
            let open = |other: &Exit| other.slot() != exit.slot() && self.is_closed(other);
            others = self.draw(&self.fitting(), rng, open);
        }
        let exits = std::iter::once(exit).chain(others).take(EXITS).cloned().collect();
        Plan { moved, sticky: true, ..Plan::new(self, exits) }
    }

    /// Another way for this connection alone: the same one for all of the session's connections to such ports, as long
    /// as the pool is the same.
    fn detour<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<Refusal>> {
        let exit = self.proposal(&self.session_pool(), None, rng).ok_or_else(|| self.refuse())?;
        Ok(Plan::new(self, vec![exit.clone()]))
    }
}
