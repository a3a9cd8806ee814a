//! Kernel limits of this process: the limit on open files, which also limits the connections, and the limit on core
//! dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of file descriptors that are reserved for everything but connections: pipes to engines, the store,
/// listeners, the API, the log. Not tuned.
const RESERVED: u64 = 512;

/// The largest number of file descriptors that one connection uses: two sockets, and while it is spliced two pipes with
/// two ends each.
const PER_CONNECTION: u64 = 6;

/// Raises the soft limit on open files to the hard limit. Returns how many connections the new limit allows.
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

/// Turns off core dumps of this process and of the engines that it starts, because the memory contains keys, tokens and
/// clients' data. The limit is one byte and not zero. If `core_pattern` is a program (as systemd sets it), the kernel
/// ignores every limit except exactly 1. To debug, attach to the process.
pub(in crate::app) fn forbid_core_dumps() {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

/// Returns how many connections fit into this limit on open files. A connection needs the most file descriptors while
/// it carries much data, because it then uses pipes. Few connections carry much data at the same time. So each
/// connection is counted with half of the largest number of descriptors.
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
