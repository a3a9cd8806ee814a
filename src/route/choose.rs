//! Chooses the exits for one connection.
//!
//! [`decide`] is a function of a snapshot, the loads of the moment and the request. It has one effect: a new session or
//! pin is stored before it returns, by insert-if-absent, and the answer is what the table then holds. A thousand
//! connections that ask for one pin at the same time are a thousand proposals and one exit, and no lock is held while an
//! exit is being chosen.
//!
//! No decision walks over the catalog. A pool has its members, a session and a pin have their exit. Only where those do
//! not serve (the pool's exits refuse the port, a pin is new) is the set of all exits that fit computed, from the sets
//! that the catalog keeps, and then sampled. A refusal counts in the same way. `choose/lookups.rs` tests this: it counts
//! the exits that each kind of username looks at.
//!
//! Next: `choose/free.rs` (flexible and rotate), `choose/sticky.rs` (sessions), `choose/strict.rs` (pins),
//! `choose/rotate.rs` (another exit on request), `choose/funnel.rs` (why there is no exit).

mod free;
mod funnel;
mod plan;
mod rotate;
mod sticky;
mod strict;

use std::sync::Arc;

use rand::Rng;

pub use plan::Plan;
pub use rotate::{Rotated, Successor, succeed, successor};

use super::ban::SiteBans;
use super::holder::HolderRef;
use super::memory::Memory;
use super::pool::{self, Need, Pool};
use super::refusal::{Refusal, Why};
use super::selector::Mode;
use super::table::Wish;
use super::view::View;
use crate::exit::catalog::Bits;
use crate::exit::load::State;
use crate::exit::{Exit, ExitId, Moment, Source};
use crate::net::{Host, Target};

/// One connection that needs an exit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The username, resolved against the routes of the same snapshot.
    pub wish: &'a Wish,
    /// The name of the client's key; empty where no key is needed.
    pub key: &'a str,
    /// The host and port that the client asks for.
    pub target: &'a Target,
    pub now: Moment,
    /// Exits that this request has already failed on.
    pub avoid: &'a [ExitId],
    /// The connection is one plain HTTP request, which an exit that opens no tunnels may forward.
    pub plain: bool,
}

/// Exits in a plan, at most: the first, one to fail over to, and one more for when both fail.
const EXITS: usize = 3;

/// Exits that are drawn where the pool does not serve. All of them fit, so that only load and ejection are left to
/// compare. Not tuned: the best of two is nearly as good as the best of all.
const FEW: usize = 8;

/// Exits that are drawn where the first few were all ejected. Not tuned: if one exit in twenty is open, one draw in
/// seven hundred finds none, and then an ejected exit is tried.
const MANY: usize = 128;

/// Chooses the exits for a connection, and stores the session or pin that it makes.
pub fn decide<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Plan, Box<Refusal>> {
    let chooser = Chooser::new(view, memory, ask);
    if let Some(entry) = &ask.wish.entry {
        entry.touch(ask.now);
    }
    if chooser.v6 && !ask.wish.policy.ipv6 {
        return Err(chooser.refuse_as(Why::Ipv6));
    }
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => chooser.strict(rng),
        (_, Some(_)) => chooser.sticky(rng),
        (_, None) => chooser.free(rng),
    }
}

/// One connection with everything that its choice depends on. The modules below add a method for each mode.
#[derive(Clone, Copy)]
pub(super) struct Chooser<'a> {
    pub(super) view: View<'a>,
    pub(super) memory: &'a Memory,
    pub(super) ask: &'a Ask<'a>,
    pub(super) holder: HolderRef<'a>,
    /// The bans of the target's site.
    pub(super) bans: Option<&'a SiteBans>,
    pub(super) need: Need<'a>,
    sources: &'a [Source],
    /// The target is an IPv6 address.
    v6: bool,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(view: View<'a>, memory: &'a Memory, ask: &'a Ask<'a>) -> Self {
        let wish = ask.wish;
        let holder = HolderRef { key: ask.key, scope: &wish.scope, session: wish.selector.session.as_ref() };
        let need = Need { scope: &wish.scope, selector: &wish.selector, policy: &wish.policy, epoch: 0 };
        let sources = pool::serving(&need, view.catalog);
        let v6 = matches!(&ask.target.host, Host::Ip(ip) if ip.is_ipv6());
        Self { view, memory, ask, holder, bans: view.bans.of(&ask.target.host), need, sources, v6 }
    }

    /// The pool to choose from: the route's, or that of the narrowed selector.
    fn pool(&self) -> Arc<Pool> {
        match (&self.ask.wish.pool, &self.ask.wish.entry) {
            (None, Some(entry)) => entry.pool.clone(),
            (scope, _) => {
                let scope = scope.as_ref().unwrap_or(&self.ask.wish.scope);
                let (pool, new) = self.memory.implicit().pool(scope, self.ask.wish, self.view, self.ask.now);
                if new {
                    self.memory.changed();
                }
                pool
            }
        }
    }

    /// The set of all exits that fit, see [`Self::fits`].
    fn fitting(&self) -> Bits {
        let catalog = self.view.catalog;
        let mut bits = pool::candidates(&self.need, self.sources, catalog);
        bits.keep(&self.allowing());
        if let Some(bans) = self.bans {
            bits.drop(&bans.slots(catalog, self.ask.now));
        }
        let avoided = self.ask.avoid.iter().filter_map(|exit| catalog.slot(exit));
        avoided.for_each(|slot| bits.set(slot, false));
        bits
    }

    /// The set of all exits that allow this connection, see [`Self::allows`].
    pub(super) fn allowing(&self) -> Bits {
        let mut bits = Bits::clone(&self.view.catalog.allowing(self.ask.target.port, self.v6));
        if !self.ask.plain {
            bits.keep(self.view.catalog.tunnels());
        }
        bits
    }

    /// True if the exit has what the selector asks for, whatever the target.
    pub(super) fn matches_selector(&self, exit: &Exit) -> bool {
        let filter = self.need.selector.filter(self.sources, self.need.policy.check.as_deref());
        filter.wants(exit) && self.need.selector.picks(exit)
    }

    /// True if the exit allows connections to the target's port, by a tunnel where one is needed.
    pub(super) fn allows(&self, exit: &Exit) -> bool {
        exit.allows(self.ask.target.port, self.v6) && (self.ask.plain || exit.tunnels())
    }

    /// True if the target's site has banned the exit.
    pub(super) fn is_banned(&self, exit: &Exit) -> bool {
        self.bans.is_some_and(|bans| bans.until(exit.id(), self.ask.now).is_some())
    }

    /// True if this request has already failed on the exit.
    fn is_avoided(&self, exit: &Exit) -> bool {
        self.ask.avoid.contains(exit.id())
    }

    /// True if the exit can serve this connection. Load and ejection are not considered.
    fn fits(&self, exit: &Exit) -> bool {
        let serves = exit.usable() && self.matches_selector(exit) && self.allows(exit);
        serves && !self.is_banned(exit) && !self.is_avoided(exit)
    }

    fn is_closed(&self, exit: &Exit) -> bool {
        exit.load().state(self.ask.now) == State::Closed
    }

    /// A few random exits of `from` for which `pass` is true; all of them if there are not many.
    fn draw<R: Rng + ?Sized>(&self, from: &Bits, rng: &mut R, pass: impl Fn(&Exit) -> bool) -> Vec<&'a Arc<Exit>> {
        self.draw_some(from, FEW, rng, |exit| pass(exit).then_some(exit))
    }

    /// As [`Self::draw`], with the size of the first sample, and with what `pass` makes of each exit.
    fn draw_some<T, R: Rng + ?Sized>(
        &self,
        from: &Bits,
        few: usize,
        rng: &mut R,
        pass: impl Fn(&'a Arc<Exit>) -> Option<T>,
    ) -> Vec<T> {
        for count in [few, MANY] {
            let sample = from.sample(count, rng);
            let whole = sample.len() < count;
            let drawn = sample.into_iter().filter_map(|slot| self.view.catalog.at(slot));
            let drawn =
                drawn.inspect(|exit| debug_assert!(exit.usable() && self.matches_selector(exit) && self.allows(exit)));
            let drawn: Vec<_> = drawn.filter_map(&pass).collect();
            if whole || !drawn.is_empty() {
                return drawn;
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod lookups;
#[cfg(test)]
mod tests;
