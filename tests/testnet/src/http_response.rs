//! Responses of the fake HTTP servers, and the server side of one connection.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// A response with any body.
pub(crate) type HttpResponse = Response<UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>>;

/// Serves HTTP/1.1 on a connection until either side closes it.
pub(crate) async fn serve<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answer: impl Fn(Request<Incoming>) -> F,
) -> Result<(), hyper::Error>
where
    F: Future<Output = HttpResponse> + Send,
{
    let service = service_fn(|request| {
        let page = answer(request);
        async { Ok::<_, std::convert::Infallible>(page.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).half_close(true);
    http.serve_connection(TokioIo::new(stream), service).with_upgrades().await
}

/// A header as text; empty if it is missing or not text.
pub(crate) fn header_text<'a, T>(request: &'a Request<T>, name: &HeaderName) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

pub(crate) fn text(body: &str) -> HttpResponse {
    typed("text/plain; charset=utf-8", body.to_owned())
}

pub(crate) fn typed(kind: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut page = of(Full::new(body.into()));
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

pub(crate) fn of<B>(body: B) -> HttpResponse
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Response::new(body.map_err(Into::into).boxed_unsync())
}

/// A status, and its name as the body.
pub(crate) fn status(code: StatusCode) -> HttpResponse {
    let mut page = text(&format!("{code}\n"));
    *page.status_mut() = code;
    page
}

/// The first half of a body; its `Content-Length` is that of the whole body. Then the connection ends.
pub(crate) fn cut_short(kind: &'static str, body: &Bytes) -> HttpResponse {
    let mut page = of(Half { rest: Some(body.slice(..body.len() / 2)), flushed: false });
    page.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

/// A body that fails after its first piece, once the server could send that piece.
struct Half {
    rest: Option<Bytes>,
    flushed: bool,
}

impl Body for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}

/// `page` with another status and one additional header.
pub(crate) fn with(code: StatusCode, mut page: HttpResponse, name: HeaderName, value: &str) -> HttpResponse {
    let Ok(value) = HeaderValue::from_str(value) else { return status(StatusCode::BAD_REQUEST) };
    *page.status_mut() = code;
    page.headers_mut().insert(name, value);
    page
}
