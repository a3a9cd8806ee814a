//! The round trip of 64 bytes in an open tunnel.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::speak::{self, PAYLOAD};
use crate::stats::percentile;
use crate::target;

/// Microseconds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// One tunnel, one message at a time, for `span`.
pub fn ping(server: &Server, base: u16, span: Duration) -> Result<Outcome, String> {
    let mut stream = speak::open(server, target::addr(base, 0, 0))?;
    stream.set_nodelay(true).map_err(|fault| fault.to_string())?;
    let begun = Instant::now();
    let mut trips = Vec::new();
    let mut answer = PAYLOAD;
    while begun.elapsed() < span {
        let sent = Instant::now();
        stream.write_all(&PAYLOAD).and_then(|()| stream.read_exact(&mut answer)).map_err(|fault| fault.to_string())?;
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Outcome { p50: percentile(&mut trips, 0.5), p99: percentile(&mut trips, 0.99) })
}
