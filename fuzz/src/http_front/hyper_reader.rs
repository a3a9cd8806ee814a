//! hyper's server as a reader of a connection's bytes, without a socket, a clock or a runtime.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::ReadRequest;

/// A whole request as hyper reads it.
#[derive(Clone, Debug)]
pub struct HyperRequest {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    body: Vec<u8>,
}

impl HyperRequest {
    /// True if the other reader has read the same.
    pub fn is(&self, seen: &ReadRequest) -> bool {
        self.is_except_host(seen) && self.host == seen.host
    }

    /// The same, without a comparison of `Host`.
    pub fn is_except_host(&self, seen: &ReadRequest) -> bool {
        (&self.method, &self.body) == (&seen.method, &seen.body) && normalized(&self.target) == normalized(&seen.target)
    }
}

/// A target as hyper's URIs write it: the scheme in lower case, and a `/` where there is no path.
fn normalized(target: &str) -> String {
    let Some((scheme, rest)) = target.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?'])) else {
        return target.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{authority}{slash}{path}", scheme.to_ascii_lowercase())
}

/// A connection on which all bytes have arrived, and whose answers nobody reads.
struct Connection<'b>(&'b [u8]);

impl Read for Connection<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Connection<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The complete requests that hyper finds.
pub fn read(bytes: &[u8]) -> Vec<HyperRequest> {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let requests = requests.clone();
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                requests.borrow_mut().push(HyperRequest {
                    method: head.method.to_string(),
                    target: head.uri.to_string(),
                    host: head.headers.get("host").map(|host| host.as_bytes().to_vec()),
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    {
        let mut server = http1::Builder::new();
        server.half_close(true).max_headers(256);
        let mut connection = pin!(server.serve_connection(Connection(bytes), service));
        let mut context = Context::from_waker(Waker::noop());
        // All bytes are there from the start: if hyper is not ready after a hundred polls, it waits for more.
        for _ in 0..100 {
            if connection.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    let requests = requests.borrow();
    requests.clone()
}
