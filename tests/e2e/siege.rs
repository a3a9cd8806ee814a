//! The shipped binary under clients that mean no good, with honest ones beside them: slow, silent, and mad.
//!
//! No Tor here: what is besieged is the front, and it stands before every exit. The honest go straight to an echo through
//! a route's own port; the others never get as far as an exit, because the shared port has none for them.
//! `EXITGATE_BIN` names another binary than the one that cargo built for this test: CI besieges the release build.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// From accept to a whole request, as it is configured here.
const OPENING: Duration = Duration::from_secs(3);
/// Within this an honest client is served, whatever else goes on: two cores run the siege as well.
const SERVED: Duration = Duration::from_secs(5);
/// What a siege may add to the memory of the process, KiB. A thousand connections that are being opened took 13 MiB when
/// this was written; the rest is for a stock of freed memory that the allocator keeps.
const GROWTH: u64 = 32 << 10;

/// Connections that a siege holds at once.
const HORDE: usize = 1000;
/// Openings that are not what they should be.
const FUZZED: usize = 100_000;

struct Besieged {
    child: Child,
    ip: Ipv4Addr,
    echo: SocketAddr,
    folder: tempfile::TempDir,
}

impl Besieged {
    /// `last` tells tests apart that run beside each other.
    async fn start(last: u8) -> Self {
        let ip = Ipv4Addr::new(127, 77, (std::process::id() % 250) as u8, last);
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let echo = listener.local_addr().unwrap();
        tokio::spawn(serve_echo(listener));
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("exitgate.toml");
        let text = format!(
            "data_dir = {data:?}\nlog.level = \"warn\"\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\n\
             gateway.handshake_timeout = \"{opening}s\"\ngateway.allow_direct = true\n\
             gateway.allow_private_targets = true\napi.listen = \"{ip}:8080\"\ntor.enabled = false\n\n[[routes]]\n\
             name = \"honest\"\nselector = \"any-source-direct\"\nport = 20001\n",
            data = folder.path().join("data"),
            opening = OPENING.as_secs(),
        );
        fs::write(&config, text).unwrap();
        let binary = std::env::var_os("EXITGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_exitgate").into());
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let besieged = Self { child, ip, echo, folder };
        let begun = Instant::now();
        while let Err(why) = besieged.honest().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not start: {why}\n{}", besieged.log());
            sleep(Duration::from_millis(50)).await;
        }
        besieged
    }

    fn shared(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    fn own(&self) -> SocketAddr {
        (self.ip, 20001).into()
    }

    /// One honest conversation; how long it took.
    async fn honest(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let SocketAddr::V4(echo) = self.echo else { unreachable!("bound to an address of IPv4") };
        let work = async {
            let mut stream = TcpStream::connect(self.own()).await?;
            stream.write_all(&[5, 1, 0]).await?;
            stream.read_exact(&mut [0; 2]).await?;
            let mut request = vec![5, 1, 0, 1];
            request.extend(echo.ip().octets());
            request.extend(echo.port().to_be_bytes());
            stream.write_all(&request).await?;
            let mut reply = [0; 10];
            stream.read_exact(&mut reply).await?;
            if reply[1] != 0 {
                return Err(std::io::Error::other(format!("refused: {reply:?}")));
            }
            stream.write_all(b"honest").await?;
            let mut heard = [0; 6];
            stream.read_exact(&mut heard).await?;
            assert_eq!(&heard, b"honest");
            Ok(())
        };
        match timeout(SERVED, work).await {
            Ok(Ok(())) => Ok(begun.elapsed()),
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("not served in time".into()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Memory that is its own, KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Runs a siege with honest clients beside it, one after the other, and looks at what it left behind.
    async fn withstands<F: Future<Output = ()>>(&self, what: &str, siege: F) {
        let (memory, descriptors) = (self.memory(), self.descriptors());
        let over = AtomicBool::new(false);
        let (mut served, mut slowest, mut peak) = (0, Duration::ZERO, memory);
        let honest = async {
            while !over.load(Ordering::Relaxed) {
                let took = self.honest().await;
                let took = took.unwrap_or_else(|why| panic!("{what}: an honest client is {why}\n{}", self.log()));
                (served, slowest, peak) = (served + 1, slowest.max(took), peak.max(self.memory()));
                sleep(Duration::from_millis(20)).await;
            }
        };
        let siege = async {
            siege.await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(siege, honest);
        let grown = peak.saturating_sub(memory);
        eprintln!("{what}: {served} honest clients served, the slowest in {slowest:?}; {grown} KiB more at the peak");
        // Each was served in time, or this would not be reached; how many there were is the machine's business.
        assert!(served > 2, "{what}: only {served} honest clients had a turn");
        assert!(grown <= GROWTH, "{what}: memory grew by {grown} KiB");
        let begun = Instant::now();
        while self.descriptors() > descriptors + 8 {
            assert!(begun.elapsed() < 4 * OPENING, "{what}: {} descriptors of {descriptors}", self.descriptors());
            sleep(Duration::from_millis(100)).await;
        }
        let log = self.log();
        assert!(!log.contains("panicked"), "{what}:\n{log}");
    }
}

impl Drop for Besieged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve_echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

/// A connection that leaves nothing behind in the kernel when it is closed.
async fn attacker(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_zero_linger()?;
    socket.connect(to).await
}

/// True once the other side has closed, one way or another.
async fn is_closed_within(stream: &mut TcpStream, patience: Duration) -> bool {
    let drained = async {
        let mut scrap = [0; 4096];
        while !matches!(stream.read(&mut scrap).await, Ok(0) | Err(_)) {}
    };
    timeout(patience, drained).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_a_second_buys_no_more_time_than_none() {
    let gate = Besieged::start(1).await;
    let openings: [&[u8]; 4] = [
        &[5, 200],
        b"GET http://a.example/ HTTP/1.1\r\nHost: a",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PROXY TCP4 1.2.3.4",
    ];
    let slow = |at: usize| {
        let to = if at.is_multiple_of(2) { gate.shared() } else { gate.own() };
        let opening = openings[at % openings.len()];
        async move {
            let mut stream = attacker(to).await.unwrap();
            let begun = Instant::now();
            for byte in opening {
                let second = sleep(Duration::from_secs(1));
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::select! {
                    () = second => {}
                    _ = stream.readable() => break, // an answer, or the end
                }
            }
            assert!(is_closed_within(&mut stream, 2 * OPENING).await, "{opening:?} still has a connection");
            begun.elapsed()
        }
    };
    gate.withstands("a byte a second", async {
        let lives = futures_of(HORDE, slow).await;
        let longest = lives.into_iter().max().unwrap();
        // The goodbye to whoever was refused takes a second more, and the machine is busy.
        assert!(longest <= OPENING + Duration::from_secs(5), "somebody held out for {longest:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_nothing_are_let_go_and_those_who_leave_at_once_cost_nothing() {
    let gate = Besieged::start(2).await;
    gate.withstands("silence", async {
        let silent = |_| {
            let to = gate.shared();
            async move {
                let mut stream = attacker(to).await.unwrap();
                assert!(is_closed_within(&mut stream, 3 * OPENING).await, "silence is served for ever");
            }
        };
        let hasty = |at: usize| {
            let to = gate.own();
            async move {
                for turn in 0..10 {
                    let mut stream = attacker(to).await.unwrap();
                    // Nothing, half a greeting, or a whole one: then a reset.
                    let _ = stream.write_all(&[5, 1, 0][..(at + turn) % 4]).await;
                }
            }
        };
        tokio::join!(futures_of(HORDE, silent), futures_of(HORDE, hasty));
    })
    .await;
}

/// Runs so many at once, as tasks.
async fn futures_of<T, F>(count: usize, make: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|at| tokio::spawn(make(at))).collect();
    let mut all = Vec::with_capacity(count);
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

/// What honest clients of every kind begin with; madness begins here.
const SEEDS: [&[u8]; 9] = [
    &[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9],
    b"\x05\x02\x00\x02\x01\x02us\x03key\x05\x01\x00\x03\x0bexample.com\x01\xbb",
    b"\x05\x01\x00\x05\xf0\x00\x03\x0bexample.com\x00\x00",
    b"\x04\x01\x00\x50\x7f\x00\x00\x01us\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01us-session-1\x00example.com\x00",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nProxy-Authorization: Basic dXM6a2V5\r\n\r\n",
    b"POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x04\x13\x01\x13\x02\x01\x00",
];

/// A seed with a few things wrong with it.
fn mad(dice: &mut SmallRng) -> Vec<u8> {
    let mut bytes = SEEDS[dice.random_range(0..SEEDS.len())].to_vec();
    for _ in 0..dice.random_range(1..6) {
        let at = dice.random_range(0..=bytes.len());
        match dice.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, (0..dice.random_range(1..40)).map(|_| dice.random())).for_each(drop),
            2 => bytes.extend_from_slice(SEEDS[dice.random_range(0..SEEDS.len())]),
            3 => bytes.splice(at..at, vec![dice.random(); dice.random_range(1..3000)]).for_each(drop),
            4 => drop(bytes.drain(..at)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.random_range(0..8);
                }
            }
        }
    }
    bytes
}

/// One mad opening: everything is said, then either an end or silence; there must be an end in return.
async fn rave(to: SocketAddr, seed: u64) -> Result<(), String> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let opening = mad(&mut dice);
    let mut stream = attacker(to).await.map_err(|fault| format!("seed {seed}: connect: {fault}"))?;
    let said = async {
        stream.write_all(&opening).await?;
        stream.shutdown().await
    };
    match said.await {
        Err(fault)
            if !matches!(
                fault.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected
            ) =>
        {
            return Err(format!("seed {seed}: {fault}"));
        }
        _ => {}
    }
    if is_closed_within(&mut stream, 10 * OPENING).await { Ok(()) } else { Err(format!("seed {seed}: no end")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_mad_openings_are_each_ended() {
    let gate = Besieged::start(3).await;
    // The shared port has no exit for anybody: nothing mad leaves this machine.
    let mut stray = TcpStream::connect(gate.shared()).await.unwrap();
    stray.write_all(SEEDS[0]).await.unwrap();
    let mut reply = [0; 4];
    stray.read_exact(&mut reply).await.unwrap();
    assert!(reply[..2] == [5, 0] && reply[2] == 5 && reply[3] != 0, "the shared port goes somewhere: {reply:?}");

    let next = Arc::new(AtomicUsize::new(0));
    gate.withstands("madness", async {
        let worker = |_| {
            let (to, next) = (gate.shared(), next.clone());
            async move {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= FUZZED {
                        return;
                    }
                    rave(to, seed as u64).await.unwrap();
                }
            }
        };
        futures_of(64, worker).await;
    })
    .await;
    assert!(next.load(Ordering::Relaxed) >= FUZZED);
}
