//! A request's head under any bytes: how they are cut does not matter, another parser reads what we read, and what goes
//! on to the target has one end, one `Host` and the body that the client's had.
use exitgate::gateway::http::body::Body;
use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::request::{Form, Request};

/// Where the head ends, if it is shown in pieces of this size.
fn end(bytes: &[u8], piece: usize) -> Option<usize> {
    let (mut scan, mut have) = (Scan::default(), 0);
    loop {
        have = (have + piece).min(bytes.len());
        match scan.end(&bytes[..have]) {
            Ok(None) if have < bytes.len() => {}
            end => return end.ok().flatten(),
        }
    }
}

/// Where the body ends, if it is shown in pieces of this size; none if it is malformed or goes on.
fn body_end(mut body: Body, bytes: &[u8], piece: usize) -> Option<usize> {
    let mut at = 0;
    for piece in bytes.chunks(piece) {
        let taken = body.take(piece).ok()?;
        at += taken;
        if taken < piece.len() {
            break;
        }
    }
    body.is_over().then_some(at)
}

fn agrees_with_another_parser(head: &[u8], request: &Request<'_>) {
    let mut fields = vec![httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(other.method, Some(request.method));
    let ours = request.fields.iter().map(|field| (field.name, field.value));
    assert!(ours.eq(other.headers.iter().map(|field| (field.name, field.value))));
}

/// One input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = end(bytes, bytes.len());
    assert_eq!(whole, end(bytes, piece));
    let Some(length) = whole else { return };
    let (head, rest) = bytes.split_at(length);
    let Ok(request) = Request::parse(head) else { return };
    agrees_with_another_parser(head, &request);
    assert_eq!(body_end(request.body, rest, piece), body_end(request.body, rest, rest.len().max(1)));

    let Form::Absolute { authority, path, .. } = &request.form else { return };
    let mut sent = Vec::new();
    request.write_for(authority, path, &mut sent);
    // One empty line before a request is dropped by the connection, and never becomes part of what goes on.
    assert_eq!(end(&sent, sent.len()), Some(sent.len()));
    let again = Request::parse(&sent).expect("what goes on is a request");
    agrees_with_another_parser(&sent, &again);
    assert_eq!((again.method, again.body, again.version), (request.method, request.body, request.version));
    let host: Vec<_> = again.fields.iter().filter(|field| field.is("host")).map(|field| field.value).collect();
    assert_eq!(host, [authority.as_bytes()]);
    let ours = ["proxy-authorization", "proxy-connection", "x-exitgate", "keep-alive"];
    for field in again.fields.iter() {
        assert!(!ours.iter().any(|name| field.is(name)) && !field.begins("x-exitgate-"), "{}", field.name);
    }
}
