//! Makes one conditional HTTP GET request over a stream that the caller's [`Connect`] opens, with limits on time and
//! size.
//!
//! hyper is used for the HTTP protocol only: without its connection pool, resolver or redirects. This file opens no
//! socket. A response body is never kept: each piece is decompressed and passed on when it arrives, up to a limit on
//! the decompressed size.
//!
//! Each stage of a request has its own deadline, because a handshake must be much faster than a download of 20 MB.
//!
//! Next: `fetch/location.rs` parses URLs, `fetch/body.rs` decompresses bodies. `source/poll.rs` decides when a request
//! is made.

mod body;
mod location;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use http::{Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use self::body::Decoder;
use self::location::{Location, follow, request};
use super::Garbage;
use crate::dial::{self, DialError, TargetFault};
use crate::limit::target::Rules;
use crate::net::{BadTarget, Host, Target};

/// How many redirects one request follows. A mirror needs one redirect, a change of host name another one, and the
/// third is a reserve.
const REDIRECTS: usize = 3;

/// The longest wait that a server can demand with `max-age` or `Retry-After`, because a server's mistake must not stop
/// a source for a year.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Opens streams to the servers of the sources.
pub trait Connect: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a stream to `target`. Fails if the stream is not open at `deadline`.
    fn connect(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;
}

/// Opens streams directly, from this machine's own address.
#[derive(Clone, Debug)]
pub struct Direct {
    rules: Rules,
}

impl Direct {
    /// `rules` decide which addresses are allowed. They apply to the URL of a source and to every redirect.
    pub fn new(rules: Rules) -> Self {
        Self { rules }
    }
}

impl Connect for Direct {
    type Stream = dial::Stream;

    async fn connect(&self, target: &Target, deadline: Instant) -> Result<dial::Stream, DialError> {
        dial::direct::dial(target, &self.rules, None, deadline).await
    }
}

/// The `ETag` and `Last-Modified` headers of the last good answer. The next request repeats them, so an unchanged
/// document is not sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// How long each stage of a request may take, and how long the body may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long opening the stream may take. The TLS handshake that follows has a limit of the same length.
    pub open: Duration,
    /// How long the server may send nothing: before the head of the answer, and between two pieces of the body.
    pub silence: Duration,
    /// How long all stages together may take.
    pub total: Duration,
    /// The largest size of the decompressed body, in bytes.
    pub body: u64,
}

impl Default for Limits {
    /// Returns limits for the largest document, which is Onionoo's. On a slow line, its 3 MB (compressed) arrive within
    /// two minutes. The document has 20 MB when decompressed, and may grow to three times that size.
    fn default() -> Self {
        Self {
            open: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            total: Duration::from_secs(120),
            body: 64 << 20,
        }
    }
}

/// The answer to a request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server sent a body, and all of the body was passed to the caller.
    Fresh {
        /// The validators to send with the next request.
        validators: Validators,
        /// The `max-age` that the server sent. `None` if the server sent none.
        max_age: Option<Duration>,
    },
    /// The server answered that the document has not changed since the answer from which the validators came.
    Unchanged {
        /// The `max-age` that the server sent. `None` if the server sent none.
        max_age: Option<Duration>,
    },
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("the URL cannot be requested: {0}")]
    Url(#[from] BadTarget),
    #[error("the URL is neither http:// nor https://")]
    Scheme,
    /// The stream to the server could not be opened.
    #[error("cannot connect: {0}")]
    Connect(DialError),
    /// The rules for targets forbid the server's address or port.
    #[error(
        "cannot connect: its address or port is not allowed; if the server is in a private network, set \
         `gateway.allow_private_targets = true`, and otherwise see `gateway.allowed_ports` and `gateway.denied_ports`"
    )]
    Forbidden,
    /// The server's certificate is invalid, or the TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(Box<str>),
    /// The answer is not HTTP, or the connection ended before the answer was complete.
    #[error("HTTP: {0}")]
    Http(Box<str>),
    /// The server answered with a status other than 200 and 304.
    #[error("the server answered with status {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// The server sent too many redirects, or a redirect that is not followed.
    #[error("the server redirects {0}")]
    Redirect(&'static str),
    #[error("timeout while {0}")]
    Late(&'static str),
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    /// The parser rejected the body.
    #[error("the answer cannot be used: {0}")]
    Garbage(#[from] Garbage),
    #[error("the answer cannot be decompressed: {0}")]
    Packing(Box<str>),
}

impl From<DialError> for FetchError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Target(TargetFault::Forbidden) => Self::Forbidden,
            other => Self::Connect(other),
        }
    }
}

impl FetchError {
    /// The code of this error in metric labels and in the API path `/sources`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Scheme => "url",
            Self::Connect(_) | Self::Forbidden => "connect",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Status { .. } => "status",
            Self::Redirect(_) => "redirect",
            Self::Late(_) => "timeout",
            Self::TooLong(_) => "too_long",
            Self::Garbage(_) => "garbage",
            Self::Packing(_) => "packing",
        }
    }
}

/// A function that is called with each piece of a body when the piece arrives.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), Garbage> + Send);

/// Makes HTTP requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client<C> {
    connect: C,
    tls: Arc<ClientConfig>,
}

/// Runs one stage of a request until its deadline. `doing` names the stage in the error.
async fn stage<T>(doing: &'static str, deadline: Instant, work: impl Future<Output = T>) -> Result<T, FetchError> {
    timeout_at(deadline, work).await.map_err(|_| FetchError::Late(doing))
}

impl<C: Connect> Client<C> {
    /// Returns a client that opens streams with `connect` and runs TLS with the settings `tls`.
    pub fn new(connect: C, tls: Arc<ClientConfig>) -> Self {
        Self { connect, tls }
    }

    /// Requests `url`, and passes each piece of the body to `sink`. The body is complete only if this function returns
    /// `Ok`.
    pub async fn get(
        &self,
        url: &Uri,
        known: &Validators,
        limits: Limits,
        sink: Sink<'_>,
    ) -> Result<Answer, FetchError> {
        let end = Instant::now() + limits.total;
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let place = Location::of(&url)?;
            let opened = end.min(Instant::now() + limits.open);
            let stream = stage("connecting", opened, self.connect.connect(&place.target, opened)).await??;
            let received = if place.tls {
                let until = end.min(Instant::now() + limits.open);
                let stream = stage("the TLS handshake", until, self.secure(&place, stream)).await??;
                exchange(stream, &place, known, limits, end, sink).await?
            } else {
                exchange(stream, &place, known, limits, end, sink).await?
            };
            match received {
                Received::Answer(answer) => return Ok(answer),
                Received::Redirect(location) => url = follow(&url, &location)?,
            }
        }
        Err(FetchError::Redirect("too often"))
    }

    async fn secure(
        &self,
        place: &Location,
        stream: C::Stream,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<C>, FetchError> {
        let name = match &place.target.host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => {
                ServerName::try_from(name.to_string()).map_err(|error| FetchError::Tls(error.to_string().into()))?
            }
        };
        let connector = TlsConnector::from(self.tls.clone());
        connector.connect(name, stream).await.map_err(|error| FetchError::Tls(error.to_string().into()))
    }
}

enum Received {
    Answer(Answer),
    /// The server redirects the request to this URL or path.
    Redirect(String),
}

/// Makes one request over one stream, without following redirects.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    place: &Location,
    known: &Validators,
    limits: Limits,
    end: Instant,
    sink: Sink<'_>,
) -> Result<Received, FetchError> {
    let broken = |error: hyper::Error| FetchError::Http(error.to_string().into());
    let until = || end.min(Instant::now() + limits.silence);
    let builder = http1::Builder::new();
    let shake = builder.handshake(TokioIo::new(stream));
    let (mut sender, connection) = stage("connecting", until(), shake).await?.map_err(broken)?;
    let request = request(place, known)?;
    let exchange = async {
        let response = stage("waiting for the answer", until(), sender.send_request(request)).await?.map_err(broken)?;
        read(response, limits, until, sink).await
    };
    // The HTTP connection runs inside this future until the exchange is done, so no task is needed for it.
    tokio::pin!(exchange);
    tokio::select! {
        received = &mut exchange => received,
        closed = connection => match closed {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

async fn read(
    response: Response<Incoming>,
    limits: Limits,
    until: impl Fn() -> Instant,
    sink: Sink<'_>,
) -> Result<Received, FetchError> {
    let (head, mut body) = response.into_parts();
    let max_age = max_age(&head.headers);
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Received::Answer(Answer::Unchanged { max_age })),
        status if status.is_redirection() => {
            let location = text(&head.headers, header::LOCATION).ok_or(FetchError::Redirect("without a location"))?;
            return Ok(Received::Redirect(location));
        }
        status => {
            return Err(FetchError::Status { status, retry_after: retry_after(&head.headers, SystemTime::now()) });
        }
    }
    let mut decoder = Decoder::new(&head.headers, limits.body, sink)?;
    while let Some(frame) = stage("reading the answer", until(), body.frame()).await? {
        let frame = frame.map_err(|error| FetchError::Http(error.to_string().into()))?;
        if let Some(data) = frame.data_ref() {
            decoder.feed(data)?;
        }
    }
    decoder.finish()?;
    let validators = Validators {
        etag: text(&head.headers, header::ETAG),
        last_modified: text(&head.headers, header::LAST_MODIFIED),
    };
    Ok(Received::Answer(Answer::Fresh { validators, max_age }))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut ages =
        directives.flat_map(|value| value.split(',')).filter_map(|part| part.trim().strip_prefix("max-age="));
    let seconds = ages.next()?.trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Returns the wait that the `Retry-After` header demands. The header contains a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?;
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests;
