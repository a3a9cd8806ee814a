//! System calls a tunnel, counted by strace.
//!
//! A server under strace is several times slower, so it finds less to do each time it wakes: the count is an upper bound for every
//! server.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use exitgate_bench_shared::process::{signal, tree};

use crate::server::Server;
use crate::tunnels;

/// How long strace gets to attach to every thread.
const ATTACH: Duration = Duration::from_millis(700);

/// System calls for each tunnel, over a closed run of `span`.
pub fn count(server: &Server, base: u16, span: Duration) -> Result<f64, String> {
    let pid = server.pid.ok_or("the server has no process to count")?;
    let summary = std::env::temp_dir().join(format!("peers-syscalls-{pid}"));
    let mut strace = attach(pid, &summary)?;
    std::thread::sleep(ATTACH);
    let run = tunnels::closed(server, base, span);
    interrupt(&mut strace)?;
    let text = std::fs::read_to_string(&summary).map_err(|fault| format!("strace left no summary: {fault}"))?;
    let _ = std::fs::remove_file(&summary); // a file that stays in the folder for temporary files does no harm
    Ok(total(&text).ok_or("strace's summary has no total")? / run?.done as f64)
}

fn attach(pid: u32, summary: &PathBuf) -> Result<Child, String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(summary);
    for pid in tree(pid) {
        strace.args(["-p", &pid.to_string()]);
    }
    strace.stderr(Stdio::null()).spawn().map_err(|fault| format!("strace: {fault}"))
}

/// strace writes its summary when it is interrupted.
fn interrupt(strace: &mut Child) -> Result<(), String> {
    signal(strace.id(), "INT").map_err(|fault| fault.to_string())?;
    strace.wait().map(drop).map_err(|fault| fault.to_string())
}

/// The number of calls in the last line: `100.00    0.060893          12      4927       312 total`.
fn total(summary: &str) -> Option<f64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_fourth_number_of_the_last_line() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 48.00    0.973862        2590       376           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    2.029088          40     50469      2943 total
";
        assert_eq!(total(summary), Some(50469.0));
        assert_eq!(total("strace: attach: Operation not permitted"), None);
    }
}
