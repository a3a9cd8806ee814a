//! Limits of the kernel on this process: the number of open files, which bounds the connections, and no core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for all that is no connection: pipes to engines, the store, listeners, the API, the log. Not tuned.
const RESERVED: u64 = 512;

/// The most descriptors of one connection: two sockets, and two pipes with two ends each while it is spliced.
const PER_CONNECTION: u64 = 6;

/// Raises the soft limit to the hard one, and returns how many connections fit.
pub fn raise_limit() -> u32 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    connections_in(files)
}

/// Switches off core dumps of this process and of the engines that it starts, because keys, tokens and clients' data are
/// in its memory. The limit is one byte and not zero: where `core_pattern` names a program (as systemd sets it), the kernel
/// ignores the limit unless it is exactly 1. To debug, attach to the process.
pub(in crate::app) fn forbid_core_dumps() {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

/// How many connections fit into this many open files. A connection is spliced only while it carries much, and few do at
/// once, so half of the worst case is planned for each.
fn connections_in(files: u64) -> u32 {
    let connections = files.saturating_sub(RESERVED) / (PER_CONNECTION / 2);
    u32::try_from(connections).unwrap_or(u32::MAX).max(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_limit() {
        assert_eq!(connections_in(1024), 170);
        assert_eq!(connections_in(1_048_576), 349_354);
        assert_eq!(connections_in(100), 64);
        assert_eq!(connections_in(u64::MAX), u32::MAX);
    }
}
