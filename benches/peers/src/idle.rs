//! The memory of an idle tunnel: many are opened, each echoes once so that its buffers are allocated, then all are left alone.

use std::time::Duration;

use exitgate_bench_shared::process::Usage;
use exitgate_bench_shared::tunnel;

use crate::server::Server;
use crate::target;

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// KiB of memory for each tunnel.
    pub kib: f64,
    /// How many tunnels were open at once.
    pub open: usize,
    /// CPU of the server while all tunnels are idle, as a share of one core.
    pub cpu: f64,
}

/// How long all tunnels are idle before the memory is read.
const REST: Duration = Duration::from_secs(3);

/// Opens `count` tunnels, or as many as the server and the machine allow.
pub fn hold(server: &Server, base: u16, count: usize) -> Result<Outcome, String> {
    let before = Usage::of(server.pid);
    let mut held = Vec::with_capacity(count);
    for at in 0..count {
        let Ok(mut stream) = server.open(target::addr(base, 0, at)) else { break };
        if tunnel::echo(&mut stream).is_err() {
            break;
        }
        held.push(stream);
    }
    if held.is_empty() {
        return Err("no tunnel could be opened".into());
    }
    let loaded = Usage::of(server.pid);
    std::thread::sleep(REST);
    let after = Usage::of(server.pid);
    let kib = after.kib.saturating_sub(before.kib) as f64 / held.len() as f64;
    Ok(Outcome { kib, open: held.len(), cpu: (after.cpu - loaded.cpu) / REST.as_secs_f64() })
}
