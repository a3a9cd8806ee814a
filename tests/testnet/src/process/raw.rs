//! System calls that std does not offer. The only unsafe code of this crate.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The child will be killed when the *thread* that starts it ends, for whatever reason. It keeps `hold` open across exec, so that what `hold`
/// locks stays locked until the last child has ended.
#[expect(unsafe_code, reason = "pre_exec is unsafe by signature")]
pub(super) fn bind_to_parent(command: &mut Command, hold: RawFd) {
    let parent = std::process::id();
    let last_steps = move || {
        check(prctl_die_with_parent())?;
        if parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH)); // the parent ended before the prctl took effect
        }
        check(keep_across_exec(hold))
    };
    // SAFETY: between fork and exec the closure only makes the system calls prctl, getppid and fcntl, which are
    // async-signal-safe, on values that it owns; it neither allocates nor locks (`from_raw_os_error` and
    // `last_os_error` only store a number).
    unsafe { command.pre_exec(last_steps) };
}

/// Sends a signal to a child that has not been waited for.
#[expect(unsafe_code, reason = "std sends no signal but SIGKILL")]
pub(super) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory of ours. The caller holds the child unwaited, so the
    // number cannot have been given to another process.
    check(unsafe { libc::kill(pid, signal) })
}

#[expect(unsafe_code, reason = "a system call")]
fn prctl_die_with_parent() -> i32 {
    // SAFETY: PR_SET_PDEATHSIG takes one integer and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }
}

#[expect(unsafe_code, reason = "a system call")]
fn parent_id() -> u32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { libc::getppid() }.cast_unsigned()
}

#[expect(unsafe_code, reason = "a system call")]
fn keep_across_exec(fd: RawFd) -> i32 {
    // SAFETY: F_SETFD takes one integer; a bad descriptor is an error, not undefined behaviour.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }
}

/// Raises the soft limit on open files to the hard one, and returns that.
#[expect(unsafe_code, reason = "system calls")]
pub(super) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit, to which the pointer is valid and exclusive for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one rlimit, to which the pointer is valid for the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

fn check(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
