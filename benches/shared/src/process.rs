//! CPU time and memory of processes, read from `/proc`.

use std::fs;
use std::process::{Child, Command};

use anyhow::{Context as _, ensure};

/// CPU time and memory of a process and its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu: f64,
    /// Resident memory without pages that are shared with a file, in KiB.
    pub kib: u64,
}

impl Usage {
    /// The usage now; zero if there is no such process.
    pub fn of(root: Option<u32>) -> Self {
        let processes = root.map(tree).unwrap_or_default();
        Self {
            cpu: processes.iter().map(|pid| cpu(*pid)).sum(),
            kib: processes.iter().filter_map(|pid| status(*pid, "RssAnon").ok()).sum(),
        }
    }
}

/// A process and its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The name of a process's program, at most 15 bytes; empty if it is gone.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Seconds of user and system time, with those of children that it has waited for; zero if the process is gone.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.0 // USER_HZ is 100 on every Linux that the benches run on
}

/// A number of `/proc/PID/status`: `VmRSS`, `VmHWM` and `RssAnon` are in KiB.
pub fn status(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next());
    value.with_context(|| format!("/proc/{pid}/status has no {field}"))?.parse().context(field.to_owned())
}

/// Sends a signal by its name without `SIG`.
pub fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
    ensure!(sent.success(), "cannot send {signal} to process {pid}");
    Ok(())
}

/// A child process that is killed when this is dropped.
#[derive(Debug)]
pub struct KilledOnDrop(pub Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error says that it has ended
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_a_name_and_children() {
        let own = std::process::id();
        let child = KilledOnDrop(Command::new("sleep").arg("60").spawn().unwrap());
        let pid = child.0.id();
        assert!(status(own, "VmRSS").unwrap() > 0 && status(own, "Nothing").is_err());
        assert!(tree(own).contains(&pid));
        assert!(Usage::of(Some(own)).kib > 0 && Usage::of(None).kib == 0);
        drop(child);
        assert!(signal(pid, "KILL").is_err() && !tree(own).contains(&pid));
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let own = std::process::id();
        let before = cpu(own);
        while cpu(own) <= before {
            std::hint::black_box((0..1_000_000_u64).sum::<u64>());
        }
    }
}
