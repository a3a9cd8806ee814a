//! Another exit, please: by word of the client or of the API, for a pin or a session.

use std::sync::Arc;

use rand::Rng;

use super::super::event::{Cause, Event, Moved};
use super::super::explain::Refusal;
use super::super::memory::Memory;
use super::super::pin::Pinned;
use super::super::selector::Mode;
use super::{Ask, Case, View};
use crate::exit::{Exit, ExitId};

/// What a rotation came to.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The exit before, if there was one.
    pub before: Option<ExitId>,
    /// The exit now; nobody has verified it yet.
    pub after: Arc<Exit>,
    /// What became of pins.
    pub events: Vec<Event>,
    /// Where a session was and is.
    pub moved: Option<Moved>,
}

/// Gives the holder of this wish another exit: a strict one another IP, a session another place, anybody else other
/// exits in the pool of an implicit route (a named route's pool is turned by `RouteTable::turned`), and says which it
/// would get now. Nothing changes if there is no other.
pub fn rotate<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Rotated, Box<Refusal>> {
    let case = Case::new(view, memory, ask);
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => case.rotate_pin(rng),
        (_, Some(_)) => case.rotate_session(rng),
        (_, None) => case.rotate_pool(rng),
    }
}

impl Case<'_> {
    fn rotate_pin<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Rotated, Box<Refusal>> {
        let before = self.memory.pins().of(self.holder, self.ask.now);
        let (after, events) = self.repin(before.as_ref(), rng)?;
        Ok(Rotated { before: before.map(|pinned| pinned.exit), after, events, moved: None })
    }

    fn repin<R: Rng + ?Sized>(
        &self,
        before: Option<&Pinned>,
        rng: &mut R,
    ) -> Result<(Arc<Exit>, Vec<Event>), Box<Refusal>> {
        let other = self.fresh(before, rng).ok_or_else(|| self.refuse())?;
        match self.pin(other, before.map(|before| (before, Cause::Rotated))) {
            Some(events) => Ok((other.clone(), events)),
            // Somebody rotated it at the same time: what that came to is another exit too.
            None => {
                let now = self.memory.pins().of(self.holder, self.ask.now);
                let exit = now.and_then(|now| self.view.catalog.get(&now.exit)).ok_or_else(|| self.refuse())?;
                Ok((exit.clone(), Vec::new()))
            }
        }
    }

    fn rotate_session<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Rotated, Box<Refusal>> {
        let before = self.memory.sessions().of(self.holder, self.ask.now);
        let proposal = self.proposal(&self.session_pool(), before.as_ref(), rng).ok_or_else(|| self.refuse())?;
        let term = self.need.policy.session_term(self.need.selector);
        let bound = self.memory.sessions().bind(self.holder, proposal.id(), before.as_ref(), term, self.ask.now);
        let after = self.view.catalog.get(&bound.exit).unwrap_or(proposal).clone();
        let to = after.id().clone();
        let moved = before.clone().map(|from| Moved { from, to, cause: Cause::Rotated });
        Ok(Rotated { before, after, events: Vec::new(), moved })
    }

    fn rotate_pool<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Rotated, Box<Refusal>> {
        let before = self.free(rng)?.first().id().clone();
        if let Some(scope) = &self.ask.wish.pool
            && self.memory.implicit().turn(scope)
        {
            self.memory.changed();
        }
        let after = self.free(rng)?.first().clone();
        Ok(Rotated { before: Some(before), after, events: Vec::new(), moved: None })
    }
}
