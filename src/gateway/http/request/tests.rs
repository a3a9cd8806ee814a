//! Tests of which requests are parsed, which are refused, and what the target gets.

use proptest::prelude::*;

use super::*;
use crate::gateway::http::body::Chunks;
use crate::gateway::http::head::Scan;

/// Reads a head as a connection does: first finds the end of the head, then parses the head.
fn read(bytes: &[u8]) -> Result<Request<'_>, HeadFault> {
    let end = Scan::default().end(bytes)?.ok_or(HeadFault::StartLine)?;
    Request::parse(&bytes[..end])
}

fn form_of(line: &str) -> Result<String, HeadFault> {
    read(format!("{line} HTTP/1.1\r\nHost: elsewhere\r\n\r\n").as_bytes()).map(|request| match request.form {
        Form::Authority(target) => format!("connect {target}"),
        Form::Absolute { target, authority, path } => format!("{target} as {authority} for {path}"),
        Form::Origin(path) => format!("here {path}"),
        Form::Asterisk => "*".into(),
    })
}

#[test]
fn the_four_forms() {
    for (line, want) in [
        ("CONNECT a.test:443", Ok("connect a.test:443")),
        ("CONNECT [2001:db8::1]:443", Ok("connect [2001:db8::1]:443")),
        ("CONNECT a.test", Err(HeadFault::Target)),
        ("CONNECT http://a.test/", Err(HeadFault::Target)),
        ("CONNECT /", Err(HeadFault::Target)),
        ("CONNECT us@a.test:443", Err(HeadFault::Userinfo)),
        ("CONNECT a.test:0", Err(HeadFault::Target)),
        ("GET http://A.test", Ok("a.test:80 as A.test for ")),
        ("GET http://a.test:8080/x?y=http://b.test/", Ok("a.test:8080 as a.test:8080 for /x?y=http://b.test/")),
        ("GET HTTP://a.test:/x", Ok("a.test:80 as a.test: for /x")),
        ("GET http://a.test?x", Ok("a.test:80 as a.test for ?x")),
        ("GET http://[2001:db8::1]/", Ok("[2001:db8::1]:80 as [2001:db8::1] for /")),
        ("GET http://[2001:db8::1]:81/", Ok("[2001:db8::1]:81 as [2001:db8::1]:81 for /")),
        ("OPTIONS http://a.test", Ok("a.test:80 as a.test for *")),
        ("GET ws://a.test/x", Ok("a.test:80 as a.test for /x")),
        ("GET wss://a.test/x", Err(HeadFault::Scheme)),
        ("GET https://a.test/", Err(HeadFault::Scheme)),
        ("GET ftp://a.test/", Err(HeadFault::Scheme)),
        ("GET http://u:p@a.test/", Err(HeadFault::Userinfo)),
        ("GET http://a.test\\@b.test/", Err(HeadFault::Userinfo)),
        ("GET http://a.test\\b.test/", Err(HeadFault::Target)),
        ("GET http:///x", Err(HeadFault::Target)),
        ("GET http://a.test:99999/", Err(HeadFault::Target)),
        ("GET http://a.test::/", Err(HeadFault::Target)),
        ("GET http://a.test:80:/", Err(HeadFault::Target)),
        ("GET http://a%2etest/", Err(HeadFault::Target)),
        ("GET http://127.1/", Err(HeadFault::Target)),
        ("GET http://a.test/#x", Err(HeadFault::Target)),
        ("GET a.test", Err(HeadFault::Target)),
        ("GET http:a.test", Err(HeadFault::Target)),
        ("GET /path", Ok("here /path")),
        ("GET //a.test/", Ok("here //a.test/")),
        ("OPTIONS *", Ok("*")),
        ("GET *", Err(HeadFault::Target)),
    ] {
        assert_eq!(form_of(line), want.map(str::to_owned), "{line}");
    }
}

/// All forms of a head that two parsers could read differently. Each entry holds all bytes that the client sends.
pub(crate) const SMUGGLED: &[(&[u8], HeadFault)] = &[
    (b"GET http://a/ HTTP/1.1\nHost: a\n\n", HeadFault::BareLf),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", HeadFault::BareLf),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\n", HeadFault::BareLf),
    (b"GET http://a/ HTTP/1.1\rHost: a\r\r", HeadFault::BareCr),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", HeadFault::BareCr),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n", HeadFault::Folded),
    (b"GET http://a/ HTTP/1.1\r\n Host: a\r\n\r\n", HeadFault::Folded),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\tTransfer-Encoding: chunked\r\n\r\n", HeadFault::Folded),
    (b"GET http://a/\0 HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Control),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\0b\r\n\r\n", HeadFault::Control),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\x0b\r\n\r\n", HeadFault::Control),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n", HeadFault::Control),
    (b"GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n", HeadFault::SpaceBeforeColon),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", HeadFault::SpaceBeforeColon),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\n", HeadFault::SpaceBeforeColon),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", HeadFault::Field),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", HeadFault::Field),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer\x2fEncoding: chunked\r\n\r\n", HeadFault::Field),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HeadFault::Host),
    (b"GET http://a/ HTTP/1.1\r\nX: y\r\n\r\n", HeadFault::Host),
    (b"GET http://a/ HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HeadFault::Host),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", HeadFault::SecondLength),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", HeadFault::SecondLength),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", HeadFault::Length),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", HeadFault::Length),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", HeadFault::Length),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", HeadFault::Length),
    (
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadFault::LengthAndCoding,
    ),
    (
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        HeadFault::LengthAndCoding,
    ),
    (
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        HeadFault::Coding,
    ),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", HeadFault::Coding),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", HeadFault::Coding),
    (b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", HeadFault::Coding),
    (b"POST http://a/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", HeadFault::OldCoding),
    (
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close, Content-Length\r\n\r\n",
        HeadFault::Stripped,
    ),
    (
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n\r\n",
        HeadFault::Stripped,
    ),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Connection: host\r\n\r\n", HeadFault::Stripped),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", HeadFault::UnexpectedBody),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", HeadFault::UnexpectedBody),
    (b"TRACE http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", HeadFault::UnexpectedBody),
    (b"GET  http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/  HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/ HTTP/1.1 \r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/ x HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET\thttp://a/\tHTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/\r\n\r\n", HeadFault::StartLine),
    (b"G@T http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/ http/1.1\r\nHost: a\r\n\r\n", HeadFault::StartLine),
    (b"GET http://a/ HTTP/1.10\r\nHost: a\r\n\r\n", HeadFault::Version),
    (b"GET http://a/ HTTP/2.0\r\nHost: a\r\n\r\n", HeadFault::Version),
    (b"PRI * HTTP/2.0\r\n\r\n", HeadFault::Version),
    (b"GET http://a/\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Target),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Userinfo),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", HeadFault::Expectation),
];

#[test]
fn every_form_of_request_smuggling_is_refused() {
    assert!(SMUGGLED.len() >= 30);
    for &(bytes, fault) in SMUGGLED {
        assert_eq!(read(bytes).err(), Some(fault), "{}", bytes.escape_ascii());
        assert!((400..600).contains(&Failure::from(fault).status()) && Failure::from(fault).status() != 407);
    }
}

fn forwarded(head: &str) -> String {
    let request = read(head.as_bytes()).unwrap();
    let Form::Absolute { authority, path, .. } = request.form else { panic!("{head}") };
    let mut out = Vec::new();
    request.write_for(authority, path, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_target_gets_what_the_client_would_have_sent_without_a_proxy() {
    for (head, want) in [
        // A request in the form in which curl sends it: Proxy-Connection becomes Connection, and the credentials are
        // dropped.
        (
            "GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic eDp5\r\nUser-Agent: curl/8\r\nAccept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: a.test\r\nUser-Agent: curl/8\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
        ),
        // `Max-Forwards` is decreased by one for TRACE and OPTIONS, and for no other method.
        (
            "TRACE http://a.test/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 10\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 9\r\n\r\n",
        ),
        (
            "OPTIONS http://a.test/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: some\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: some\r\n\r\n",
        ),
        (
            "GET http://a.test/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 1\r\n\r\n",
        ),
        // The fields that decide the length of the body are written in the form that every parser knows.
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nCONTENT-length:\t010 \r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nCONTENT-length: 10\r\n\r\n",
        ),
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 000\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nTransfer-encoding:CHUNKED\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-encoding: chunked\r\n\r\n",
        ),
        // The value of Host is the target's host, whatever the client sent. The field's place and case stay.
        (
            "GET http://A.test:81 HTTP/1.1\r\nAccept: x\r\nhOST: evil\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: x\r\nhOST: A.test:81\r\n\r\n",
        ),
        ("GET http://a.test?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("OPTIONS http://a.test HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("GET http://a.test/ HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: close\r\n\r\n"),
        (
            "GET http://a.test/ HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        ),
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTrailer: D\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\nTrailer: D\r\n\r\n",
        ),
        (
            "GET http://a.test/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
        ),
        (
            "GET http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "GET http://a.test/ HTTP/1.1\r\nHost: x\r\nTE: gzip, trailers\r\nConnection: TE\r\nKeep-Alive: 5\r\nX-Exitgate: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
        ),
    ] {
        assert_eq!(forwarded(head), want);
    }
}

#[test]
fn a_trace_shows_what_came_without_secrets() {
    let head = "TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nCookie: c\r\nAuthorization: b\r\n\
                Proxy-Authorization: Basic eDp5\r\nX-A: b\r\n\r\n";
    let request = read(head.as_bytes()).unwrap();
    assert_eq!(request.hops_left(), Some(0));
    let want = "TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nX-A: b\r\n\r\n";
    assert_eq!(request.trace("http://a.test/"), want);
}

#[test]
fn the_body_behind_a_head_is_known() {
    let of = |lines: &str| {
        let head = format!("POST http://a/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let request = read(head.as_bytes()).unwrap();
        (request.body, request.persists(), request.expects, request.upgrade.is_some())
    };
    assert_eq!(of(""), (Body::NONE, true, false, false));
    assert_eq!(of("Content-Length: 7\r\nConnection: close\r\n"), (Body::Length(7), false, false, false));
    assert_eq!(
        of("Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n"),
        (Body::Chunked(Chunks::default()), true, true, false)
    );
    assert_eq!(of("Connection: upgrade\r\nUpgrade: a\r\n"), (Body::NONE, true, false, true));
    // No upgrade is offered if `Connection` does not announce it, if there are two `Upgrade` fields, or if the request
    // has a body.
    assert!(!of("Upgrade: a\r\n").3);
    assert!(!of("Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n").3);
    assert!(!of("Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n").3);
}

proptest! {
    #[test]
    fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(&bytes);
        let _ = Request::parse(&[&b"GET http://a/ HTTP/1.1\r\n"[..], &bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn what_goes_on_is_a_head_of_its_own(path in "/[!-~&&[^#]]{0,20}", names in proptest::collection::vec("[A-Za-z-]{1,12}", 0..8), value in "[ -~]{0,20}") {
        let mut head = format!("GET http://a.test{path} HTTP/1.1\r\nHost: b\r\n");
        for name in names.iter().filter(|name| !name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("X-{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent = forwarded(&head);
        prop_assert_eq!(Scan::default().end(sent.as_bytes()), Ok(Some(sent.len())));
        let again = read(sent.as_bytes()).unwrap();
        prop_assert_eq!(again.form, Form::Origin(path.as_str()));
        prop_assert_eq!(again.fields.get("host").unwrap().value, b"a.test");
    }
}

/// One line of a head, as an attacker might write it.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("Host"),
        Just("Content-Length"),
        Just("content-length"),
        Just("Transfer-Encoding"),
        Just("Connection"),
        Just("Proxy-Connection"),
        Just("TE"),
        Just("Expect"),
        Just("Upgrade"),
        Just("Trailer"),
        Just("X"),
        Just("Keep-Alive"),
        Just("Content_Length"),
        Just("Content-Length\u{a0}"),
        Just("")
    ];
    let between = prop_oneof![8 => Just(": "), 4 => Just(":"), 1 => Just(" :"), 1 => Just(":\t"), 1 => Just("")];
    let value = prop_oneof![
        Just("a"),
        Just("5"),
        Just("0"),
        Just("chunked"),
        Just("close"),
        Just("identity"),
        Just("keep-alive, X"),
        Just("5, 5"),
        Just("100-continue"),
        Just("websocket"),
        Just("upgrade"),
        Just("trailers"),
        Just("chunked\0"),
        Just("\u{b}chunked"),
        Just("")
    ];
    let end =
        prop_oneof![16 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n "), 1 => Just("\r\r\n")];
    (name, between, value, end).prop_map(|(name, between, value, end)| [name, between, value, end].concat())
}

/// Returns what another parser (httparse) reads: the method, the path, and each field with its value.
fn other_parser(head: &[u8]) -> (String, String, Vec<(String, Vec<u8>)>) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let status = request.parse(head).unwrap();
    assert_eq!(status, httparse::Status::Complete(head.len()), "{}", head.escape_ascii());
    let fields = request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    (request.method.unwrap().to_owned(), request.path.unwrap().to_owned(), fields)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn another_parser_reads_what_we_read(
        method in prop_oneof![Just("GET"), Just("POST"), Just("OPTIONS")],
        version in prop_oneof![4 => Just("1.1"), 1 => Just("1.0")],
        mut lines in proptest::collection::vec(line(), 0..5),
        host in 0usize..6,
    ) {
        lines.insert(host.min(lines.len()), "Host: a.test\r\n".to_owned());
        let mut head = format!("{method} http://a.test/x HTTP/{version}\r\n{}\r\n", lines.concat());
        let Ok(Some(end)) = Scan::default().end(head.as_bytes()) else { return Ok(()) };
        head.truncate(end);
        let Ok(request) = read(head.as_bytes()) else { return Ok(()) };
        let ours: Vec<_> = request.fields.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec())).collect();
        prop_assert_eq!(other_parser(head.as_bytes()), (method.to_owned(), "http://a.test/x".to_owned(), ours));

        let sent = forwarded(&head);
        let (_, path, fields) = other_parser(sent.as_bytes());
        prop_assert_eq!(path, "/x");
        let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| &v[..]).collect::<Vec<_>>();
        prop_assert_eq!(all("host"), [b"a.test"]);
        let body = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => Body::NONE,
            ([length], []) => Body::Length(str::from_utf8(length).unwrap().parse().unwrap()),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Body::Chunked(Chunks::default()),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(body, request.body);
        prop_assert!(all("connection").len() <= 1 && all("proxy-connection").is_empty() && all("keep-alive").is_empty());
    }
}
