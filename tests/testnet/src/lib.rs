//! A private Tor network, a fake web and fake sources, all on loopback.
//!
//! [`Testbed::start`] starts what most tests need. Each part can also be started alone, in a [`Sandbox`] that several parts may share.
//! Dropping a part ends it: no process, folder or port is left, even if a test panics or is killed.
//!
//! - [`sandbox`]: loopback addresses and a temporary folder for one test
//! - [`layout`], [`network`]: the relays of the Tor network, and the network itself
//! - [`dns`], [`web`]: the name server of the exits, and the web sites that they reach
//! - [`onionoo`], [`public`]: sources of relays and of public proxies, and those proxies
//! - [`upstream`]: proxies of one's own, with logins
//! - [`control`], [`fetch`]: clients of tor's control port, of SOCKS and of HTTP

pub mod control;
pub mod dns;
pub mod fetch;
pub mod layout;
pub mod mmdb;
pub mod network;
pub mod onionoo;
pub mod public;
pub mod sandbox;
pub mod testbed;
pub mod upstream;
pub mod web;

mod cache;
mod dates;
mod fake_runtime;
mod http_response;
mod process;
mod shim;
mod snapshot;
mod source_behaviour;
mod torrc;

pub use control::Control;
pub use dns::Dns;
pub use layout::{Backend, ExitSpec, Options, Relay, Role};
pub use network::{Client, ClientOptions, Network, Start, Wait};
pub use onionoo::Onionoo;
pub use public::PublicProxies;
pub use sandbox::Sandbox;
pub use testbed::Testbed;
pub use web::Web;
