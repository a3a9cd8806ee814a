//! The round trip of 64 bytes in an open tunnel.

use std::time::{Duration, Instant};

use exitgate_bench_shared::stats::percentile;
use exitgate_bench_shared::tunnel;

use crate::server::Server;
use crate::target;

/// Microseconds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub p50: f64,
    pub p99: f64,
}

/// One tunnel, one message at a time, for `span`.
pub fn ping(server: &Server, base: u16, span: Duration) -> Result<Outcome, String> {
    let mut stream = server.open(target::addr(base, 0, 0))?;
    let began = Instant::now();
    let mut trips = Vec::new();
    while began.elapsed() < span {
        let sent = Instant::now();
        tunnel::echo(&mut stream).map_err(|fault| fault.to_string())?;
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Outcome { p50: percentile(&mut trips, 0.5), p99: percentile(&mut trips, 0.99) })
}
