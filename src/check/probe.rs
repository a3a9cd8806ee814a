//! One probe: requests one page over a stream that the caller opened through an exit.
//!
//! Some servers look at request headers before they look at the client's address. So the request has the headers of a
//! browser, because the verdict must be about the exit and not about the request. TLS sessions are never resumed: the
//! certificate is an important result of a probe, and a resumed session shows no certificate.
//!
//! The stream is any `AsyncRead + AsyncWrite`. This file opens no socket, and the caller sets the deadline.
//!
//! Next: `check/round.rs` runs probes, `check/verdict.rs` draws the conclusion from their results.

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use crate::net::{BadTarget, Host, Target};
use crate::store::Timings;

/// How many bytes of a page are read. The largest page among the presets (Google's maps script) has about 250 KB.
const LONGEST_BODY: usize = 512 << 10;

/// The user agent of a browser. Some sites refuse other user agents from any address.
const BROWSER: HeaderValue =
    HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");

/// A page that a probe can request: a parsed URL and headers.
#[derive(Clone, Debug)]
pub struct Page {
    /// The host and the port to which the caller opens the stream.
    pub target: Target,
    /// The name that the certificate must contain. `None` for plain HTTP.
    pub tls: Option<ServerName<'static>>,
    host: HeaderValue,
    path: String,
    /// Headers that are sent in addition to the headers of a browser.
    extra_headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a URL cannot be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPage {
    #[error("it is neither http:// nor https://")]
    Scheme,
    /// The host or the port of the URL is invalid.
    #[error(transparent)]
    Target(#[from] BadTarget),
    #[error("no certificate can carry its host")]
    Name,
}

impl Page {
    pub fn of(url: &Uri) -> Result<Self, BadPage> {
        let (secure, own_port) = match url.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(BadPage::Scheme),
        };
        let host = Host::parse(url.host().unwrap_or_default())?;
        let target = Target::new(host, url.port_u16().unwrap_or(own_port))?;
        let authority = if target.port == own_port { target.host.to_string() } else { target.to_string() };
        let tls = match &target.host {
            _ if !secure => None,
            Host::Ip(ip) => Some(ServerName::IpAddress((*ip).into())),
            Host::Name(name) => Some(ServerName::try_from(name.to_string()).map_err(|_| BadPage::Name)?),
        };
        let host = HeaderValue::try_from(authority).map_err(|_| BadPage::Name)?;
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { target, tls, host, path, extra_headers: Vec::new() })
    }

    /// Returns the same page with one more query parameter. Servers that do not know this parameter ignore it.
    pub fn with_nonce(&self, nonce: &str) -> Self {
        let sign = if self.path.contains('?') { '&' } else { '?' };
        Self { path: format!("{}{sign}nonce={nonce}", self.path), ..self.clone() }
    }

    /// Returns the same page with one more header.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut page = self.clone();
        page.extra_headers
            .extend(HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value)));
        page
    }

    /// Returns the same page in the form of a request that a proxy forwards.
    pub fn forwarded(&self, authorization: Option<&str>) -> Self {
        let host = self.host.to_str().unwrap_or_default();
        let page = Self { path: format!("http://{host}{}", self.path), ..self.clone() };
        match authorization {
            Some(login) => page.with_header("proxy-authorization", login),
            None => page,
        }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Fault> {
        let mut request = Request::get(&self.path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, BROWSER)
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_LANGUAGE, "en-US,en;q=0.5")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONNECTION, "close");
        for (name, value) in &self.extra_headers {
            request = request.header(name, value);
        }
        request.body(Empty::new()).map_err(|_| Fault::Http)
    }
}

/// The answer of a server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body. If the body is longer than [`LONGEST_BODY`], only its beginning.
    pub body: Bytes,
    /// True if the body is complete.
    pub whole: bool,
}

/// Returns a TLS connector that trusts the public certificate authorities and the certificates in `also`. The connector
/// resumes no session.
pub fn connector(also: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(also);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Requests `page` over `stream`, and records in `timings` how long each stage took, even if the probe fails.
pub async fn ask<S>(
    stream: S,
    page: &Page,
    tls: &TlsConnector,
    deadline: Instant,
    timings: &mut Timings,
) -> Result<Answer, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(name) = &page.tls else { return exchange(stream, page, deadline, timings).await };
    let begun = Instant::now();
    let agreed = timeout_at(deadline, tls.connect(name.clone(), stream)).await.map_err(|_| Fault::Slow)?;
    let stream = agreed.map_err(|error| tls_fault(&error))?;
    timings.tls = Some(begun.elapsed());
    exchange(stream, page, deadline, timings).await
}

/// Classifies a failure of the TLS handshake: a certificate of someone else, a certificate that is only invalid, or
/// another failure.
fn tls_fault(error: &std::io::Error) -> Fault {
    use rustls::Error;
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return Fault::Broken };
    match inner {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::BadSignature
            | CertificateError::BadEncoding,
        ) => Fault::Forged,
        Error::InvalidCertificate(_) => Fault::Certificate,
        _ => Fault::Tls,
    }
}

/// Makes one request over one stream.
async fn exchange<S>(stream: S, page: &Page, deadline: Instant, timings: &mut Timings) -> Result<Answer, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let begun = Instant::now();
    let request = page.request()?;
    let (mut sender, connection) = within(deadline, http1::handshake(TokioIo::new(stream))).await?;
    let request = async {
        let response = within(deadline, sender.send_request(request)).await?;
        timings.first_byte = Some(begun.elapsed());
        read(response, deadline).await
    };
    tokio::pin!(request);
    // The HTTP connection runs inside this future until the request is done, so no task is needed for it.
    tokio::select! {
        biased;
        answer = &mut request => answer,
        // An error of the connection alone is ignored. If no answer has arrived, the request returns an error too. If
        // an answer has arrived, the answer counts, because many servers close the connection without a TLS
        // close_notify.
        _ = connection => request.await,
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = hyper::Result<T>>) -> Result<T, Fault> {
    timeout_at(deadline, work).await.map_err(|_| Fault::Slow)?.map_err(|error| http_fault(&error))
}

fn http_fault(error: &hyper::Error) -> Fault {
    if error.is_parse() { Fault::Http } else { Fault::Broken }
}

/// Reads a body up to [`LONGEST_BODY`]. A longer body is cut, which is not an error.
async fn read(response: Response<Incoming>, deadline: Instant) -> Result<Answer, Fault> {
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    let mut whole = true;
    while let Some(frame) = timeout_at(deadline, incoming.frame()).await.map_err(|_| Fault::Slow)? {
        let Ok(data) = frame.map_err(|error| http_fault(&error))?.into_data() else { continue };
        let left = LONGEST_BODY - body.len();
        body.extend_from_slice(&data[..data.len().min(left)]);
        if data.len() > left {
            whole = false;
            break;
        }
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.freeze(), whole })
}
