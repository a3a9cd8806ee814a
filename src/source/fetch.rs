//! One conditional GET over a stream that somebody else opens, bounded in every direction.
//!
//! hyper speaks HTTP here and nothing more: no pool, no resolver, no redirects of its own. Where the stream comes from
//! is the caller's [`Connect`], so that a source can be asked directly today and through a Tor exit tomorrow, and so
//! that this file opens no socket. A body is never held: it is unzipped and handed on as it arrives, up to a limit on
//! what it unzips to.
//!
//! Each stage has its own deadline, because "it takes long" means something else for a handshake than for 20 MB.
//!
//! Next: `fetch/place.rs` reads URLs, `fetch/body.rs` unpacks; `source/poll.rs` decides when to ask.

mod body;
mod place;

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

use self::body::Unpacked;
use self::place::{Place, follow, request};
use super::Garbage;
use crate::dial::{self, DialError, TargetFault};
use crate::limit::target::Rules;
use crate::net::{BadTarget, Host, Target};

/// Redirects that are followed. Mirrors need one, the second is for a change of host name.
const REDIRECTS: usize = 3;

/// Longest `max-age` and `Retry-After` that are honoured: a slip of theirs must not silence a source for a year.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Opens streams to the servers of sources.
pub trait Connect: Clone + Send + Sync + 'static {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// A stream that ends at `target`, before `deadline`.
    fn connect(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;
}

/// Opens streams from this machine's own address.
#[derive(Clone, Debug)]
pub struct Direct {
    rules: Rules,
}

impl Direct {
    /// `rules` hold for every address that a source's URL, or a redirect from there, leads to.
    pub fn new(rules: Rules) -> Self {
        Self { rules }
    }
}

impl Connect for Direct {
    type Stream = dial::Stream;

    async fn connect(&self, target: &Target, deadline: Instant) -> Result<dial::Stream, DialError> {
        dial::direct::dial(target, &self.rules, deadline).await
    }
}

/// What makes the next request conditional: the marks of the last answer that was good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
}

/// How long each stage may take, and how much may come.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To open the stream, and as long again for TLS.
    pub open: Duration,
    /// From the request to the head of the answer, and from each piece of the body to the next.
    pub silence: Duration,
    /// Everything together.
    pub total: Duration,
    /// The unpacked body's size in bytes.
    pub body: u64,
}

impl Default for Limits {
    /// A slow line still brings Onionoo's 3 MB (zipped) in two minutes; its document unzips to 20 MB and may triple.
    fn default() -> Self {
        Self {
            open: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            total: Duration::from_secs(120),
            body: 64 << 20,
        }
    }
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A body came, and was handed on to its end.
    Fresh {
        /// Its marks, for the next request.
        validators: Validators,
        /// How long it stays fresh, by the server's word.
        max_age: Option<Duration>,
    },
    /// Nothing has changed since the answer that the validators are of.
    Unchanged {
        /// How long that stays so, by the server's word.
        max_age: Option<Duration>,
    },
}

/// Why there is no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL is not one that can be asked.
    #[error("the URL cannot be asked: {0}")]
    Url(#[from] BadTarget),
    /// Neither http nor https.
    #[error("the URL is neither http:// nor https://")]
    Scheme,
    /// No stream to the server was opened.
    #[error("cannot connect: {0}")]
    Connect(DialError),
    /// The rules for targets forbid the server's address or port.
    #[error(
        "cannot connect: its address or port is not allowed; if the server is in a private network, set \
         `gateway.allow_private_targets = true`, and otherwise see `gateway.allowed_ports` and `gateway.denied_ports`"
    )]
    Forbidden,
    /// The server's certificate or its TLS.
    #[error("TLS: {0}")]
    Tls(Box<str>),
    /// Not HTTP, or it broke off.
    #[error("HTTP: {0}")]
    Http(Box<str>),
    /// Any status that is not an answer.
    #[error("the server says {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// When to ask again, if it said.
        retry_after: Option<Duration>,
    },
    /// Too many redirects, or one to where we do not follow.
    #[error("it redirects {0}")]
    Redirect(&'static str),
    /// A stage took too long.
    #[error("no answer in time while {0}")]
    Late(&'static str),
    /// The body is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    /// The body is not what it should be.
    #[error("the answer is of no use: {0}")]
    Garbage(#[from] Garbage),
    /// The body cannot be unpacked.
    #[error("the answer cannot be unpacked: {0}")]
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
    /// The word for it in metric labels and in `/sources`.
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

/// Takes a body as it arrives.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), Garbage> + Send);

/// Asks servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client<C> {
    connect: C,
    tls: Arc<ClientConfig>,
}

/// Runs a stage of a request against its deadline.
async fn stage<T>(doing: &'static str, deadline: Instant, work: impl Future<Output = T>) -> Result<T, FetchError> {
    timeout_at(deadline, work).await.map_err(|_| FetchError::Late(doing))
}

impl<C: Connect> Client<C> {
    /// A client that opens its streams with `connect` and trusts what `tls` trusts.
    pub fn new(connect: C, tls: Arc<ClientConfig>) -> Self {
        Self { connect, tls }
    }

    /// Asks for `url`; the body of a fresh answer goes to `sink` piece by piece. Only an `Ok` means that it is whole.
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
            let place = Place::of(&url)?;
            let opened = end.min(Instant::now() + limits.open);
            let stream = stage("connecting", opened, self.connect.connect(&place.target, opened)).await??;
            let moved = if place.tls {
                let until = end.min(Instant::now() + limits.open);
                let stream = stage("agreeing on TLS", until, self.secure(&place, stream)).await??;
                exchange(stream, &place, known, limits, end, sink).await?
            } else {
                exchange(stream, &place, known, limits, end, sink).await?
            };
            match moved {
                Said::Answer(answer) => return Ok(answer),
                Said::Elsewhere(location) => url = follow(&url, &location)?,
            }
        }
        Err(FetchError::Redirect("too often"))
    }

    async fn secure(
        &self,
        place: &Place,
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

/// What a server said.
enum Said {
    Answer(Answer),
    Elsewhere(String),
}

/// One request over one stream.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    place: &Place,
    known: &Validators,
    limits: Limits,
    end: Instant,
    sink: Sink<'_>,
) -> Result<Said, FetchError> {
    let broken = |error: hyper::Error| FetchError::Http(error.to_string().into());
    let until = || end.min(Instant::now() + limits.silence);
    let builder = http1::Builder::new();
    let shake = builder.handshake(TokioIo::new(stream));
    let (mut sender, connection) = stage("connecting", until(), shake).await?.map_err(broken)?;
    let request = request(place, known)?;
    let talk = async {
        let response = stage("waiting for its answer", until(), sender.send_request(request)).await?.map_err(broken)?;
        read(response, limits, until, sink).await
    };
    // The connection does the work of both halves and ends with them: no task is spawned for it.
    tokio::pin!(talk);
    tokio::select! {
        said = &mut talk => said,
        closed = connection => match closed {
            Ok(()) => talk.await,
            Err(error) => Err(broken(error)),
        },
    }
}

async fn read(
    response: Response<Incoming>,
    limits: Limits,
    until: impl Fn() -> Instant,
    sink: Sink<'_>,
) -> Result<Said, FetchError> {
    let (head, mut body) = response.into_parts();
    let max_age = max_age(&head.headers);
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Said::Answer(Answer::Unchanged { max_age })),
        status if status.is_redirection() => {
            let location = text(&head.headers, header::LOCATION).ok_or(FetchError::Redirect("without saying where"))?;
            return Ok(Said::Elsewhere(location));
        }
        status => {
            return Err(FetchError::Status { status, retry_after: retry_after(&head.headers, SystemTime::now()) });
        }
    }
    let mut unpacked = Unpacked::new(&head.headers, limits.body, sink)?;
    while let Some(frame) = stage("reading its answer", until(), body.frame()).await? {
        let frame = frame.map_err(|error| FetchError::Http(error.to_string().into()))?;
        if let Some(data) = frame.data_ref() {
            unpacked.feed(data)?;
        }
    }
    unpacked.finish()?;
    let validators = Validators {
        etag: text(&head.headers, header::ETAG),
        last_modified: text(&head.headers, header::LAST_MODIFIED),
    };
    Ok(Said::Answer(Answer::Fresh { validators, max_age }))
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

/// Seconds, or a date.
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
