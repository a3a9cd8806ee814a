//! What the kernel says of processes, and signals to those that we started.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Sends a signal, such as `STOP`, to a process that we, or a gateway of ours, started.
pub fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
    ensure!(sent.success(), "signal {signal} cannot be sent to {pid}");
    Ok(())
}

/// The processes that a process has started.
pub fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Processor time that a process has used, in user mode and in the kernel.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("no such field");
    // utime and stime are fields 14 and 15 of the line; number, and name with the blanks that it may hold, are cut away.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10)) // 100 ticks a second on every Linux that we run on
}

/// Resident memory of a process, in megabytes (10^6 bytes).
pub fn memory(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no VmRSS")?;
    Ok(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_weighed_and_its_children_are_found() {
        let own = std::process::id();
        assert!(memory(own).unwrap() > 1.0);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(own).contains(&child.id()));
        signal(child.id(), "KILL").unwrap();
        child.wait().unwrap();
        assert!(cpu(own).is_ok() && cpu(u32::MAX).is_err());
    }
}
