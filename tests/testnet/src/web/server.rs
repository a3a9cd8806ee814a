//! One connection to the web, from accept to close.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{Request, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::exit_fault::ExitFault;
use super::request_log::Seen;
use super::{WebState, pages, websocket};
use crate::http_response;

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Visit {
    pub state: Arc<WebState>,
    pub source: SocketAddr,
    pub tls: bool,
    /// Set by the page that switches to WebSocket; used when HTTP has ended.
    pub upgrade: Mutex<Option<OnUpgrade>>,
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<WebState>);

impl Open {
    pub(super) fn new(state: &Arc<WebState>) -> Self {
        state.open.fetch_add(1, Ordering::Relaxed);
        Self(state.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection; over TLS if there is an acceptor.
pub(super) async fn connection(stream: TcpStream, source: SocketAddr, tls: Option<TlsAcceptor>, state: Arc<WebState>) {
    state.accepted.fetch_add(1, Ordering::Relaxed);
    let _open = Open::new(&state);
    let breaks = state.exit_faults.of(source.ip()) == Some(ExitFault::BreaksTls);
    let tls = tls.map(|honest| if breaks { state.untrusted_ca.acceptor() } else { honest });
    let visit = Arc::new(Visit { state, source, tls: tls.is_some(), upgrade: Mutex::default() });
    match tls {
        None => serve(stream, visit).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, visit).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, visit: Arc<Visit>) {
    let answer = |request: Request<Incoming>| {
        let visit = visit.clone();
        async move {
            visit.state.seen.add(seen(&visit, &request));
            pages::answer(&visit, request).await
        }
    };
    if http_response::serve(stream, answer).await.is_err() {
        return; // the client has left
    }
    let upgrade = visit.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade
        && let Ok(stream) = upgrade.await
    {
        let _ = websocket::echo(TokioIo::new(stream)).await; // an error is a client that left
    }
}

fn seen(visit: &Visit, request: &Request<Incoming>) -> Seen {
    let uri = request.uri();
    Seen {
        at: Instant::now(),
        source: visit.source,
        tls: visit.tls,
        method: request.method().clone(),
        host: http_response::header_text(request, &header::HOST).to_owned(),
        path: uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
        headers: request.headers().clone(),
    }
}
