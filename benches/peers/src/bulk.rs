//! Bulk: four tunnels that carry as much as they can.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use exitgate_bench_shared::process::Usage;
use exitgate_bench_shared::tunnel::Kind;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::server::Server;
use crate::target::{self, SINK, SOURCE};

const STREAMS: usize = 4;

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// GiB a second, all streams together.
    pub rate: f64,
    /// CPU seconds of the server for each GiB.
    pub cpu: f64,
}

/// From the target to the client.
pub fn down(server: &Server, base: u16, span: Duration) -> Result<Outcome, String> {
    let mut buffer = vec![0; 256 << 10];
    carry(server, base, span, SOURCE, move |stream| stream.read(&mut buffer))
}

/// From the client to the target.
pub fn up(server: &Server, base: u16, span: Duration) -> Result<Outcome, String> {
    let buffer = vec![0; 256 << 10];
    carry(server, base, span, SINK, move |stream| stream.write(&buffer))
}

fn carry(
    server: &Server,
    base: u16,
    span: Duration,
    port: u16,
    mut once: impl FnMut(&mut TcpStream) -> std::io::Result<usize>,
) -> Result<Outcome, String> {
    let fault = |fault: std::io::Error| fault.to_string();
    let mut poll = Poll::new().map_err(fault)?;
    let mut server = server.clone();
    if server.kind == Kind::Plain {
        // A plain relay has one port for each of the target's.
        server.addr.set_port(server.addr.port() + port);
    }
    let mut streams = Vec::new();
    for at in 0..STREAMS {
        let stream = server.open(target::addr(base, port, at))?;
        stream.set_nonblocking(true).map_err(fault)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(at), interest).map_err(fault)?;
        streams.push(stream);
    }
    let mut events = Events::with_capacity(STREAMS);
    let (before, began) = (Usage::of(server.pid), Instant::now());
    let mut moved = 0;
    while began.elapsed() < span {
        poll.poll(&mut events, Some(Duration::from_millis(100))).map_err(fault)?;
        for event in &events {
            loop {
                match once(&mut streams[event.token().0]) {
                    Ok(0) => return Err("a stream ended".into()),
                    Ok(len) => moved += len,
                    Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
                    Err(fault) => return Err(fault.to_string()),
                }
                if began.elapsed() > span {
                    break;
                }
            }
        }
    }
    let gib = moved as f64 / f64::from(1 << 30);
    let cpu = (Usage::of(server.pid).cpu - before.cpu) / gib;
    Ok(Outcome { rate: gib / began.elapsed().as_secs_f64(), cpu })
}
