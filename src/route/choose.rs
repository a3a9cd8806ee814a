//! Chooses the exits for one connection.
//!
//! [`decide`] is a function of a snapshot of the state, the current loads of the exits and the request. It has one
//! effect: if the connection needs a new session or pin, `decide` stores that session or pin before it returns.
//!
//! The session or pin is stored only if its holder has none yet, and the connection uses the session or pin that is in
//! the table after that. So if a thousand connections ask for the same pin at the same time, they make a thousand
//! proposals but get one exit. No lock is held while an exit is being chosen.
//!
//! No decision looks at every exit of the catalog. Most decisions look only at the members of a pool, or at the exit of
//! a session or pin.
//!
//! Sometimes these exits cannot serve, for example because they refuse the port, or because a pin is new. The set of
//! all suitable exits is then computed from sets that the catalog keeps, and a sample of this set is examined. If a
//! connection is refused, the counts in the refusal also come from the catalog's sets. `choose/scan_count.rs` tests this:
//! it counts the exits that the choice for each kind of username looks at.
//!
//! Next: `choose/free.rs` (flexible and rotate), `choose/sticky.rs` (sessions), `choose/strict.rs` (pins),
//! `choose/rotate.rs` (another exit on request), `choose/funnel.rs` (why there is no exit).

mod free;
mod funnel;
mod kept;
mod plan;
mod rotate;
mod sticky;
mod strict;

use std::sync::Arc;

use rand::Rng;

pub use kept::may_serve_again;
pub use plan::Plan;
pub use rotate::{Rotated, Successor, succeed, successor};

use super::ban::SiteBans;
use super::holder::HolderRef;
use super::memory::Memory;
use super::no_plan::{NoPlan, Why};
use super::pool::{self, Need, Pool};
use super::selector::Mode;
use super::table::Wish;
use super::view::View;
use crate::exit::catalog::Bits;
use crate::exit::load::State;
use crate::exit::{Exit, ExitId, Moment, Source};
use crate::net::{Host, Target};

/// The request of one connection that needs an exit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The meaning of the username, according to the routes of the snapshot from which exits are chosen.
    pub wish: &'a Wish,
    /// The name of the client's key. Empty if no key is needed.
    pub key: &'a str,
    /// The host and port that the client asks for.
    pub target: &'a Target,
    pub now: Moment,
    /// The exits with which this request has already failed.
    pub avoid: &'a [ExitId],
    /// True if the connection is one plain HTTP request. An exit that opens no tunnels may forward such a request.
    pub plain: bool,
}

/// The largest number of exits in a plan: the first exit, a second one if the first fails, and a third one if both
/// fail.
const EXITS: usize = 3;

/// The number of exits outside the pool that are drawn at random, weighted by capacity, if the pool cannot serve. All
/// drawn exits are suitable, so two things decide between them: their load, and whether they are ejected (temporarily
/// not used). Not tuned: with more than 8 exits the choice would hardly be better.
const FEW: usize = 8;

/// If all exits of the first small sample are ejected (temporarily not used), this many exits are drawn. If all of
/// these are ejected too, the connection tries an ejected exit. Not tuned: even if only one exit in twenty is not
/// ejected, 128 drawn exits are all ejected only once in seven hundred times.
const MANY: usize = 128;

/// Chooses the exits for a connection, and returns a plan (the exits to try, in order). If the choice makes a new
/// session or pin, the function also stores that session or pin.
///
/// If the mode is `rotate`, the first exit of the plan is stored as the exit that the holder used last. So another
/// connection of the holder uses another exit, even if it begins before this connection has dialed.
pub fn decide<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Plan, Box<NoPlan>> {
    let plan = Chooser::new(view, memory, ask).plan(rng)?;
    note_use(memory, ask.wish, ask.key, plan.first());
    Ok(plan)
}

/// Chooses the exits for a look-up of a name (RESOLVE). A look-up is no connection. So in the mode `rotate`, the next
/// connection may use the exit of the look-up.
///
/// Only exits of Tor answer look-ups. So if the username has neither session nor pin and may use Tor, only these exits are
/// chosen, as long as one of them can serve. A session or a pin keeps its exit.
pub fn decide_look_up<R: Rng + ?Sized>(
    view: View<'_>,
    memory: &Memory,
    ask: &Ask<'_>,
    rng: &mut R,
) -> Result<Plan, Box<NoPlan>> {
    let chooser = Chooser::new(view, memory, ask);
    if ask.wish.is_pooled() && chooser.sources.len() > 1 && chooser.sources.contains(&Source::Tor) {
        let relays = Chooser { sources: &[Source::Tor], ..chooser };
        if let Ok(plan) = relays.plan(rng) {
            return Ok(plan);
        }
    }
    chooser.plan(rng)
}

/// If the mode is `rotate`, stores the exit that a connection uses. The next connection of this key and username then
/// uses another exit. Called after the dial: if the first exit of the plan (the exits to try, in order) failed, the
/// connection uses another exit of the plan.
pub fn note_use(memory: &Memory, wish: &Wish, key: &str, exit: &Exit) {
    if wish.selector.mode == Mode::Rotate {
        memory.set_last(HolderRef { key, scope: &wish.scope, session: wish.selector.session.as_ref() }, exit);
    }
}

/// One connection, together with everything on which the choice of its exits depends. Each submodule of `choose` adds a
/// method for one mode.
#[derive(Clone, Copy)]
pub(super) struct Chooser<'a> {
    pub(super) view: View<'a>,
    pub(super) memory: &'a Memory,
    pub(super) ask: &'a Ask<'a>,
    pub(super) holder: HolderRef<'a>,
    /// The bans of the site to which the target belongs. `None` if the site has no bans.
    pub(super) bans: Option<&'a SiteBans>,
    pub(super) need: Need<'a>,
    sources: &'a [Source],
    /// True if the target is an IPv6 address.
    v6: bool,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(view: View<'a>, memory: &'a Memory, ask: &'a Ask<'a>) -> Self {
        let wish = ask.wish;
        let holder = HolderRef { key: ask.key, scope: &wish.scope, session: wish.selector.session.as_ref() };
        let need = Need { scope: &wish.scope, selector: &wish.selector, policy: &wish.policy, epoch: 0 };
        let sources = pool::serving(&need, wish.sources(), view.catalog);
        let v6 = matches!(&ask.target.host, Host::Ip(ip) if ip.is_ipv6());
        let bans = view.bans.of(&ask.target.host);
        let chooser = Self { view, memory, ask, holder, bans, need, sources, v6 };
        if !wish.policy.fallback || wish.selector.mode == Mode::Strict {
            return chooser;
        }
        // The exits of the first source may all be banned by this site, refuse the port, or have failed this request.
        let serves = |sources: &&'a [Source]| !Self { sources, ..chooser }.fitting().is_empty();
        wish.sources().chunks(1).find(serves).map_or(chooser, |sources| Self { sources, ..chooser })
    }

    fn plan<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Plan, Box<NoPlan>> {
        let wish = self.ask.wish;
        if let Some(entry) = &wish.entry {
            entry.touch(self.ask.now);
        }
        if self.v6 && !wish.policy.ipv6 {
            return Err(self.refuse_as(Why::Ipv6));
        }
        match (wish.selector.mode, &wish.selector.session) {
            (Mode::Strict, _) => self.strict(rng),
            (_, Some(_)) => self.sticky(rng),
            (_, None) => self.free(rng),
        }
    }

    /// Returns the pool from which to choose: the pool of the route, or the implicit pool of the username's selector.
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

    /// Returns the set of all exits for which [`Self::fits`] is true.
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

    /// Returns the set of all exits for which [`Self::allows`] is true.
    pub(super) fn allowing(&self) -> Bits {
        let mut bits = Bits::clone(&self.view.catalog.allowing(self.ask.target.port, self.v6));
        if !self.ask.plain {
            bits.keep(self.view.catalog.tunnels());
        }
        bits
    }

    /// Returns true if the exit meets the selector. The target does not matter.
    pub(super) fn matches_selector(&self, exit: &Exit) -> bool {
        self.matches(self.sources, exit)
    }

    /// Returns true if a session or pin that has this exit may keep the exit. With `fallback`, an exit of any source of
    /// the route may be kept: which source serves new choices may change several times within a minute.
    pub(super) fn may_keep(&self, exit: &Exit) -> bool {
        self.matches(self.need.policy.sources(self.need.selector), exit)
    }

    fn matches(&self, sources: &[Source], exit: &Exit) -> bool {
        let filter = self.need.selector.filter(sources, self.need.policy.check.as_deref());
        filter.wants(exit) && self.need.selector.picks(exit)
    }

    /// Returns true if the exit allows connections to the target's port. If the connection needs a tunnel, the exit
    /// must also open tunnels.
    pub(super) fn allows(&self, exit: &Exit) -> bool {
        exit.allows(self.ask.target.port, self.v6) && (self.ask.plain || exit.tunnels())
    }

    /// Returns true if the target's site has banned the exit.
    pub(super) fn is_banned(&self, exit: &Exit) -> bool {
        self.bans.is_some_and(|bans| bans.until(exit.id(), self.ask.now).is_some())
    }

    /// Returns true if this request has already failed with the exit.
    fn is_avoided(&self, exit: &Exit) -> bool {
        self.ask.avoid.contains(exit.id())
    }

    /// Returns true if the exit can serve this connection. It does not matter how many connections the exit has, or
    /// whether it is ejected (temporarily not used, because it failed).
    fn fits(&self, exit: &Exit) -> bool {
        let serves = exit.usable() && self.matches_selector(exit) && self.allows(exit);
        serves && !self.is_banned(exit) && !self.is_avoided(exit)
    }

    fn is_closed(&self, exit: &Exit) -> bool {
        exit.load().state(self.ask.now) == State::Closed
    }

    /// Returns a few exits of the set `from` for which `pass` returns true. The exits are drawn at random, weighted by
    /// capacity. If the set has only a few exits, all of them are drawn.
    fn draw<R: Rng + ?Sized>(&self, from: &Bits, rng: &mut R, pass: impl Fn(&Exit) -> bool) -> Vec<&'a Arc<Exit>> {
        self.draw_some(from, FEW, rng, |exit| pass(exit).then_some(exit))
    }

    /// Draws exits of the set `from` as [`Self::draw`] does, and returns the values that `pass` returned for them. An
    /// exit for which `pass` returned `None` is left out. `few` is the size of the first sample.
    fn draw_some<T, R: Rng + ?Sized>(
        &self,
        from: &Bits,
        few: usize,
        rng: &mut R,
        pass: impl Fn(&'a Arc<Exit>) -> Option<T>,
    ) -> Vec<T> {
        for count in [few, MANY] {
            let sample = self.view.catalog.draw(from, count, rng);
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
mod scan_count;
#[cfg(test)]
mod tests;
