//! A request's head with any bytes: the result does not depend on how they were cut, another parser reads the same, and the forwarded
//! request has one end, one `Host`, and the body of the client's request.
use exitgate::gateway::http::body::Body;
use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::request::{Form, Request};

/// Where the head ends, if it arrives in pieces of this size.
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

/// Where the body ends, if it arrives in pieces of this size; none if it is malformed or not complete.
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

/// Runs one input.
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
    // The connection drops an empty line before a request, so it is not forwarded.
    assert_eq!(end(&sent, sent.len()), Some(sent.len()));
    let again = Request::parse(&sent).expect("the forwarded bytes are a request");
    agrees_with_another_parser(&sent, &again);
    assert_eq!((again.method, again.body, again.version), (request.method, request.body, request.version));
    let host: Vec<_> = again.fields.iter().filter(|field| field.is("host")).map(|field| field.value).collect();
    assert_eq!(host, [authority.as_bytes()]);
    let ours = ["proxy-authorization", "proxy-connection", "x-exitgate", "keep-alive"];
    for field in again.fields.iter() {
        assert!(!ours.iter().any(|name| field.is(name)) && !field.begins("x-exitgate-"), "{}", field.name);
    }
}
