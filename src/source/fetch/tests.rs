use std::io::Write as _;
use std::sync::Mutex;

use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::lifecycle::{Lifecycle, Tasks};

/// A test server that reads a request and sends the next one of its prepared answers.
#[derive(Clone)]
struct Scripted {
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
    /// True if the server sends nothing after its answer and does not close the connection.
    hangs: bool,
}

impl Connect for Scripted {
    type Stream = DuplexStream;

    async fn connect(&self, target: &Target, _: Instant) -> Result<DuplexStream, DialError> {
        let next = self.answers.lock().unwrap().pop();
        let Some(answer) = next else { return Err(TargetFault::Refused.into()) };
        let (ours, mut theirs) = duplex(1 << 16);
        let (asked, target, hangs) = (self.asked.clone(), target.clone(), self.hangs);
        self.tasks.spawn("server", async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if theirs.read_exact(&mut byte).await.is_err() {
                    return;
                }
                head.push(byte[0]);
            }
            asked.lock().unwrap().push(format!("{target} {}", String::from_utf8(head).unwrap()));
            // fails if the client has already read enough and closed the stream
            let _ = theirs.write_all(&answer).await;
            if hangs {
                std::future::pending::<()>().await;
            }
        });
        Ok(ours)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = head.replace('\n', "\r\n");
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

struct Outcome {
    answer: Result<Answer, FetchError>,
    body: Vec<u8>,
    asked: Vec<String>,
}

/// Makes a request to a server that sends these answers, in this order.
async fn ask_with(url: &'static str, known: &Validators, answers: &[&[u8]], hangs: bool) -> Outcome {
    let life = Lifecycle::new();
    let script = answers.iter().rev().map(|answer| answer.to_vec()).collect();
    let server = Scripted { answers: Arc::new(Mutex::new(script)), asked: Arc::default(), tasks: life.tasks(), hangs };
    let tls = ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::new(server.clone(), Arc::new(tls));
    let limits = Limits { body: 10_000, ..Limits::default() };
    let mut body = Vec::new();
    let mut sink = |bytes: &[u8]| -> Result<(), Garbage> {
        body.extend_from_slice(bytes);
        if body.starts_with(b"bad") { Err(Garbage("bad begins bad")) } else { Ok(()) }
    };
    let answer = client.get(&Uri::from_static(url), known, limits, &mut sink).await;
    let asked = server.asked.lock().unwrap().clone();
    Outcome { answer, body, asked }
}

async fn ask(answers: &[&[u8]]) -> Outcome {
    ask_with("http://list.test/details?x=1", &Validators::default(), answers, false).await
}

#[tokio::test(start_paused = true)]
async fn a_request_is_conditional_and_a_fresh_answer_is_passed_on() {
    let known =
        Validators { etag: Some("\"1\"".to_owned()), last_modified: Some("Fri, 04 Sep 2026 03:05:00 GMT".to_owned()) };
    let body = b"0123456789".repeat(500);
    let fresh = answer("200 OK\ncontent-encoding: gzip\netag: \"2\"\ncache-control: public, max-age=900", &gzip(&body));
    let outcome = ask_with("http://list.test/details?x=1", &known, &[&fresh], false).await;
    let validators = Validators { etag: Some("\"2\"".to_owned()), last_modified: None };
    assert_eq!(outcome.answer, Ok(Answer::Fresh { validators, max_age: Some(Duration::from_secs(900)) }));
    assert_eq!(outcome.body, body);
    let asked = outcome.asked[0].to_ascii_lowercase();
    for part in [
        "list.test:80 get /details?x=1 http/1.1",
        "host: list.test\r\n",
        "if-none-match: \"1\"",
        "if-modified-since: fri, 04 sep 2026 03:05:00 gmt",
        "accept-encoding: gzip",
    ] {
        assert!(asked.contains(part), "{part:?} is not in {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unchanged_is_an_answer() {
    let outcome = ask(&[&answer("304 Not Modified\ncache-control: max-age=300", b"")]).await;
    assert_eq!(outcome.answer, Ok(Answer::Unchanged { max_age: Some(Duration::from_secs(300)) }));
}

#[tokio::test(start_paused = true)]
async fn each_bad_answer_has_its_error() {
    let packed = gzip(&b"0123456789".repeat(100));
    let bomb = gzip(&vec![0; 1_000_000]);
    let status = |code, retry_after| FetchError::Status { status: StatusCode::from_u16(code).unwrap(), retry_after };
    let gz = "200 OK\ncontent-encoding: gzip";
    for (said, wanted) in [
        (answer("500 Internal Server Error", b"oops"), status(500, None)),
        (answer("503 Busy\nretry-after: 120", b""), status(503, Some(Duration::from_secs(120)))),
        (answer("429 Slow\nretry-after: 99999999", b""), status(429, Some(LONGEST_WAIT))),
        (answer("204 No Content", b""), status(204, None)),
        (answer("302 Found", b""), FetchError::Redirect("without a location")),
        (answer("302 Found\nlocation: ftp://x.test/", b""), FetchError::Scheme),
        (answer(gz, &bomb), FetchError::TooLong(10_000)),
        (answer("200 OK", &[b'x'; 10_001]), FetchError::TooLong(10_000)),
        (answer("200 OK", b"bad"), FetchError::Garbage(Garbage("bad begins bad"))),
    ] {
        assert_eq!(ask(&[&said]).await.answer.unwrap_err(), wanted);
    }
    let mut cut = answer("200 OK", &[b'x'; 100]);
    cut.truncate(cut.len() - 1);
    for (said, word) in [
        (b"".to_vec(), "http"),
        (b"SSH-2.0-OpenSSH_9\r\n".to_vec(), "http"),
        (cut, "http"),
        (b"HTTP/1.1 200 OK\r\nx: ".to_vec().into_iter().chain(vec![b'y'; 1 << 20]).collect(), "http"),
        (answer(gz, &packed[..packed.len() - 9]), "packing"),
        (answer(gz, b"this is not gzip"), "packing"),
        (answer("200 OK\ncontent-encoding: br", b"x"), "packing"),
    ] {
        let error = ask(&[&said]).await.answer.unwrap_err();
        assert_eq!(error.as_str(), word, "{error}");
    }
    assert_eq!(ask(&[]).await.answer, Err(FetchError::Connect(TargetFault::Refused.into())));
}

#[tokio::test(start_paused = true)]
async fn every_stage_has_a_timeout() {
    for (said, doing) in [
        (&b"HTTP/1.1 200 OK\r\n"[..], "waiting for the answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "reading the answer"),
    ] {
        let outcome = ask_with("http://list.test/", &Validators::default(), &[said], true).await;
        assert_eq!(outcome.answer, Err(FetchError::Late(doing)));
    }
    let outcome = ask_with("https://list.test/", &Validators::default(), &[b"x"], true).await;
    assert_eq!(
        outcome.answer,
        Err(FetchError::Late("the TLS handshake")),
        "a server that reads the ClientHello and sends nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_a_few_times() {
    let there = answer("301 Moved\nlocation: http://mirror.test:8080/a", b"");
    let here = answer("307 Moved\nlocation: /b?c", b"");
    let outcome = ask(&[&there, &here, &answer("200 OK", b"x")]).await;
    assert_eq!(outcome.body, b"x");
    let places: Vec<_> = outcome.asked.iter().map(|asked| asked.split(" HTTP").next().unwrap()).collect();
    assert_eq!(places, ["list.test:80 GET /details?x=1", "mirror.test:8080 GET /a", "mirror.test:8080 GET /b?c"]);
    let outcome = ask(&[&here, &here, &here, &here, &here]).await;
    assert_eq!(outcome.answer, Err(FetchError::Redirect("too often")));
    let secure = Uri::from_static("https://list.test/");
    assert_eq!(follow(&secure, "http://list.test/"), Err(FetchError::Redirect("from https to http")));
    assert_eq!(follow(&secure, "//evil.test/"), Err(FetchError::Redirect("in a form that is not followed")));
}

#[tokio::test]
async fn a_list_in_a_private_network_is_refused_with_what_to_set() {
    let tls = ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::new(Direct::new(Rules::default()), Arc::new(tls));
    let url = Uri::from_static("http://127.0.0.1:9/list.txt");
    let error = client.get(&url, &Validators::default(), Limits::default(), &mut |_| Ok(())).await.unwrap_err();
    assert!(error.to_string().contains("`gateway.allow_private_targets = true`"), "{error}");
    assert_eq!(error.as_str(), "connect");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Fri, 04 Sep 2026 03:00:00 GMT").unwrap();
    for (value, seconds) in [
        ("17", Some(17)),
        ("Fri, 04 Sep 2026 03:01:00 GMT", Some(60)),
        ("Fri, 04 Sep 2026 02:00:00 GMT", Some(0)),
        ("soon", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{value}");
    }
}
