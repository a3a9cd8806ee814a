//! Routes, and how a connection gets its exit. Pure: no I/O and no await. The caller passes in the time and the random
//! number generator.
//!
//! A username is either a *selector* (a text such as `us-strict` that describes the wanted exits) or the name of a
//! *route*. A route is a selector with a name, a port and a policy (its settings).
//!
//! The choice of an exit is a function of a snapshot of the state, the current loads of the exits, the request, the
//! time and a random number generator. Therefore each rule has a test that opens no socket.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `route/selector.rs` | usernames: text → selector |
//! | `route/table.rs` | named routes, and which route or selector a username means |
//! | `route/pool.rs`, `route/implicit.rs` | the exits that a route, or a username without a route, uses now |
//! | `route/choose.rs` | which exit a connection gets |
//! | `route/pin.rs`, `route/session.rs` | exits that strict routes and sessions keep |
//! | `route/rules.rs`, `route/table/destination.rs` | rules by destination |
//! | `route/ban.rs` | sites that refuse exits |
//! | `route/explain.rs`, `route/no_plan.rs` | why a username has its exits, or has no exit |
//! | `route/wanted.rs` | the circuits that Tor should keep ready |
//!
//! Next: [`crate::gateway`] chooses an exit for each connection. [`crate::tor`] keeps circuits for [`CircuitDemand`].

pub mod balance;
pub mod ban;
mod carrier;
pub mod choose;
mod claim;
pub mod escalation;
pub mod event;
pub mod explain;
#[cfg(test)]
mod fixture;
mod holder;
pub mod implicit;
mod isolate_by;
mod isolation;
mod lru;
pub mod memory;
pub mod no_plan;
pub mod pin;
pub mod pinned;
pub mod policy;
pub mod pool;
pub mod refusal_detector;
pub mod rules;
pub mod selector;
pub mod session;
pub mod table;
pub mod view;
pub mod wanted;

pub use ban::{Bans, Site};
pub use carrier::{any_carrier, carrier};
pub use choose::{Ask, Plan, Rotated, Successor, decide, may_serve_again, succeed, successor};
pub use event::{Cause, Event, Moved};
pub use explain::{Explanation, explain, funnel};
pub use holder::{Holder, HolderRef};
pub use isolate_by::IsolateBy;
pub use isolation::{Isolation, Tenant};
pub use memory::Memory;
pub use no_plan::{NoPlan, Why};
pub use policy::Policy;
pub use pool::Pool;
pub use selector::{Selector, Words};
pub use table::{Route, RouteTable, Wish};
pub use view::View;
pub use wanted::SPARES;

use std::collections::BTreeMap;

use crate::exit::Fingerprint;

/// The exits for which Tor should keep circuits now. The module `state` publishes this value, and the module `tor`
/// builds and closes circuits to match the value. The type belongs to neither module, because `state` and `tor` must
/// not depend on each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CircuitDemand {
    /// Exit → circuits to keep, for the engines (tor processes) that several routes share.
    pub exits: BTreeMap<Fingerprint, SpareCircuits>,
    /// Engine → exit → circuits to keep, for each route that has an engine of its own. Such a route has an entry even
    /// if the route wants no circuit now.
    pub own: BTreeMap<OwnEngine, BTreeMap<Fingerprint, SpareCircuits>>,
}

/// Identifies the engine (tor process) that only one route uses. The id is a hash of the route's name, which is the
/// same at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnEngine(pub u64);

/// How important the spare circuits to an exit are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rank {
    /// A new route may use the exit for its first connection.
    #[default]
    Fresh,
    /// The exit is the first choice of a route that was used in the last ten minutes.
    First,
    /// A connection used the exit, or its pin, in the last ten minutes.
    Used,
}

/// How many circuits to one exit are wanted, and how long these circuits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareCircuits {
    /// The number of circuits to keep ready in addition to those in use.
    pub spares: u8,
    /// How important the spare circuits are. If not all wanted spare circuits can be kept, those with the highest rank
    /// are kept.
    pub rank: Rank,
    /// The number of relays in each circuit: 3, or 2 for a route that prefers speed to anonymity.
    pub hops: u8,
}
