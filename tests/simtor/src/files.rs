//! How many files a process may open: every stream needs two, here and in the world.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Allows as many as the system lets us, as tor does at its start.
pub(crate) fn allow() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit); // with fewer files there are fewer streams at once
}
