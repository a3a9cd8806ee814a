//! What takes a browser, a gigabyte or minutes: `make verify` runs it.

#![expect(clippy::disallowed_methods, reason = "tests are their own clients, and their tasks end with them")]
#![expect(clippy::print_stdout, reason = "a measurement shows its figures")]
#![expect(clippy::print_stderr, reason = "a failed test shows the end of its gateway's log")]

#[path = "slow/bodies.rs"]
mod bodies;
#[path = "slow/browser.rs"]
mod browser;
#[expect(dead_code, reason = "the faster tests use more of it")]
mod gateway;
#[path = "clients/installed.rs"]
mod installed;
mod parallel_requests;
#[path = "slow/tail.rs"]
mod tail;
