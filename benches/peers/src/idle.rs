//! What an idle tunnel costs: many are opened, each echoes once (so that its buffers were needed), then all rest.

use std::io::{Read, Write};
use std::time::Duration;

use crate::proc::Usage;
use crate::server::Server;
use crate::speak::{self, PAYLOAD};
use crate::target;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// KiB of memory a tunnel.
    pub kib: f64,
    /// Tunnels that were open at once.
    pub open: usize,
    /// CPU of the server while all rest, as a share of one core.
    pub cpu: f64,
}

/// How long all rest before the memory is read.
const REST: Duration = Duration::from_secs(3);

/// Opens `count` tunnels (fewer if the machine ends first).
pub fn hold(server: &Server, base: u16, count: usize) -> Result<Outcome, String> {
    let before = Usage::of(server.pid);
    let mut held = Vec::with_capacity(count);
    for at in 0..count {
        let Ok(mut stream) = speak::open(server, target::addr(base, 0, at)) else { break };
        let mut answer = PAYLOAD;
        if stream.write_all(&PAYLOAD).and_then(|()| stream.read_exact(&mut answer)).is_err() {
            break;
        }
        held.push(stream);
    }
    if held.is_empty() {
        return Err("no tunnel came through".into());
    }
    let loaded = Usage::of(server.pid);
    std::thread::sleep(REST);
    let after = Usage::of(server.pid);
    let kib = after.rss.saturating_sub(before.rss) as f64 / held.len() as f64;
    Ok(Outcome { kib, open: held.len(), cpu: (after.cpu - loaded.cpu) / REST.as_secs_f64() })
}
