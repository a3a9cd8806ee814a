//! What a server burns and holds, read from `/proc` for it and all its children.

use std::fs;

/// CPU time and memory of a tree of processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu: f64,
    /// Resident memory without pages shared with a file, KiB.
    pub rss: u64,
}

impl Usage {
    /// Of the process `root` and its descendants, now. Zero when there is none.
    pub fn of(root: Option<u32>) -> Self {
        let Some(root) = root else { return Self::default() };
        let mut sum = Self::default();
        for pid in tree(root) {
            sum.cpu += cpu(pid).unwrap_or_default();
            sum.rss += anonymous(pid).unwrap_or_default();
        }
        sum
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

/// Seconds of CPU, from clock ticks: user, system, and those of children already waited for.
fn cpu(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|tick| tick.parse::<f64>().ok()).sum();
    Some(ticks / 100.0) // USER_HZ is 100 on every Linux that we run on
}

fn anonymous(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}
