//! The HTTP front beside other readers: the next program must read a forwarded request as the front has read it.
//!
//! The target reads a client's bytes as a connection does, request after request, and writes them as they are forwarded. Three
//! readers read the forwarded bytes again. All must see the same single request: the same method, path, host, body and end.
//!
//! * `http_front/reference_reader.rs` shares no code with the front. It reads by the letter of RFC 9112, and then once for each
//!   leniency that servers are known for (a bare LF, a space before the colon, `0x5`, the second of two lengths, …).
//! * hyper's server was not written to agree with the front. It may refuse what the front forwards, because a refused request
//!   smuggles nothing. It may not read it differently.
//! * The front itself.
//!
//! hyper also reads the client's own bytes, as a load balancer before the gateway would: if both accept the first request, they must read it
//! alike. Two readers are left out, because they break HTTP itself: one that knows no chunks (HTTP/1.0 behind an HTTP/1.1 line),
//! and one that expects no body with a GET.

mod hyper_reader;
mod reference_reader;

use exitgate::gateway::http::body::Body;
use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::request::{Form, Request};

/// One request as a reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    method: String,
    target: String,
    host: Option<Vec<u8>>,
    body: Vec<u8>,
    trailers: Vec<String>,
    /// The offset at which the next request begins.
    end: usize,
}

/// Fields that must not stand in trailers: a program that merges trailers into the head would frame, route or authorize by them
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

/// How much of a client's request was forwarded.
enum Forwarded {
    Whole,
    /// The body ends early or is malformed. The gateway then closes the connection to the next program.
    Part,
}

/// Writes what is forwarded of the request at the beginning of `bytes`, and returns how many bytes that request has.
fn forwarded(bytes: &[u8], out: &mut Vec<u8>) -> Option<(Forwarded, usize)> {
    let length = Scan::default().end(bytes).ok()??;
    let request = Request::parse(&bytes[..length]).ok()?;
    let mut body = request.body;
    match &request.form {
        Form::Absolute { authority, path, .. } => request.write_for(authority, path, out),
        _ => return None,
    }
    let rest = &bytes[length..];
    match body.copy(rest, out) {
        Ok(taken) if body.is_over() => Some((Forwarded::Whole, length + taken)),
        // A valid part of the body is forwarded before its end has come.
        Ok(_) => Some((Forwarded::Part, bytes.len())),
        Err(_) => {
            good_part(request.body, rest, out);
            Some((Forwarded::Part, bytes.len()))
        }
    }
}

/// Writes what is forwarded of a malformed body that arrives one byte at a time: no other way to cut it forwards more.
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
    let strict = reference_reader::read(sent, reference_reader::STRICT);
    let Ok(Some(seen)) = &strict else { panic!("the strict reader: {strict:?} of {}", sent.escape_ascii()) };
    assert_eq!(seen.end, sent.len(), "a second request in {}", sent.escape_ascii());
    for name in seen.trailers.iter().map(|name| name.to_ascii_lowercase()) {
        assert!(!NOT_IN_TRAILERS.contains(&&*name), "the trailers hold {name}: {}", sent.escape_ascii());
    }
    for (name, leniency) in reference_reader::LENIENCIES {
        let other = reference_reader::read(sent, leniency);
        assert_eq!(other, strict, "{name} reads {} differently", sent.escape_ascii());
    }
    match hyper_reader::read(sent).as_slice() {
        [] => {}
        [one] => assert!(one.is(seen), "hyper reads {one:?}, the strict reader {seen:?}, of {}", sent.escape_ascii()),
        more => panic!("hyper reads {} requests in {}", more.len(), sent.escape_ascii()),
    }
}

fn check_part(sent: &[u8]) {
    let readers = reference_reader::LENIENCIES.into_iter().chain([("the strict reader", reference_reader::STRICT)]);
    for (name, leniency) in readers {
        if let Ok(Some(seen)) = reference_reader::read(sent, leniency) {
            panic!("{name} takes a part for a whole request: {}: {seen:?}", sent.escape_ascii());
        }
    }
    let whole = hyper_reader::read(sent);
    assert!(whole.is_empty(), "hyper takes a part for a whole request: {}: {whole:?}", sent.escape_ascii());
}

/// Checks that a load balancer before the gateway would read the client's first request as the front does.
fn check_client_bytes(bytes: &[u8]) {
    let Ok(Some(length)) = Scan::default().end(bytes) else { return };
    let Ok(request) = Request::parse(&bytes[..length]) else { return };
    let (mut body, mut text) = (request.body, Vec::new());
    let Ok(taken) = body.copy(&bytes[length..], &mut text) else { return };
    if !body.is_over() {
        return;
    }
    let whole = &bytes[..length + taken];
    let Ok(Some(seen)) = reference_reader::read(whole, reference_reader::STRICT) else {
        panic!("the strict reader finds no request in {}", whole.escape_ascii())
    };
    assert_eq!((seen.end, &*seen.method), (whole.len(), request.method));
    // After a CONNECT there are no more requests; hyper treats it differently from other requests.
    if request.method != "CONNECT"
        && let Some(first) = hyper_reader::read(bytes).first()
    {
        assert!(
            first.is_except_host(&seen),
            "hyper reads {first:?}, the strict reader {seen:?}, of {}",
            bytes.escape_ascii()
        );
    }
}

/// Runs one input: what a client sends on one connection.
pub fn run(input: &[u8]) {
    let mut bytes = input;
    check_client_bytes(bytes);
    // The next request is read where the last one ended. More than four find nothing new.
    for _ in 0..4 {
        let mut sent = Vec::new();
        match forwarded(bytes, &mut sent) {
            Some((Forwarded::Whole, used)) => {
                check_whole(&sent);
                bytes = &bytes[used..];
            }
            Some((Forwarded::Part, _)) => return check_part(&sent),
            None => return,
        }
    }
}
