//! What was decided: the exits to dial, in order, and what the client is told.

use std::sync::Arc;

use super::super::Isolation;
use super::super::event::{Cause, Event, Moved};
use super::super::memory::Memory;
use super::super::selector::Mode;
use super::{Ask, Case, View};
use crate::exit::{Exit, ExitId};

/// What was decided about one connection.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The exits to dial, the first one first; never none. One if the exit is not to change.
    pub exits: Vec<Arc<Exit>>,
    /// Where the session was the last time, if it is elsewhere now.
    pub moved: Option<Moved>,
    /// What became of pins by this decision.
    pub events: Vec<Event>,
    /// Whom its circuits may be shared with.
    pub isolation: Isolation,
    /// A second dial may be started beside a slow first one.
    pub hedge: bool,
    /// Exits beyond the first are for a session: to use one is to move it.
    pub(super) sticky: bool,
}

impl Plan {
    pub(super) fn new(case: &Case<'_>, exits: Vec<Arc<Exit>>) -> Self {
        let selector = &case.ask.wish.selector;
        let hedge = selector.mode != Mode::Strict && selector.session.is_none() && exits.len() > 1;
        let isolation = case.holder.isolation();
        Self { exits, moved: None, events: Vec::new(), isolation, hedge, sticky: false }
    }

    /// The exit to dial now.
    pub fn first(&self) -> &Arc<Exit> {
        &self.exits[0]
    }

    /// The first exit failed by its own fault: the one to dial next, which is now the first. A session moves there, or
    /// goes where another connection of it has moved it meanwhile. `None`: there is no other, and the plan is as it was.
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

    fn move_session(&mut self, view: View<'_>, memory: &Memory, ask: &Ask<'_>, failed: &ExitId) {
        let case = Case::new(view, memory, ask);
        let term = ask.wish.policy.session_term(&ask.wish.selector);
        let bound = memory.sessions().bind(case.holder, self.exits[0].id(), Some(failed), term, ask.now);
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
