//! exitgate: one gateway, many exits.
//!
//! The tour, in the order in which a connection meets the rooms:
//!
//! | room | what it does |
//! | --- | --- |
//! | [`cli`] | reads the command line and starts what it asks for |
//! | [`app`] | builds every part from the configuration and connects the parts |
//! | [`listen`] | owns a port: takes a permit, accepts, pauses after an error, spawns the connection |
//! | [`gateway`] | the data path, from the first bytes to the relayed stream; start reading at `gateway/connection.rs` |
//! | [`limit`] | says who may do how much, and which targets are allowed |
//! | [`route`] | chooses exits: selectors, pools, sessions, pins, bans (pure) |
//! | [`dial`] | opens streams to targets through the chosen exit |
//! | [`tor`] | runs tor processes (engines) and builds circuits in them |
//!
//! and what stands behind it:
//!
//! | room | what it does |
//! | --- | --- |
//! | [`source`] | finds exits: tor's directory, Onionoo, lists of public proxies |
//! | [`check`] | tests exits, and decides which are good, bad or banned |
//! | [`exit`] | holds what is known of each exit: the catalog (pure) |
//! | [`state`] | the one writer; publishes the snapshot that everybody reads |
//! | [`store`] | keeps state in SQLite, on a thread of its own |
//! | [`admin`] | creates, changes and closes routes while the gateway runs |
//! | [`api`] | the HTTP interface to all of this |
//! | [`console`] | the web console, as files in the binary |
//! | [`config`] | reads text and gives validated settings |
//! | [`telemetry`] | logging and metrics |
//! | [`lifecycle`] | running, draining, killing; the only room that spawns tasks |
//! | [`net`] | host names, targets and secrets |
//!
//! Each room's own page says why it is as it is. Two drawings in `docs/ARCHITECTURE.md` show the ways through them: a
//! connection, and a change. Rooms know only rooms below them; `tests/it/architecture.rs` fails on an arrow that
//! points up or sideways.

pub mod admin;
pub mod api;
pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod console;
pub mod dial;
pub mod exit;
pub mod gateway;
pub mod lifecycle;
pub mod limit;
pub mod listen;
pub mod net;
pub mod route;
pub mod source;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod tor;
