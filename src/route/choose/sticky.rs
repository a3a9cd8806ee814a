//! Chooses exits for the connections of a session. These connections use the session's exit as long as that exit can
//! serve.
//!
//! A session moves to another exit if its exit is gone or no longer meets the selector. A session also moves if the
//! target's site bans the exit, if a dial failed through the fault of the exit, or if the time of the session is over.
//!
//! A session does not move if other exits come or go, or if its exit is slow, busy or ejected (temporarily not used by
//! other connections). The reason: a client that is logged in would rather wait than change its address. If the
//! session's exit refuses the port of one connection, only that connection uses another exit, and the session stays.

use std::sync::Arc;

use rand::Rng;

use super::super::balance::{first, in_order, lead};
use super::super::event::{Cause, Moved};
use super::super::no_plan::NoPlan;
use super::super::pool::Pool;
use super::super::session::SessionState;
use super::{Chooser, EXITS, Plan};
use crate::exit::{Exit, ExitId, Verdict};

impl<'a> Chooser<'a> {
    pub(super) fn sticky<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<NoPlan>> {
        match self.memory.sessions().touch(self.holder, self.ask.now) {
            SessionState::Absent => self.bind(None, None, rng),
            // If the username states a time and that time is over, the client wants another exit. A session that ended
            // because it was unused for too long may return to its exit.
            SessionState::Ended(exit, term) => {
                self.bind(Some((&exit, Cause::Expired)), Some(&exit).filter(|_| term.fixed), rng)
            }
            SessionState::Live(id) => match self.session_exit(&id) {
                Ok(exit) if self.allows(exit) => Ok(self.stay(exit, None, rng)),
                Ok(_) => self.detour(rng),
                Err(cause) => self.bind(Some((&id, cause)), None, rng),
            },
        }
    }

    /// Returns the exit of a session, or the reason why the session must move.
    fn session_exit(&self, id: &ExitId) -> Result<&'a Arc<Exit>, Cause> {
        let exit = self.view.catalog.get(id).ok_or(Cause::Down)?;
        if !exit.is_kept() || exit.known().verdict == Verdict::Bad || !self.may_keep(exit) {
            Err(Cause::Down)
        } else if self.is_banned(exit) {
            Err(Cause::Banned)
        } else if self.is_avoided(exit) {
            Err(Cause::Failed)
        } else {
            Ok(exit)
        }
    }

    /// Proposes an exit for the session, and uses the exit that the session has after the proposal.
    fn bind<R: Rng + ?Sized>(
        &self,
        from: Option<(&ExitId, Cause)>,
        leave: Option<&ExitId>,
        rng: &mut R,
    ) -> Result<Plan, Box<NoPlan>> {
        let pool = self.session_pool();
        let proposal = self.proposal(&pool, leave, rng).or_else(|| leave.and_then(|_| self.proposal(&pool, None, rng)));
        let proposal = proposal.ok_or_else(|| self.refuse())?;
        let term = self.need.policy.session_term(self.need.selector);
        // A session that has ended is replaced in any case. If another connection has renewed it meanwhile, even with
        // the same exit, then the renewed session counts.
        let before = from.filter(|(_, cause)| *cause != Cause::Expired).map(|(from, _)| from);
        let bound = self.memory.sessions().bind(self.holder, proposal.id(), before, term, self.ask.now);
        let exit = self.view.catalog.get(&bound.exit).unwrap_or(proposal);
        let moved = from.filter(|(from, _)| *from != exit.id());
        let moved = moved.map(|(from, cause)| Moved { from: from.clone(), to: exit.id().clone(), cause });
        // Another connection, to another port, may have proposed the session's exit. So the exit may refuse the port of
        // this connection.
        if self.allows(exit) { Ok(self.stay(exit, moved, rng)) } else { self.detour(rng) }
    }

    /// Returns the exit that rendezvous hashing picks from the pool. If no member can serve, the exit is from outside
    /// the pool.
    pub(super) fn proposal<R: Rng + ?Sized>(
        &self,
        pool: &Pool,
        leave: Option<&ExitId>,
        rng: &mut R,
    ) -> Option<&'a Arc<Exit>> {
        let fits = |exit: &Exit| self.fits(exit) && self.is_closed(exit) && Some(exit.id()) != leave;
        let members = pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let placed = first(self.holder.seed(), members.filter(|exit| fits(exit)));
        placed.or_else(|| {
            let fits = |exit: &Exit| self.is_closed(exit) && Some(exit.id()) != leave;
            let mut drawn = self.draw(&self.fitting(), rng, fits);
            lead(&mut drawn, 1, self.ask.now, rng);
            drawn.pop().or_else(|| self.ejected(pool, rng).into_iter().find(|exit| Some(exit.id()) != leave))
        })
    }

    pub(super) fn session_pool(&self) -> Arc<Pool> {
        if self.need.selector.exit.is_none() { self.pool() } else { Arc::default() }
    }

    /// Returns a plan with the session's exit first, followed by the exits to which the session would move.
    fn stay<R: Rng + ?Sized>(&self, exit: &'a Arc<Exit>, moved: Option<Moved>, rng: &mut R) -> Plan {
        let pool = self.session_pool();
        let others = pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let others = others.filter(|other| other.id() != exit.id() && self.fits(other) && self.is_closed(other));
        let mut others = in_order(self.holder.seed(), others);
        if others.is_empty() && self.need.selector.exit.is_none() {
            let open = |other: &Exit| other.slot() != exit.slot() && self.is_closed(other);
            others = self.draw(&self.fitting(), rng, open);
        }
        let exits = std::iter::once(exit).chain(others).take(EXITS).cloned().collect();
        Plan { moved, sticky: true, ..Plan::new(self, exits) }
    }

    /// Returns a plan with another exit for this connection alone, because the session's exit refuses the port. All
    /// such connections of the session get the same exit as long as the pool is the same.
    fn detour<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<NoPlan>> {
        let exit = self.proposal(&self.session_pool(), None, rng).ok_or_else(|| self.refuse())?;
        Ok(Plan::new(self, vec![exit.clone()]))
    }
}
