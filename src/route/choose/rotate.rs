//! Another exit, please: by word of the client or of the API, for a pin, a session or a pool.
//!
//! In two steps, because a promise is moved only to an exit that works: [`successor`] names an exit that may follow and
//! changes nothing, somebody verifies it, and [`succeed`] moves there, unless somebody else has moved meanwhile.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;

use super::super::event::{Cause, Event, Moved};
use super::super::explain::Refusal;
use super::super::memory::Memory;
use super::super::pin::Pinned;
use super::super::selector::Mode;
use super::{Ask, Case, View};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, ExitId};

/// An exit that may follow another.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The exit before, if there was one.
    pub before: Option<ExitId>,
    /// The address before, as sites saw it.
    pub before_ip: Option<IpAddr>,
    /// The exit that may follow.
    pub exit: Arc<Exit>,
    pinned: Option<Pinned>,
}

/// What a rotation came to.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// What became of pins.
    pub events: Vec<Event>,
    /// Where a session was and is.
    pub moved: Option<Moved>,
}

/// An exit for the holder of this wish that is another than the one it has, with another IP: for a strict one, for a
/// session, or for anybody else one that is not in the pool. Nothing changes.
pub fn successor<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Successor, Box<Refusal>> {
    let case = Case::new(view, memory, ask);
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => case.next_pin(rng),
        (_, Some(_)) => case.next_session(rng),
        (_, None) => case.next_pool(rng),
    }
}

/// Moves the holder to the successor. `None`: somebody else has moved it, or taken the address, and another successor
/// is to be asked for. The pool of a named route is turned by `RouteTable::turned`, and not here.
pub fn succeed(view: View<'_>, memory: &Memory, ask: &Ask<'_>, successor: &Successor) -> Option<Rotated> {
    let case = Case::new(view, memory, ask);
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => {
            let before = successor.pinned.as_ref().map(|before| (before, Cause::Rotated));
            Some(Rotated { events: case.pin(&successor.exit, before)?, moved: None })
        }
        (_, Some(_)) => case.move_session(successor),
        (_, None) => {
            if let Some(scope) = &ask.wish.pool
                && memory.implicit().turn(scope)
            {
                drop(memory.implicit().pool(scope, ask.wish, view, ask.now));
                memory.changed();
            }
            Some(Rotated { events: Vec::new(), moved: None })
        }
    }
}

impl Case<'_> {
    fn next_pin<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<Refusal>> {
        let pinned = self.memory.pins().of(self.holder, self.ask.now);
        let exit = self.fresh(pinned.as_ref(), rng).ok_or_else(|| self.refuse())?.clone();
        let before = pinned.as_ref().map(|pinned| pinned.exit.clone());
        Ok(Successor { before, before_ip: pinned.as_ref().map(|pinned| pinned.ip.into()), exit, pinned })
    }

    fn next_session<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<Refusal>> {
        let before = self.memory.sessions().of(self.holder, self.ask.now);
        let before_ip = self.ip_of(before.as_ref());
        let exit = self.proposal(&self.session_pool(), before.as_ref(), rng).ok_or_else(|| self.refuse())?.clone();
        if before_ip.is_none() || exit.ip() != before_ip {
            return Ok(Successor { before, before_ip, exit, pinned: None });
        }
        // The best place has the same address: any other does.
        let exit = self.elsewhere(self.fitting(), before_ip, rng)?;
        Ok(Successor { before, before_ip, exit, pinned: None })
    }

    fn next_pool<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<Refusal>> {
        let pool = self.session_pool();
        let used = || pool.members().iter().filter_map(|member| member.exit(self.view.catalog));
        let before = match used().next() {
            Some(exit) => exit.clone(),
            None => self.free(rng)?.first().clone(),
        };
        let mut others = self.fitting();
        used().for_each(|exit| others.set(exit.slot(), false));
        let exit = self.elsewhere(others, before.ip(), rng)?;
        Ok(Successor { before: Some(before.id().clone()), before_ip: before.ip(), exit, pinned: None })
    }

    /// One of these that is open and has another address.
    fn elsewhere<R: Rng + ?Sized>(
        &self,
        mut others: Bits,
        before: Option<IpAddr>,
        rng: &mut R,
    ) -> Result<Arc<Exit>, Box<Refusal>> {
        others.drop(&before.map_or_else(Bits::default, |ip| self.view.catalog.behind(ip)));
        let open = |exit: &Exit| self.is_closed(exit) && exit.ip() != before;
        self.draw(&others, rng, open).pop().cloned().ok_or_else(|| self.refuse())
    }

    fn move_session(&self, successor: &Successor) -> Option<Rotated> {
        let Successor { before, exit, .. } = successor;
        let term = self.need.policy.session_term(self.need.selector);
        let bound = self.memory.sessions().bind(self.holder, exit.id(), before.as_ref(), term, self.ask.now);
        if bound.exit != *exit.id() {
            return None;
        }
        let moved = before.clone().map(|from| Moved { from, to: bound.exit, cause: Cause::Rotated });
        Some(Rotated { events: Vec::new(), moved })
    }

    fn ip_of(&self, exit: Option<&ExitId>) -> Option<IpAddr> {
        self.view.catalog.get(exit?)?.ip()
    }
}
