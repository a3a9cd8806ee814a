//! Open files: the limit that decides how many connections there can be.

/// Descriptors that are not connections: engines' control and log pipes, the store, listeners, the API, the log.
const RESERVED: u64 = 512;

/// What one tunnel holds at most: two sockets, and two pipes of two ends while it is spliced.
const A_TUNNEL: u64 = 6;

/// Raises the soft limit to the hard one and says how many connections fit.
pub fn raise_limit() -> u32 {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    connections_in(files)
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
