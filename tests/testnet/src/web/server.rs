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

use super::plant::Plant;
use super::record::Seen;
use super::{Site, pages, websocket};
use crate::page;

/// Who is asking, and over what.
#[derive(Debug)]
pub(super) struct Visit {
    pub site: Arc<Site>,
    pub source: SocketAddr,
    pub tls: bool,
    /// Set by the page that switches to WebSocket; taken when HTTP is over.
    pub upgrade: Mutex<Option<OnUpgrade>>,
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<Site>);

impl Open {
    pub(super) fn new(site: &Arc<Site>) -> Self {
        site.open.fetch_add(1, Ordering::Relaxed);
        Self(site.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection, over TLS where there is an acceptor.
pub(super) async fn connection(stream: TcpStream, source: SocketAddr, tls: Option<TlsAcceptor>, site: Arc<Site>) {
    site.accepted.fetch_add(1, Ordering::Relaxed);
    let _open = Open::new(&site);
    let breaks = site.plants.of(source.ip()) == Some(Plant::BreaksTls);
    let tls = tls.map(|honest| if breaks { site.forger.acceptor() } else { honest });
    let visit = Arc::new(Visit { site, source, tls: tls.is_some(), upgrade: Mutex::default() });
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
            visit.site.seen.add(seen(&visit, &request));
            pages::answer(&visit, request).await
        }
    };
    if page::serve(stream, answer).await.is_err() {
        return; // a client that breaks off is no fault of ours
    }
    let upgrade = visit.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade
        && let Ok(stream) = upgrade.await
    {
        let _ = websocket::echo(TokioIo::new(stream)).await; // as above
    }
}

fn seen(visit: &Visit, request: &Request<Incoming>) -> Seen {
    let uri = request.uri();
    Seen {
        at: Instant::now(),
        source: visit.source,
        tls: visit.tls,
        method: request.method().clone(),
        host: page::header_text(request, &header::HOST).to_owned(),
        path: uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
        headers: request.headers().clone(),
    }
}
