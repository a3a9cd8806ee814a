//! Routes, and how one chooses an exit. Pure: no I/O, no await, no clock but the one passed in.
//!
//! What a client says in a username is a selector; a selector with a name, a port and a policy is a route. Choosing is
//! a function of a snapshot, of the loads of the moment, of the request, of a clock and of a source of randomness, so
//! that each rule of it has a test that opens no socket.
//!
//! Next: [`crate::gateway`] asks for a choice per connection; [`crate::tor`] keeps circuits for what is [`WantedExits`].

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
pub mod policy;
pub mod pool;
pub mod refusal_detector;
pub mod selector;
pub mod session;
pub mod table;
pub mod wanted;

pub use ban::{Bans, Site};
pub use carrier::carrier;
pub use choose::{Ask, Plan, Rotated, Successor, View, decide, succeed, successor};
pub use event::{Cause, Event, Moved};
pub use explain::{Explanation, Refusal, Why, explain};
pub use holder::{Holder, HolderRef};
pub use memory::Memory;
pub use policy::Policy;
pub use pool::Pool;
pub use selector::{Selector, Words};
pub use table::{Route, RouteTable, Wish};
pub use wanted::SPARES;

use std::collections::BTreeMap;

use crate::exit::Fingerprint;

/// Who may share a circuit: streams of different isolation never do. Derived from (key, route, session); two values
/// are equal only if their owners do not mind being linked by whoever watches the circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isolation(pub u64);

/// What the pools and pins of this moment ask of Tor: a plain value that `state` publishes and `tor` reconciles with.
/// It lives here because `tor` must not know `state`, nor `state` how circuits are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedExits {
    /// Exits that traffic may use now, each with what it is wanted for.
    pub exits: BTreeMap<Fingerprint, WantedExit>,
    /// The same for each route that has an engine of its own; one that wants no exit now still has it.
    pub own: BTreeMap<OwnEngine, BTreeMap<Fingerprint, WantedExit>>,
}

/// An engine that one route has for itself: a number for the route's name that is the same at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnEngine(pub u64);

/// How much of one exit is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedExit {
    /// Warm circuits to keep ready beyond those in use.
    pub spares: u8,
    /// Relays in a circuit: 3, or 2 for a route that gave up anonymity for speed.
    pub hops: u8,
}
