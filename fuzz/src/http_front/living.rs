//! hyper's server as a reader: what it makes of the bytes of a connection, without a socket, a clock or a runtime.

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

use super::Seen;

/// A whole request as hyper has it.
#[derive(Clone, Debug)]
pub struct Heard {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    body: Vec<u8>,
}

impl Heard {
    /// True if it is what the other reader saw.
    pub fn is(&self, seen: &Seen) -> bool {
        self.is_but_for_host(seen) && self.host == seen.host
    }

    /// True if it is, whatever each made of `Host`.
    pub fn is_but_for_host(&self, seen: &Seen) -> bool {
        (&self.method, &self.body) == (&seen.method, &seen.body) && plain(&self.target) == plain(&seen.target)
    }
}

/// A target as hyper's URIs have it: the scheme in small letters, and a `/` where there was no path.
fn plain(target: &str) -> String {
    let Some((scheme, rest)) = target.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?'])) else {
        return target.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{authority}{slash}{path}", scheme.to_ascii_lowercase())
}

/// A connection of which everything has come, and whose answers nobody reads.
struct Wire<'b>(&'b [u8]);

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
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

/// The whole requests that hyper finds.
pub fn read(bytes: &[u8]) -> Vec<Heard> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let heard = heard.clone();
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                heard.borrow_mut().push(Heard {
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
        let mut connection = pin!(server.serve_connection(Wire(bytes), service));
        let mut context = Context::from_waker(Waker::noop());
        // Everything is there from the start: whoever is not ready a hundred polls later waits for nothing.
        for _ in 0..100 {
            if connection.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    let heard = heard.borrow();
    heard.clone()
}
