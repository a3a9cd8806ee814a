//! The HTTP front beside other readers: what goes on to the next program must be read there as it was read here.
//!
//! A client's bytes are read as a connection reads them, request after request, and written as the next program gets
//! them. Then that is read again, three times over, and everybody has to see the same one request, of the same method,
//! path and host, with the same body and the same end:
//!
//! * by `http_front/plain.rs`, which shares no line with the front: RFC 9112 to the letter, and then once for each
//!   leniency that servers are known for (a bare LF, a space before the colon, `0x5`, the second of two lengths, …);
//! * by hyper's server, because a reader that was written to agree proves less than one that was not. It may refuse what
//!   the front lets through: a refusal smuggles nothing. It may not read it differently;
//! * by the front itself.
//!
//! hyper also reads the client's own bytes, as a balancer before the gateway would: where both take the first request,
//! it must be the same one. Two readers are left out because HTTP leaves them no choice: one that has no chunks at all
//! (HTTP/1.0 behind an HTTP/1.1 line), and one that takes no body with a GET.

mod living;
mod plain;

use exitgate::gateway::http::body::Body;
use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::request::{Form, Request};

/// What a reader makes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    body: Vec<u8>,
    trailers: Vec<String>,
    /// Where the next one begins.
    end: usize,
}

/// Fields that must not come behind a body: whoever adds them to those of the head would frame, route or admit by them
/// (RFC 9110, section 6.5.1).
const NOT_IN_TRAILERS: [&str; 9] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "trailer",
    "te",
    "upgrade",
    "proxy-authorization",
    "x-exitgate-exit",
];

/// How much of a client's request there is.
enum Sent {
    /// All of it.
    Whole,
    /// Its body ends, or goes wrong, in the middle: the connection is closed on the next program.
    Part,
}

/// What goes on of the request at the beginning of `bytes`, and how many of them it is.
fn forwarded(bytes: &[u8], out: &mut Vec<u8>) -> Option<(Sent, usize)> {
    let length = Scan::default().end(bytes).ok()??;
    let request = Request::parse(&bytes[..length]).ok()?;
    let mut body = request.body;
    match &request.form {
        Form::Absolute { authority, path, .. } => request.write_for(authority, path, out),
        _ => return None,
    }
    let rest = &bytes[length..];
    match body.copy(rest, out) {
        Ok(taken) if body.is_over() => Some((Sent::Whole, length + taken)),
        // What was good of it went on before the end was known.
        Ok(_) => Some((Sent::Part, bytes.len())),
        Err(_) => {
            good_part(request.body, rest, out);
            Some((Sent::Part, bytes.len()))
        }
    }
}

/// Writes as much of a malformed body as goes on when it comes a byte at a time, which is the most.
fn good_part(mut body: Body, bytes: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for end in 1..=bytes.len() {
        match body.copy(&bytes[from..end], out) {
            Ok(taken) => from += taken,
            Err(_) => return,
        }
    }
}

fn check_whole(sent: &[u8]) {
    let strict = plain::read(sent, plain::STRICT);
    let Ok(Some(seen)) = &strict else { panic!("the letter of the RFC: {strict:?} of {}", sent.escape_ascii()) };
    assert_eq!(seen.end, sent.len(), "a second request in {}", sent.escape_ascii());
    for name in seen.trailers.iter().map(|name| name.to_ascii_lowercase()) {
        assert!(!NOT_IN_TRAILERS.contains(&&*name), "{name} behind the body of {}", sent.escape_ascii());
    }
    for (quirk, lax) in plain::QUIRKS {
        let other = plain::read(sent, lax);
        assert_eq!(other, strict, "{quirk} reads {} differently", sent.escape_ascii());
    }
    match living::read(sent).as_slice() {
        [] => {}
        [one] => assert!(one.is(seen), "hyper reads {one:?}, we {seen:?}, of {}", sent.escape_ascii()),
        more => panic!("hyper reads {} requests in {}", more.len(), sent.escape_ascii()),
    }
}

fn check_part(sent: &[u8]) {
    let readers = plain::QUIRKS.into_iter().chain([("the letter of the RFC", plain::STRICT)]);
    for (quirk, lax) in readers {
        if let Ok(Some(seen)) = plain::read(sent, lax) {
            panic!("{quirk} takes the part {} for a whole: {seen:?}", sent.escape_ascii());
        }
    }
    let whole = living::read(sent);
    assert!(whole.is_empty(), "hyper takes the part {} for a whole: {whole:?}", sent.escape_ascii());
}

/// A balancer before us reads the client's bytes too.
fn agrees_in_front(bytes: &[u8]) {
    let Ok(Some(length)) = Scan::default().end(bytes) else { return };
    let Ok(request) = Request::parse(&bytes[..length]) else { return };
    let (mut body, mut text) = (request.body, Vec::new());
    let Ok(taken) = body.copy(&bytes[length..], &mut text) else { return };
    if !body.is_over() {
        return;
    }
    let whole = &bytes[..length + taken];
    let Ok(Some(seen)) = plain::read(whole, plain::STRICT) else {
        panic!("the letter of the RFC has no {}", whole.escape_ascii())
    };
    assert_eq!((seen.end, &*seen.method), (whole.len(), request.method));
    // Behind a CONNECT there are no more requests; hyper does not read one as a request of its own.
    if request.method != "CONNECT"
        && let Some(first) = living::read(bytes).first()
    {
        assert!(first.is_but_for_host(&seen), "hyper reads {first:?}, we {seen:?}, of {}", bytes.escape_ascii());
    }
}

/// One input: a client's side of a connection.
pub fn run(input: &[u8]) {
    let mut bytes = input;
    agrees_in_front(bytes);
    // Requests that follow are read where ours end: more than a few prove nothing new.
    for _ in 0..4 {
        let mut sent = Vec::new();
        match forwarded(bytes, &mut sent) {
            Some((Sent::Whole, used)) => {
                check_whole(&sent);
                bytes = &bytes[used..];
            }
            Some((Sent::Part, _)) => return check_part(&sent),
            None => return,
        }
    }
}
