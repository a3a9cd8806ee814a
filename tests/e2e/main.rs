//! The shipped binary on a real private Tor network, driven by real clients.
//!
//! What is asserted is what the target saw: the address that a request came from, next to the exit that the answer
//! named. Each test has a network of its own, because tests stop relays and kill engines.

#![expect(clippy::disallowed_methods, reason = "tests are their own clients, and their tasks end with them")]
#![expect(clippy::print_stderr, reason = "a failed test shows the end of its gateway's log")]

mod api;
mod attack;
mod cheap_to_dear;
mod choosing;
mod clients;
mod completions;
mod control;
mod exits;
mod faults;
mod front;
mod gateway;
mod identity;
mod init;
mod keys;
mod lifecycle;
mod operator;
mod own_addresses;
mod own_exits;
mod parallel_requests;
mod public;
mod routes;
mod siege;
mod store;
mod upgrade;
