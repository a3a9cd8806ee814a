//! exitgate: a SOCKS and HTTP proxy (the gateway) that sends each connection through one of many exits.
//!
//! This table lists the rooms (modules) in the order in which a connection passes through them:
//!
//! | room | what it does |
//! | --- | --- |
//! | [`cli`] | reads the command line and runs the command |
//! | [`app`] | builds every part from the configuration and connects the parts |
//! | [`listen`] | owns a port: takes a permit, accepts a connection, starts a task for it, and pauses after an error |
//! | [`gateway`] | the data path, from a client's first bytes to the relayed stream; see `gateway/connection.rs` |
//! | [`limit`] | limits what each client may do, and decides which targets are allowed |
//! | [`route`] | chooses exits: selectors, pools, sessions, pins, bans. It does no input or output ("pure") |
//! | [`dial`] | opens streams to targets through the chosen exit |
//! | [`tor`] | runs tor processes (engines) and builds circuits in them |
//!
//! These rooms work in the background:
//!
//! | room | what it does |
//! | --- | --- |
//! | [`source`] | finds exits: tor's directory, Onionoo, lists of public proxies |
//! | [`check`] | tests exits, and decides which are good, bad or banned |
//! | [`exit`] | the catalog: holds all known facts about each exit (pure) |
//! | [`state`] | the only place that changes the state. It publishes the snapshot that all rooms read |
//! | [`store`] | keeps the state in SQLite, on a thread of its own |
//! | [`admin`] | creates, changes and closes routes while the gateway runs |
//! | [`api`] | the HTTP interface to all of this |
//! | [`console`] | the web console, as files in the binary |
//! | [`config`] | reads text and returns validated settings |
//! | [`telemetry`] | logging and metrics |
//! | [`lifecycle`] | the phases of the process: running, draining, killed. The only room that spawns tasks |
//! | [`net`] | host names, targets and secrets |
//!
//! The module page of each room explains the reasons for its design. Two drawings in `docs/ARCHITECTURE.md` show the
//! way of a connection and the way of a change through the rooms. A room may use only rooms below it in the
//! architecture. `tests/it/architecture.rs` fails if a room uses one above it or beside it.

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
