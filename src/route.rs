//! Routes, and how a connection gets its exit. Pure: no I/O, no await; time and randomness are passed in.
//!
//! A username is a *selector* (`us-strict`), or the name of a *route*: a selector with a name, a port and a policy.
//! Choosing an exit is a function of a snapshot, the loads of the moment, the request, the time and a random number
//! generator, so that each of its rules has a test that opens no socket.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `route/selector.rs` | usernames: text → selector |
//! | `route/table.rs` | named routes, and what a username resolves to |
//! | `route/pool.rs`, `route/implicit.rs` | the exits that a route, or a username without a route, uses now |
//! | `route/choose.rs` | which exit a connection gets |
//! | `route/pin.rs`, `route/session.rs` | exits that strict routes and sessions keep |
//! | `route/ban.rs` | sites that refuse exits |
//! | `route/explain.rs`, `route/refusal.rs` | why a username has the exits that it has, or none |
//! | `route/wanted.rs` | the circuits that Tor should keep ready |
//!
//! Next: [`crate::gateway`] chooses for each connection; [`crate::tor`] keeps circuits for [`WantedExits`].

pub mod balance;
pub mod ban;
mod carrier;
pub mod choose;
mod claim;
pub mod event;
pub mod explain;
#[cfg(test)]
mod fixture;
mod holder;
pub mod implicit;
mod lru;
pub mod memory;
pub mod pin;
pub mod pinned;
pub mod policy;
pub mod pool;
pub mod refusal;
pub mod refusal_detector;
pub mod selector;
pub mod session;
pub mod table;
pub mod view;
pub mod wanted;

pub use ban::{Bans, Site};
pub use carrier::carrier;
pub use choose::{Ask, Plan, Rotated, Successor, decide, succeed, successor};
pub use event::{Cause, Event, Moved};
pub use explain::{Explanation, explain};
pub use holder::{Holder, HolderRef};
pub use memory::Memory;
pub use policy::Policy;
pub use pool::Pool;
pub use refusal::{Refusal, Why};
pub use selector::{Selector, Words};
pub use table::{Route, RouteTable, Wish};
pub use view::View;
pub use wanted::SPARES;

use std::collections::BTreeMap;

use crate::exit::Fingerprint;

/// Streams share a circuit only if their isolation is equal. It is derived from (key, route, session), so that nobody who
/// watches a circuit can link two clients, routes or sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isolation(pub u64);

/// The exits for which Tor should keep circuits now. `state` publishes it and `tor` reconciles its circuits with it; the
/// type is here because those two rooms must not know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedExits {
    /// For the shared engines.
    pub exits: BTreeMap<Fingerprint, WantedExit>,
    /// For each route that has an engine of its own. A route is listed even if it wants no exit now.
    pub own: BTreeMap<OwnEngine, BTreeMap<Fingerprint, WantedExit>>,
}

/// The engine of a route that has its own: a hash of the route's name, the same at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnEngine(pub u64);

/// The circuits that are wanted to one exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedExit {
    /// Circuits to keep ready beyond those in use.
    pub spares: u8,
    /// Relays in each circuit: 3, or 2 for a route that prefers speed to anonymity.
    pub hops: u8,
}
