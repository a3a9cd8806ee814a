//! A private Tor network, a fake web and fake sources, all on loopback.
//!
//! [`Testbed::start`] brings up what most tests want; each part also starts alone, on a [`Ground`] that several parts may
//! share. Everything ends with the value that holds it: no process, no folder and no port is left, also when a test
//! panics or is killed.
//!
//! - [`ground`]: addresses and a folder of one's own
//! - [`layout`], [`network`]: who is in the network, and the network
//! - [`dns`], [`web`]: the names that exits resolve, and the sites behind them
//! - [`onionoo`], [`public`]: where a gateway learns of relays and of public proxies, and those proxies
//! - [`control`], [`fetch`]: the two protocols that tests speak themselves

pub mod control;
pub mod dns;
pub mod fetch;
pub mod ground;
pub mod layout;
pub mod network;
pub mod onionoo;
pub mod public;
pub mod testbed;
pub mod web;

mod behaviour;
mod cache;
mod clock;
mod page;
mod process;
mod shim;
mod snapshot;
mod stage;
mod torrc;

pub use control::Control;
pub use dns::Dns;
pub use ground::Ground;
pub use layout::{Backend, ExitSpec, Options, Relay, Role};
pub use network::{Client, ClientOptions, Network, Start, Wait};
pub use onionoo::Onionoo;
pub use public::PublicProxies;
pub use testbed::Testbed;
pub use web::Web;
