//! Which exit: the decision about one connection.
//!
//! A function of what is known at the moment, with one effect: what must be kept (a session's place, a pin) is kept
//! before it returns, by insert-if-absent, and the answer is whatever then holds. So a thousand connections that ask
//! for the same pin at once are a thousand proposals and one exit, without a lock that is held while anybody thinks.
//!
//! No decision walks over the catalog. A pool has its members, a session and a pin have their exit; only where those do
//! not serve (the pool's exits refuse the port, a pin is new) is the set of all that would do worked out, from the sets
//! that the catalog keeps, and then sampled. What explains a refusal is counted in the same way. A test counts the
//! exits that each kind of question looks at.
//!
//! Next: `choose/free.rs` (flexible, rotate), `choose/sticky.rs` (sessions), `choose/strict.rs` (pins),
//! `choose/rotate.rs` (another one, please), `route/explain.rs` (why not).

mod free;
mod plan;
mod rotate;
mod sticky;
mod strict;

use std::sync::Arc;

use rand::Rng;

pub use plan::Plan;
pub use rotate::{Rotated, Successor, succeed, successor};

use super::ban::{Bans, SiteBans};
use super::explain::Refusal;
use super::holder::HolderRef;
use super::memory::Memory;
use super::pool::{self, Need, Pool};
use super::selector::Mode;
use super::table::{RouteTable, Wish};
use crate::exit::catalog::Bits;
use crate::exit::load::State;
use crate::exit::{Catalog, Exit, ExitId, Moment, Source};
use crate::net::{Host, Target};

/// The parts of one snapshot that a decision reads.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All exits.
    pub catalog: &'a Catalog,
    /// All named routes.
    pub routes: &'a RouteTable,
    /// All bans.
    pub bans: &'a Bans,
}

/// One connection's question.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What its user name came to, against the routes of the same snapshot.
    pub wish: &'a Wish,
    /// The name of its key; empty where nobody needs one.
    pub key: &'a str,
    /// Where it wants to go.
    pub target: &'a Target,
    /// When.
    pub now: Moment,
    /// Exits that this request has failed on already.
    pub avoid: &'a [ExitId],
    /// It is one request of plain HTTP, which an exit may forward that opens no tunnels.
    pub plain: bool,
}

/// Exits that a plan names at most: the first, the one to fail over to, and one more for the tail of the tail.
const EXITS: usize = 3;

/// Candidates drawn where the pool does not serve: what is known of all at once holds for each of them, so that only
/// load and ejection are left to tell them apart. Arbitrary: the best of two is nearly as good as the best of all.
const FEW: usize = 8;

/// Candidates drawn where those were all ejected. Arbitrary: with one in twenty of them open, one time in seven hundred
/// none is found, and then an ejected one is tried.
const MANY: usize = 128;

/// Chooses the exits for a connection, and commits what must be kept.
pub fn decide<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Plan, Box<Refusal>> {
    let case = Case::new(view, memory, ask);
    if let Some(entry) = &ask.wish.entry {
        entry.touch(ask.now);
    }
    if case.v6 && !ask.wish.policy.ipv6 {
        return Err(case.refuse_v6());
    }
    match (ask.wish.selector.mode, &ask.wish.selector.session) {
        (Mode::Strict, _) => case.strict(rng),
        (_, Some(_)) => case.sticky(rng),
        (_, None) => case.free(rng),
    }
}

/// One question with all that bears on it.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) view: View<'a>,
    pub(super) memory: &'a Memory,
    pub(super) ask: &'a Ask<'a>,
    pub(super) holder: HolderRef<'a>,
    pub(super) bans: Option<&'a SiteBans>,
    pub(super) need: Need<'a>,
    sources: &'a [Source],
    v6: bool,
}

impl<'a> Case<'a> {
    pub(super) fn new(view: View<'a>, memory: &'a Memory, ask: &'a Ask<'a>) -> Self {
        let wish = ask.wish;
        let holder = HolderRef { key: ask.key, scope: &wish.scope, session: wish.selector.session.as_ref() };
        let need = Need { scope: &wish.scope, selector: &wish.selector, policy: &wish.policy, epoch: 0 };
        let sources = pool::serving(&need, view.catalog);
        let v6 = matches!(&ask.target.host, Host::Ip(ip) if ip.is_ipv6());
        Self { view, memory, ask, holder, bans: view.bans.of(&ask.target.host), need, sources, v6 }
    }

    /// The pool of the wish: its route's, or that of what it narrows to.
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

    /// Every exit that fits.
    fn fitting(&self) -> Bits {
        let catalog = self.view.catalog;
        let mut bits = pool::candidates(&self.need, self.sources, catalog);
        bits.keep(&self.taking());
        if let Some(bans) = self.bans {
            bits.drop(&bans.slots(catalog, self.ask.now));
        }
        let avoided = self.ask.avoid.iter().filter_map(|exit| catalog.slot(exit));
        avoided.for_each(|slot| bits.set(slot, false));
        bits
    }

    /// Every exit that lets connections through to the target's port.
    pub(super) fn taking(&self) -> Bits {
        let mut bits = Bits::clone(&self.view.catalog.allowing(self.ask.target.port, self.v6));
        if !self.ask.plain {
            bits.keep(self.view.catalog.tunnels());
        }
        bits
    }

    /// It is what was asked for, as far as the target does not matter.
    pub(super) fn is_wanted(&self, exit: &Exit) -> bool {
        let filter = self.need.selector.filter(self.sources, self.need.policy.check.as_deref());
        filter.wants(exit) && self.need.selector.picks(exit)
    }

    /// It lets connections through to the target's port.
    pub(super) fn takes(&self, exit: &Exit) -> bool {
        exit.allows(self.ask.target.port, self.v6) && (self.ask.plain || exit.tunnels())
    }

    /// The target's site refuses it.
    pub(super) fn is_banned(&self, exit: &Exit) -> bool {
        self.bans.is_some_and(|bans| bans.until(exit.id(), self.ask.now).is_some())
    }

    /// This very request has failed on it.
    fn is_avoided(&self, exit: &Exit) -> bool {
        self.ask.avoid.contains(exit.id())
    }

    /// It would serve this connection, all considered but its load.
    fn fits(&self, exit: &Exit) -> bool {
        exit.usable() && self.is_wanted(exit) && self.takes(exit) && !self.is_banned(exit) && !self.is_avoided(exit)
    }

    fn is_closed(&self, exit: &Exit) -> bool {
        exit.load().state(self.ask.now) == State::Closed
    }

    /// A few of those that fit, at random, and pass; all that pass if there are not many.
    fn draw<R: Rng + ?Sized>(&self, from: &Bits, rng: &mut R, pass: impl Fn(&Exit) -> bool) -> Vec<&'a Arc<Exit>> {
        self.draw_some(from, FEW, rng, |exit| pass(exit).then_some(exit))
    }

    /// As [`Self::draw`], so many at first, and what `pass` makes of them.
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
            let drawn = drawn.inspect(|exit| debug_assert!(exit.usable() && self.is_wanted(exit) && self.takes(exit)));
            let drawn: Vec<_> = drawn.filter_map(&pass).collect();
            if whole || !drawn.is_empty() {
                return drawn;
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod looks;
#[cfg(test)]
mod tests;
