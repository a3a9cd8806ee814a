//! Decides whether a stream that is kept open for the client's next request may serve that request.

use super::super::memory::Memory;
use super::super::selector::Mode;
use super::super::session::SessionState;
use super::super::view::View;
use super::{Ask, Chooser};
use crate::exit::{ExitId, Verdict};

/// Returns true if the request may use a stream through `exit` that an earlier request of the same username opened.
///
/// The answer is no if a new stream would have to use another exit. For example, the session was rotated, the site has
/// banned the exit, or the route was changed and the exit no longer meets its selector.
pub fn may_serve_again(view: View<'_>, memory: &Memory, ask: &Ask<'_>, exit: &ExitId) -> bool {
    if let Some(entry) = &ask.wish.entry {
        entry.touch(ask.now);
    }
    let chooser = Chooser::new(view, memory, ask);
    chooser.exit_may_serve(exit) && chooser.holder_has(exit)
}

impl Chooser<'_> {
    /// Returns true if nothing forbids this exit to serve the request.
    fn exit_may_serve(&self, id: &ExitId) -> bool {
        let Some(exit) = self.view.catalog.get(id) else { return false };
        let is_good = exit.is_kept() && exit.known().verdict != Verdict::Bad;
        let v6_allowed = !self.v6 || self.need.policy.ipv6;
        // A username without session or pin uses the source with which its requests begin, as a new stream would.
        let is_in_order = self.ask.wish.order.is_none() || self.sources.contains(&id.source());
        is_good
            && v6_allowed
            && (is_in_order || !self.ask.wish.is_pooled())
            && self.may_keep(exit)
            && self.allows(exit)
            && !self.is_banned(exit)
    }

    /// Returns true if the session or pin of this username still has the exit, or if there is neither.
    fn holder_has(&self, id: &ExitId) -> bool {
        match (self.ask.wish.selector.mode, &self.ask.wish.selector.session) {
            (Mode::Strict, _) => self.memory.pins().touch(self.holder, self.ask.now).is_some_and(|pin| {
                let is_due = |every| self.ask.now.since(pin.made) >= every;
                pin.to.exit == *id && !self.need.policy.rotate_every.is_some_and(is_due)
            }),
            (Mode::Flexible, Some(_)) => {
                matches!(self.memory.sessions().touch(self.holder, self.ask.now), SessionState::Live(has) if has == *id)
            }
            (Mode::Rotate, _) => false, // each request needs another exit
            (_, None) => true,
        }
    }
}
