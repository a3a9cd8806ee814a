//! Connections of a session: they use the session's exit as long as it can serve.
//!
//! A session moves if its exit is gone or no longer has what the selector asks for, if the target's site bans the exit,
//! if a dial failed by the exit's fault, or if the session's time is over. It does not move if other exits come or go, or
//! if its exit is slow, busy or ejected: other connections are then kept away from that exit, and a client that is logged
//! in would rather wait. A connection to a port that the exit refuses uses another exit, and the session stays.

use std::sync::Arc;

use rand::Rng;

use super::super::balance::{lead, stir};
use super::super::event::{Cause, Moved};
use super::super::pool::Pool;
use super::super::refusal::Refusal;
use super::super::session::SessionState;
use super::{Chooser, EXITS, Plan};
use crate::exit::{Exit, ExitId, Verdict};

impl<'a> Chooser<'a> {
    pub(super) fn sticky<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<Refusal>> {
        match self.memory.sessions().touch(self.holder, self.ask.now) {
            SessionState::Absent => self.bind(None, None, rng),
            // A stated time that is over means that the client wants another exit. A session that was idle for too long
            // may return to its exit.
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

    /// The exit of a session, or the reason for which the session must move.
    fn session_exit(&self, id: &ExitId) -> Result<&'a Arc<Exit>, Cause> {
        let exit = self.view.catalog.get(id).ok_or(Cause::Down)?;
        if !exit.alive() || exit.known().verdict == Verdict::Bad || !self.matches_selector(exit) {
            Err(Cause::Down)
        } else if self.is_banned(exit) {
            Err(Cause::Banned)
        } else if self.is_avoided(exit) {
            Err(Cause::Failed)
        } else {
            Ok(exit)
        }
    }

    /// Proposes an exit for the session, and uses the exit that the session then has.
    fn bind<R: Rng + ?Sized>(
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
        // The exit may be the proposal of another connection, to another port.
        if self.allows(exit) { Ok(self.stay(exit, moved, rng)) } else { self.detour(rng) }
    }

    /// The exit that rendezvous hashing picks from the pool; one from outside the pool if no member can serve.
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
            let fits = |exit: &Exit| self.is_closed(exit) && Some(exit.id()) != leave;
            let mut drawn = self.draw(&self.fitting(), rng, fits);
            lead(&mut drawn, 1, self.ask.now, rng);
            drawn.pop().or_else(|| self.ejected(pool, rng).into_iter().find(|exit| Some(exit.id()) != leave))
        })
    }

    pub(super) fn session_pool(&self) -> Arc<Pool> {
        if self.need.selector.exit.is_none() { self.pool() } else { Arc::default() }
    }

    /// The session's exit first, then those that it would move to.
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

    /// Another exit for this connection alone, because the session's exit refuses the port: the same one for all such
    /// connections of the session as long as the pool is the same.
    fn detour<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<Refusal>> {
        let exit = self.proposal(&self.session_pool(), None, rng).ok_or_else(|| self.refuse())?;
        Ok(Plan::new(self, vec![exit.clone()]))
    }
}
