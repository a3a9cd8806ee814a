//! Rotation: a client or the API asks for another exit for a pin, a session or a pool.
//!
//! A rotation has two steps, because a pin or session must move only to an exit that works. [`successor`] chooses an
//! exit and changes nothing. The caller tests that exit. [`succeed`] then moves the pin or session to the tested exit,
//! unless another rotation has moved the pin or session meanwhile.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;

use super::super::event::{Cause, Event};
use super::super::memory::Memory;
use super::super::no_plan::NoPlan;
use super::super::pinned::Pinned;
use super::super::selector::Mode;
use super::super::view::View;
use super::{Ask, Chooser};
use crate::exit::catalog::Bits;
use crate::exit::{Exit, ExitId};

/// An exit that may replace the exit of a pin, session or pool.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The exit that is in use now, if there is one.
    pub before: Option<ExitId>,
    /// The address with which sites see the exit in use. `None` if the address is not known.
    pub before_ip: Option<IpAddr>,
    /// The exit that may replace the exit in use.
    pub exit: Arc<Exit>,
    pinned: Option<Pinned>,
}

/// The result of a rotation: events for the pins that were moved or ended.
#[derive(Clone, Debug)]
pub struct Rotated {
    pub events: Vec<Event>,
}

/// Chooses another exit with another IP for the pin or session of this username. If there is neither pin nor session,
/// the function chooses an exit outside the pool. The function changes nothing.
pub fn successor<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Successor, Box<NoPlan>> {
    let chooser = Chooser::new(view, memory, ask);
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => chooser.next_pin(rng),
        (_, Some(_)) => chooser.next_session(rng),
        (_, None) => chooser.next_pool(rng),
    }
}

/// Moves the pin, session or implicit pool to the successor. `None` if another rotation was faster, or if another pin
/// took the address. In both cases the caller must choose another successor. For the pool of a named route,
/// `RouteTable::rotated` exchanges the exits instead.
pub fn succeed(view: View<'_>, memory: &Memory, ask: &Ask<'_>, successor: &Successor) -> Option<Rotated> {
    let chooser = Chooser::new(view, memory, ask);
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => {
            let before = successor.pinned.as_ref().map(|before| (before, Cause::Rotated));
            Some(Rotated { events: chooser.pin(&successor.exit, before)? })
        }
        (_, Some(_)) => chooser.move_session(successor),
        (_, None) => {
            if let Some(scope) = &ask.wish.pool
                && memory.implicit().rotate(scope)
            {
                drop(memory.implicit().pool(scope, ask.wish, view, ask.now));
                memory.changed();
            }
            Some(Rotated { events: Vec::new() })
        }
    }
}

impl Chooser<'_> {
    fn next_pin<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<NoPlan>> {
        let pinned = self.memory.pins().of(self.holder, self.ask.now);
        let exit = self.fresh(pinned.as_ref(), rng).ok_or_else(|| self.refuse())?.clone();
        let before = pinned.as_ref().map(|pinned| pinned.exit.clone());
        Ok(Successor { before, before_ip: pinned.as_ref().map(|pinned| pinned.ip), exit, pinned })
    }

    fn next_session<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<NoPlan>> {
        let before = self.memory.sessions().of(self.holder, self.ask.now);
        let before_ip = self.ip_of(before.as_ref());
        let exit = self.proposal(&self.session_pool(), before.as_ref(), rng).ok_or_else(|| self.refuse())?.clone();
        if before_ip.is_none() || exit.ip() != before_ip {
            return Ok(Successor { before, before_ip, exit, pinned: None });
        }
        // The exit that the session would normally get next has the same address as its present exit. So any other exit
        // with another address is taken.
        let exit = self.elsewhere(self.fitting(), before_ip, rng)?;
        Ok(Successor { before, before_ip, exit, pinned: None })
    }

    fn next_pool<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Successor, Box<NoPlan>> {
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

    /// Returns an exit of this set that is not ejected and has another address than `before`.
    fn elsewhere<R: Rng + ?Sized>(
        &self,
        mut others: Bits,
        before: Option<IpAddr>,
        rng: &mut R,
    ) -> Result<Arc<Exit>, Box<NoPlan>> {
        others.drop(&before.map_or_else(Bits::default, |ip| self.view.catalog.behind(ip)));
        let fits = |exit: &Exit| self.is_closed(exit) && exit.ip() != before;
        self.draw(&others, rng, fits).first().copied().cloned().ok_or_else(|| self.refuse())
    }

    fn move_session(&self, successor: &Successor) -> Option<Rotated> {
        let Successor { before, exit, .. } = successor;
        let term = self.need.policy.session_term(self.need.selector);
        let bound = self.memory.sessions().bind(self.holder, exit.id(), before.as_ref(), term, self.ask.now);
        (bound.exit == *exit.id()).then(|| Rotated { events: Vec::new() })
    }

    fn ip_of(&self, exit: Option<&ExitId>) -> Option<IpAddr> {
        self.view.catalog.get(exit?)?.ip()
    }
}
