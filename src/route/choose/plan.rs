//! The result of a choice: the exits to dial, in order.

use std::sync::Arc;

use super::super::event::{Cause, Event, Moved};
use super::super::memory::Memory;
use super::super::selector::Mode;
use super::super::view::View;
use super::{Ask, Chooser};
use crate::exit::{Exit, ExitId};

/// The exits for one connection, and how the connection may use them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The exits to dial, in order. The list is never empty. It has only one exit if the connection may not use
    /// another.
    pub exits: Vec<Arc<Exit>>,
    /// How the session moved to another exit. `None` if there is no session, or if the session uses the same exit as
    /// the last time.
    pub moved: Option<Moved>,
    /// Events for the pins that this choice made, moved or ended.
    pub events: Vec<Event>,
    /// True if a second exit may be dialled while the dial of a slow first exit still waits.
    pub hedge: bool,
    /// True if the connection belongs to a session. If its dial fails, the session moves to the next exit.
    pub(super) sticky: bool,
}

impl Plan {
    pub(super) fn new(chooser: &Chooser<'_>, exits: Vec<Arc<Exit>>) -> Self {
        let selector = &chooser.ask.wish.selector;
        let hedge = selector.mode != Mode::Strict && selector.session.is_none() && exits.len() > 1;
        Self { exits, moved: None, events: Vec::new(), hedge, sticky: false }
    }

    /// Returns the exit to dial now.
    pub fn first(&self) -> &Arc<Exit> {
        &self.exits[0]
    }

    /// Drops the first exit and returns the next one. The dialer calls this after a dial failed through the fault of
    /// the first exit. A session moves to the next exit. If another connection has moved the session meanwhile, the
    /// session's new exit is used. If there is no other exit, the function returns `None` and the plan is unchanged.
    pub fn fail_over(&mut self, view: View<'_>, memory: &Memory, ask: &Ask<'_>) -> Option<&Arc<Exit>> {
        if self.exits.len() < 2 {
            return None;
        }
        let failed = self.exits.remove(0);
        if self.sticky {
            self.move_session(view, memory, ask, failed.id());
        }
        self.exits.first()
    }

    /// Drops the first exit and returns the next one, as [`Self::fail_over`] does, but the session keeps its exit. The
    /// dialer calls this if the exit works and only refuses the target. If there is no other exit, the function returns
    /// `None` and the plan is unchanged.
    pub fn skip(&mut self) -> Option<&Arc<Exit>> {
        if self.exits.len() < 2 {
            return None;
        }
        self.exits.remove(0);
        self.exits.first()
    }

    fn move_session(&mut self, view: View<'_>, memory: &Memory, ask: &Ask<'_>, failed: &ExitId) {
        let chooser = Chooser::new(view, memory, ask);
        let term = ask.wish.policy.session_term(&ask.wish.selector);
        let bound = memory.sessions().bind(chooser.holder, self.exits[0].id(), Some(failed), term, ask.now);
        if let Some(exit) = view.catalog.get(&bound.exit)
            && exit.id() != self.exits[0].id()
        {
            self.exits.retain(|other| other.id() != exit.id());
            self.exits.insert(0, exit.clone());
        }
        let from = self.moved.take().map_or_else(|| failed.clone(), |moved| moved.from);
        let to = self.exits[0].id().clone();
        self.moved = (from != to).then_some(Moved { from, to, cause: Cause::Failed });
    }
}
