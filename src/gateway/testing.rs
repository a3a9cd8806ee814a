//! Helpers of the gateway's tests: a listener's settings, a gate with prepared results, and clients at the other end of
//! a socket.

use std::collections::VecDeque;
use std::future::pending;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use super::connection::serve;
use super::failure::{AuthFault, Failure, NoExit};
use super::gate::{
    BuiltinRequest, Caller, ExitFacts, Gate, Lookup, Observation, OpenRequest, Opened, Refusal, Resolved,
};
use super::listener::ListenerConfig;
use super::meters::{ListenerMeters, RouteMeters};
use super::relay::Idle;
use crate::dial::Stream;
use crate::exit::ExitId;
use crate::exit::identity::{Identity, Precision};
use crate::lifecycle::Cut;
use crate::limit::{Bucket, Spend};
use crate::net::Target;
use crate::telemetry::ephemeral_series::Recorder;

/// Returns the settings of a listener without keys, TLS or trusted peers.
pub fn listener() -> ListenerConfig {
    ListenerConfig {
        label: Arc::from("shared"),
        addr: "127.0.0.1:1080".parse().unwrap(),
        route: None,
        demands_key: false,
        demands_name: false,
        tls: None,
        trusted: Vec::new(),
        opening: Duration::from_secs(10),
        keep_alive: Duration::from_secs(60),
        log_targets: false,
        meters: ListenerMeters::new("shared"),
        connections: Arc::default(),
    }
}

/// The prepared result of one call of [`Gate::open`].
pub enum Open {
    Stream(UnixStream),
    /// The call sends the early head on this stream and then returns the stream.
    Early(UnixStream),
    Refused(Refusal),
    /// The call never returns.
    Hangs,
}

/// A gate that returns prepared results, in order, and logs its calls.
pub struct Script {
    opens: Mutex<VecDeque<Open>>,
    /// The one key that this gate accepts. With `None`, the gate accepts every client.
    key: Option<&'static [u8]>,
    reuse: bool,
    exit_stays: bool,
    rate: Option<Arc<Bucket>>,
    spend: Option<Spend>,
    attempts: usize,
    keeps_exit: bool,
    answer: Duration,
    log: Arc<Mutex<Vec<String>>>,
    meters: Arc<RouteMeters>,
    /// Each admission is a clone of this value, so the clones can be counted.
    admissions: Arc<()>,
    pub stopping: CancellationToken,
}

/// A lease that writes a log line when it is dropped.
pub struct Lease(Arc<Mutex<Vec<String>>>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("given back".into());
    }
}

impl Script {
    pub fn new(opens: impl IntoIterator<Item = Open>) -> Self {
        Self {
            opens: Mutex::new(opens.into_iter().collect()),
            key: None,
            reuse: true,
            exit_stays: true,
            rate: None,
            spend: None,
            attempts: 3,
            keeps_exit: false,
            answer: SILENCE,
            log: Arc::default(),
            meters: Arc::new(RouteMeters::new("us")),
            admissions: Arc::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// Makes a gate, and returns the other ends of its streams, which the test uses as targets.
    pub fn targets<const N: usize>() -> (Self, [UnixStream; N]) {
        let pairs: [_; N] = std::array::from_fn(|_| UnixStream::pair().unwrap());
        let (near, far): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        (Self::new(near.into_iter().map(Open::Stream)), far.try_into().unwrap())
    }

    /// Adds a prepared result that is returned before all other results.
    pub fn first(self, open: Open) -> Self {
        self.opens.lock().unwrap().push_front(open);
        self
    }

    pub fn with_key(self, key: &'static [u8]) -> Self {
        Self { key: Some(key), ..self }
    }

    pub fn without_reuse(self) -> Self {
        Self { reuse: false, ..self }
    }

    /// Each request needs another exit than the one before.
    pub fn with_moving_exit(self) -> Self {
        Self { exit_stays: false, ..self }
    }

    /// Sets a byte rate for all streams of this gate.
    pub fn with_rate(self, rate: Bucket) -> Self {
        Self { rate: Some(Arc::new(rate)), ..self }
    }

    /// Makes all streams of this gate count for a key with budgets.
    pub fn with_spend(self, spend: Spend) -> Self {
        Self { spend: Some(spend), ..self }
    }

    /// Sets the number of exits through which one request may be sent.
    pub fn with_attempts(self, attempts: usize) -> Self {
        Self { attempts, ..self }
    }

    /// Makes every stream belong to a session. A request of a session is sent again only through the same exit.
    pub fn with_a_session(self) -> Self {
        Self { keeps_exit: true, ..self }
    }

    /// Sets the time limit for the first byte of an answer.
    pub fn with_answers_within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// Returns the log and empties it.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Returns how many admissions are held now.
    pub fn admitted(&self) -> usize {
        Arc::strong_count(&self.admissions) - 1
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }
}

/// The identity of every exit of a [`Script`].
pub fn identity() -> Identity {
    Identity {
        time_zone: "America/New_York".into(),
        locale: "en-US",
        languages: &["en", "es"],
        latitude: 40.7142,
        longitude: -74.0064,
        city: None,
        region: None,
        precision: Precision::Country,
    }
}

/// The header fields of [`identity`].
pub const IDENTITY: &str = "X-Exitgate-Exit-Timezone: America/New_York\r\nX-Exitgate-Exit-Locale: en-US\r\n\
    X-Exitgate-Exit-Languages: en, es\r\nX-Exitgate-Exit-Coordinates: 40.7142,-74.0064\r\n\
    X-Exitgate-Exit-Precision: country\r\n";

/// How long a stream of a [`Script`] may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// The exit address of every stream of a [`Script`].
pub const EXIT_IP: [u8; 4] = [192, 0, 2, 7];

impl Gate for Script {
    type Admitted = Arc<()>;
    type Lease = Lease;

    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Arc<()>, Refusal> {
        match (self.key, password) {
            (Some(key), given) if given != Some(key) => {
                self.note(format!("{} kept out", caller.client.ip()));
                Err(Failure::Auth(AuthFault::Wrong).into())
            }
            _ => Ok(self.admissions.clone()),
        }
    }

    fn key_name(_: &Arc<()>) -> Option<&Arc<str>> {
        None
    }

    async fn open(&self, caller: &Caller<'_>, _: &Arc<()>, request: OpenRequest<'_>) -> Result<Opened<Lease>, Refusal> {
        let OpenRequest { target, avoid, early } = request;
        let line = format!("{} {}@{target}", caller.protocol.as_str(), caller.username);
        self.note(if avoid.is_empty() { line } else { format!("{line} but not {avoid:?}") });
        let lease = Lease(self.log.clone());
        let next = self.opens.lock().unwrap().pop_front();
        let (mut stream, sent_early) = match next {
            Some(Open::Stream(stream)) => (stream, false),
            Some(Open::Early(stream)) => (stream, !early.is_empty()),
            Some(Open::Refused(refusal)) => return Err(refusal),
            Some(Open::Hangs) => pending().await,
            None => return Err(Failure::NoExit(NoExit::NoneMatch).into()),
        };
        if sent_early {
            stream.write_all(early).await.unwrap();
        }
        let exit = ExitFacts {
            exit: ExitId::Direct,
            ip: Some(IpAddr::from(EXIT_IP)),
            country: Some(*b"US"),
            checked: None,
            moved: None,
            route: "us".into(),
            rule: None,
            meters: self.meters.clone(),
        };
        let idle = Idle { open: SILENCE, answer: self.answer, half: SILENCE, stalled: SILENCE };
        let reuse = self.reuse;
        Ok(Opened {
            stream: Stream::Unix(stream),
            exit,
            idle,
            rate: self.rate.clone(),
            spend: self.spend.clone(),
            first_down: Vec::new(),
            sent_early,
            forwarder: None,
            reuse,
            keeps_exit: self.keeps_exit,
            failed: Vec::new(),
            attempts_left: self.attempts.saturating_sub(avoid.len() + 1),
            lease,
        })
    }

    fn reuse(&self, _: &Caller<'_>, _: &Arc<()>, _: &Target, _: &Opened<Lease>) -> Result<bool, Refusal> {
        Ok(self.exit_stays)
    }

    async fn resolve(&self, caller: &Caller<'_>, _: &Arc<()>, lookup: Lookup<'_>) -> Result<Resolved, Refusal> {
        self.note(format!("{} {lookup:?}", caller.username));
        Ok(match lookup {
            Lookup::Address(_) => Resolved::Address(IpAddr::from([203, 0, 113, 9])),
            Lookup::Pointer(_) => Resolved::Name("a.test".into()),
        })
    }

    async fn builtin(&self, caller: &Caller<'_>, _: &Arc<()>, builtin: BuiltinRequest<'_>) -> Result<String, Refusal> {
        self.note(format!("{} {builtin:?}", caller.username));
        Ok("{\"exit\":1}".into())
    }

    async fn report(
        &self,
        _: &Caller<'_>,
        _: &Arc<()>,
        target: &Target,
        report: &str,
        last: Option<&ExitId>,
    ) -> Result<(), Refusal> {
        self.note(format!("{target} report {report:?} {}", last.map(ToString::to_string).unwrap_or_default()));
        Ok(())
    }

    fn identity(&self, _: &Lease) -> Option<Identity> {
        Some(identity())
    }

    fn observe(&self, _: &Lease, target: &Target, observation: Observation) {
        self.note(format!("{target} {observation:?}"));
    }

    async fn stopping(&self, _: &ListenerConfig) {
        self.stopping.cancelled().await;
    }
}

/// Returns the two ends of a connection, the client's end first, and an address for the client.
///
/// The two ends are a Unix socket pair in the type of a TCP socket: bytes can be read at one end as soon as the write
/// at the other end has returned. A paused clock jumps forward when no task can run. With this pair, such a jump never
/// happens while the kernel still moves bytes.
pub fn sockets() -> (TcpStream, TcpStream, SocketAddr) {
    let as_tcp = |end: std::os::unix::net::UnixStream| {
        end.set_nonblocking(true).unwrap();
        TcpStream::from_std(OwnedFd::from(end).into()).unwrap()
    };
    let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    (as_tcp(theirs), as_tcp(ours), "127.0.0.1:50000".parse().unwrap())
}

/// Returns the same as [`sockets`], but over real TCP. Do not use it with a paused clock (see [`sockets`]); use
/// [`skip`].
pub async fn tcp_sockets() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test is its own client")]
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, peer) = listener.accept().await.unwrap();
    (client, ours, peer)
}

/// Advances a running clock. Call this only while all tasks wait.
pub async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Serves one connection while `client` runs at the other end. Both must finish.
pub async fn talk(listener: ListenerConfig, gate: &Arc<Script>, client: impl AsyncFnOnce(TcpStream)) {
    talk_over(sockets(), listener, gate, client).await;
}

/// Does the same as [`talk`], but uses the sockets that the caller passes.
pub async fn talk_over(
    (theirs, ours, peer): (TcpStream, TcpStream, SocketAddr),
    listener: ListenerConfig,
    gate: &Arc<Script>,
    client: impl AsyncFnOnce(TcpStream),
) {
    let served = serve(ours, peer, Cut::new(), Arc::new(listener), gate.clone());
    let both = async { tokio::join!(served, client(theirs)) };
    // With a paused clock the timeout passes immediately, so a connection that hangs fails the test.
    tokio::time::timeout(Duration::from_secs(600), both).await.expect("a connection that never ends");
}

/// Reads exactly these bytes. If other bytes come, the test fails and shows both as text.
pub async fn expect(stream: &mut (impl AsyncRead + Unpin), want: impl AsRef<[u8]>) {
    let want = want.as_ref();
    let mut got = Vec::new();
    while got.len() < want.len() {
        let mut piece = vec![0; want.len() - got.len()];
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => got.extend_from_slice(&piece[..n]),
            end => panic!("{end:?} after {}, wanted {}", got.escape_ascii(), want.escape_ascii()),
        }
    }
    assert_eq!(got.escape_ascii().to_string(), want.escape_ascii().to_string());
}

/// Reads everything until the end of the stream.
pub async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

/// Reads an HTTP head, including the empty line at its end.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(stream.read_u8().await.unwrap_or_else(|_| panic!("no head in {}", got.escape_ascii())));
    }
    String::from_utf8(got).unwrap()
}

/// The header fields about the exit that every answer through a [`Script`] has.
pub const FACTS: &str = "X-Exitgate-Exit-Ip: 192.0.2.7\r\nX-Exitgate-Exit-Country: US\r\nX-Exitgate-Exit: direct\r\nX-Exitgate-Route: us\r\n";

/// The metrics and the log lines that [`observed`] collected.
pub struct Observed {
    /// The metrics at the end of the work.
    metrics: String,
    lines: Lines,
    _subscriber: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `work` on this thread. The work has its own metrics and its own log at the level `debug`.
pub fn observed<T>(work: impl AsyncFnOnce() -> T) -> (T, Observed) {
    let lasting = PrometheusBuilder::new().build_recorder();
    let handle = lasting.handle();
    let (recorder, ephemeral) = Recorder::new(lasting);
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let subscriber = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let result = metrics::with_local_recorder(&recorder, || runtime.block_on(work()));
    (result, Observed { metrics: handle.render() + &ephemeral.render(), lines, _subscriber: subscriber })
}

impl Observed {
    /// Returns all log lines so far.
    pub fn log(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the values of these fields, one list for each access line.
    pub fn access(&self, fields: &[&str]) -> Vec<Vec<String>> {
        let text = self.log();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["target"] == "access")
            .map(|line| fields.iter().map(|field| line[*field].to_string().replace('"', "")).collect())
            .collect()
    }

    /// Returns the metric samples that begin with `prefix`.
    pub fn samples(&self, prefix: &str) -> Vec<String> {
        let mut samples: Vec<_> =
            self.metrics.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect();
        samples.sort();
        samples
    }
}
