//! New tunnels: as many as possible with a fixed number at once (closed loop), or at a fixed rate whatever the server does (open loop).

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use exitgate_bench_shared::process::Usage;
use exitgate_bench_shared::stats::percentile;
use exitgate_bench_shared::tunnel::{PAYLOAD, Step, Until, handshake};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::server::Server;
use crate::target;

/// Tunnels at once in a closed run. Not tuned.
const AT_ONCE: usize = 64;
/// Tunnels at once in an open run, at most. Beyond it no new ones start, and the ones that are late count as late.
const MAX_AT_ONCE: usize = 4096;
const WAKE: Token = Token(usize::MAX);

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Tunnels a second that echoed everything.
    pub per_second: f64,
    /// Microseconds until a tunnel was open: median.
    pub p50: f64,
    /// The same: 99th percentile.
    pub p99: f64,
    /// CPU microseconds of the server for each tunnel.
    pub cpu: f64,
    /// Tunnels that echoed everything.
    pub done: usize,
    pub failed: usize,
}

struct Tunnel {
    stream: TcpStream,
    begun: Instant,
    step: usize,
    sent: bool,
    got: Vec<u8>,
}

enum Progress {
    Wait,
    Done,
    Failed,
}

struct Run {
    poll: Poll,
    server: Server,
    slots: Vec<(usize, Option<Tunnel>)>,
    free: Vec<usize>,
    scripts: Vec<Vec<Step>>,
    opened: Vec<f64>,
    done: usize,
    failed: usize,
}

/// `AT_ONCE` tunnels at a time for `span`.
pub fn closed(server: &Server, base: u16, span: Duration) -> Result<Outcome, String> {
    let mut run = Run::new(server, base)?;
    let mut events = Events::with_capacity(AT_ONCE);
    let (before, begun) = (Usage::of(server.pid), Instant::now());
    for _ in 0..AT_ONCE {
        run.start(Instant::now())?;
    }
    while begun.elapsed() < span {
        run.poll.poll(&mut events, Some(Duration::from_millis(100))).map_err(|fault| fault.to_string())?;
        for event in &events {
            if run.on_event(event.token()) {
                run.start(Instant::now())?;
            }
        }
    }
    run.outcome(before, begun)
}

/// `rate` new tunnels a second for `span`. Each is timed from the moment at which it was due, not from the moment of its start.
pub fn open(server: &Server, base: u16, rate: u32, span: Duration) -> Result<Outcome, String> {
    let mut run = Run::new(server, base)?;
    let mut events = Events::with_capacity(1024);
    let stop = Arc::new(AtomicBool::new(false));
    let (before, begun) = (Usage::of(server.pid), Instant::now());
    let pacer = {
        let waker = Waker::new(run.poll.registry(), WAKE).map_err(|fault| fault.to_string())?;
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(100));
                let _ = waker.wake();
            }
        })
    };
    let mut due = begun;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while begun.elapsed() < span {
        run.poll.poll(&mut events, None).map_err(|fault| fault.to_string())?;
        for event in &events {
            if event.token() != WAKE {
                run.on_event(event.token());
            }
        }
        while due <= Instant::now() && run.slots.len() - run.free.len() < MAX_AT_ONCE {
            run.start(due)?;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = ((random >> 11) as f64 / (1u64 << 53) as f64).max(1e-9);
            due += Duration::from_secs_f64(-share.ln() / f64::from(rate));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let _ = pacer.join();
    run.outcome(before, begun)
}

impl Run {
    fn new(server: &Server, base: u16) -> Result<Self, String> {
        let scripts = (0..usize::from(target::ADDRESSES)).map(|number| {
            let mut script = handshake(server.kind, target::addr(base, 0, number));
            script.push(Step { send: PAYLOAD.to_vec(), until: Until::Bytes { len: PAYLOAD.len(), ok: false } });
            script
        });
        Ok(Self {
            poll: Poll::new().map_err(|fault| fault.to_string())?,
            server: server.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            scripts: scripts.collect(),
            opened: Vec::new(),
            done: 0,
            failed: 0,
        })
    }

    fn start(&mut self, begun: Instant) -> Result<(), String> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        self.slots[at].0 += 1;
        let token = Token(at << 32 | (self.slots[at].0 & 0xffff_ffff));
        let mut stream = TcpStream::connect(self.server.addr).map_err(|fault| format!("connect: {fault}"))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, interest).map_err(|fault| fault.to_string())?;
        self.slots[at].1 = Some(Tunnel { stream, begun, step: 0, sent: false, got: Vec::with_capacity(128) });
        self.on_event(token);
        Ok(())
    }

    /// True when the tunnel of this event is over and its slot is free.
    fn on_event(&mut self, Token(token): Token) -> bool {
        let at = token >> 32;
        let (generation, slot) = &mut self.slots[at];
        let (Some(tunnel), true) = (slot.as_mut(), *generation & 0xffff_ffff == token & 0xffff_ffff) else {
            return false;
        };
        let script = &self.scripts[at % self.scripts.len()];
        match tunnel.advance(script, &mut self.opened) {
            Progress::Wait => return false,
            Progress::Done => self.done += 1,
            Progress::Failed => self.failed += 1,
        }
        *slot = None;
        self.free.push(at);
        true
    }

    fn outcome(mut self, before: Usage, begun: Instant) -> Result<Outcome, String> {
        let span = begun.elapsed().as_secs_f64();
        if self.done == 0 {
            return Err(format!("no tunnel could be opened, {} failed", self.failed));
        }
        let cpu = (Usage::of(self.server.pid).cpu - before.cpu) * 1e6 / self.done as f64;
        let outcome = Outcome {
            per_second: self.done as f64 / span,
            p50: percentile(&mut self.opened, 0.5),
            p99: percentile(&mut self.opened, 0.99),
            cpu,
            done: self.done,
            failed: self.failed,
        };
        for (_, tunnel) in &mut self.slots {
            if let Some(tunnel) = tunnel {
                let _ = tunnel.stream.shutdown(Shutdown::Both);
            }
        }
        Ok(outcome)
    }
}

impl Tunnel {
    fn advance(&mut self, script: &[Step], opened: &mut Vec<f64>) -> Progress {
        loop {
            let Some(step) = script.get(self.step) else { return Progress::Done };
            if !self.sent {
                match self.stream.write(&step.send) {
                    Ok(len) if len == step.send.len() => {}
                    Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                        return Progress::Wait;
                    }
                    _ => return Progress::Failed,
                }
                self.sent = true;
                return Progress::Wait;
            }
            let mut buffer = [0; 512];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Progress::Failed,
                Ok(len) => self.got.extend_from_slice(&buffer[..len]),
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Progress::Wait,
                Err(_) => return Progress::Failed,
            }
            match step.until.met(&self.got) {
                None => {}
                Some(false) => return Progress::Failed,
                Some(true) => {
                    self.got.clear();
                    self.step += 1;
                    self.sent = false;
                    if self.step + 1 == script.len() || (script.len() == 1) {
                        opened.push(self.begun.elapsed().as_secs_f64() * 1e6);
                    }
                }
            }
        }
    }
}
