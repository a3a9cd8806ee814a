//! What each fuzz target does with its bytes: plain functions that panic on a finding.
//!
//! They are here and not in the targets so that an ordinary test can call them too: `tests/it/fuzz.rs` includes this file and
//! runs every input of `corpus/`, on a stable compiler and without a fuzzer.

pub mod config;
pub mod control_reply;
pub mod exit_list;
pub mod http_answer;
pub mod http_front;
pub mod http_head;
pub mod onionoo;
pub mod proxy_list;
pub mod proxy_protocol;
pub mod selector;
pub mod socks;

/// The name of a target, and its function.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 11] = [
    ("config", config::run),
    ("control_reply", control_reply::run),
    ("exit_list", exit_list::run),
    ("http_answer", http_answer::run),
    ("http_front", http_front::run),
    ("http_head", http_head::run),
    ("onionoo", onionoo::run),
    ("proxy_list", proxy_list::run),
    ("proxy_protocol", proxy_protocol::run),
    ("selector", selector::run),
    ("socks", socks::run),
];

/// Splits an input into its first byte, which says into pieces of which size the rest is cut, and the rest.
fn cut(input: &[u8]) -> (usize, &[u8]) {
    input.split_first().map_or((1, input), |(first, rest)| (usize::from(*first).max(1), rest))
}
