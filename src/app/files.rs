//! What the kernel lets this process have: open files, which decide how many connections there can be, and no core dump.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: engines' control and log pipes, the store, listeners, the API, the log.
const RESERVED: u64 = 512;

/// What one tunnel holds at most: two sockets, and two pipes of two ends while it is spliced.
const A_TUNNEL: u64 = 6;

/// Raises the soft limit to the hard one and says how many connections fit.
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

/// No core dump of this process or of the engines that it starts: keys, tokens and what clients say are in its memory.
/// The limit is one byte and not none, because the kernel gives a dump to a program (`core_pattern` with a `|`, as
/// systemd sets it) whatever the limit says, but for exactly that value. Whoever debugs attaches to the process.
pub(in crate::app) fn forbid_core_dumps() {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

/// How many connections fit into so many open files. A splice needs pipes only while it is bulky, and few tunnels are
/// at once: half of the worst case is what is planned for.
fn connections_in(files: u64) -> u32 {
    let room = files.saturating_sub(RESERVED) / (A_TUNNEL / 2);
    u32::try_from(room).unwrap_or(u32::MAX).max(64)
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
