//! Hostile usernames and names: line breaks that try to become a header or a log line, and lengths that exceed memory.

use tokio::io::AsyncWriteExt as _;

use super::{STRAIGHT, Victim, basic, named, serve, socks5, status, talk};

/// Usernames with bytes that an attacker wants to become a line of their own.
const INJECTED: &[&[u8]] = &[
    b"us\r\nX-Evil: 1",
    b"us\nX-Evil: 1",
    b"us\rX-Evil: 1",
    b"us\0X-Evil: 1",
    b"us\x1b[2J\x1b]0;evil\x07",
    b"us\",\"level\":\"ERROR\",\"message\":\"forged",
    b"us\xe2\x80\xa8X-Evil: 1",
    b"us\xc2\x85X-Evil: 1",
    b"us\xff\xfe",
    b"us-session-a\r\n\r\nGET / HTTP/1.1",
    b"us-session-%0d%0aX-Evil:1",
    b"us-exit-1.2.3.4\r\n650 STREAM",
];

/// The head of an answer has only the lines that the gateway writes, also where the reason quotes a username.
fn is_clean(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let good = |line: &str| {
        let name = line.split(": ").next().unwrap_or_default();
        line.contains(": ") && name != "X-Evil" && !line.chars().any(char::is_control)
    };
    let clean_status = status_line.starts_with("HTTP/1.1 4") && !status_line.chars().any(char::is_control);
    clean_status && lines.clone().count() > 2 && lines.clone().all(good)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_username_or_key_becomes_a_line_of_an_answer_or_of_the_log() {
    let keys = "gateway.keys = [{ name = \"a\", key = \"the-right-key\" }]\ngateway.auth_failures = 1000000";
    let victim = Victim::start(keys).await;
    for word in INJECTED {
        for login in [[*word, b":the-right-key"].concat(), [&b"us:"[..], word].concat()] {
            let request = format!(
                "GET http://web.test/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {}\r\nConnection: close\r\n\r\n",
                basic(&login)
            );
            let answer = talk(victim.shared(), request.as_bytes()).await;
            assert!(is_clean(&answer), "{}: {}", login.escape_ascii(), answer.escape_ascii());
        }
        for (user, key) in [(*word, &b"the-right-key"[..]), (&b"us"[..], *word)] {
            let answer = talk(victim.shared(), &socks5(user, key, &named("web.test"), 80)).await;
            assert!(answer.starts_with(&[5, 2, 1]) && answer.len() <= 14, "{}: {answer:?}", user.escape_ascii());
            assert!(answer[3] != 0 || answer[5] != 0, "{} was let through", user.escape_ascii());
        }
        let four = [&[4, 1, 0, 80, 8, 8, 8, 8][..], word.split(|&byte| byte == 0).next().unwrap(), &[0]].concat();
        let answer = talk(victim.shared(), &four).await;
        assert!(answer.len() == 8 && answer[1] != 90, "{}: {answer:?}", word.escape_ascii());
        // The host of a request is a word as well.
        let host = [&[3, word.len() as u8][..], word].concat();
        let answer = talk(victim.shared(), &socks5(b"us", b"the-right-key", &host, 80)).await;
        assert_eq!(answer.get(4..6), Some(&[5, 1][..]), "{} is no host", word.escape_ascii());
    }
    // The API's own log line quotes paths.
    for path in ["/%0d%0aforged", "/\x7f", "/proxies/%1b%5b2J", "/a\"b\\c", "/%ff", "/\u{85}"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\"b{{c\r\nConnection: close\r\n\r\n");
        let answer = talk(victim.api(), request.as_bytes()).await;
        assert!(status(&answer) >= 400 && !answer.windows(4).any(|part| part == b"\x1b[2J"), "{path}");
    }
    victim.is_unharmed().await;
    let log = victim.gateway.log();
    assert!(!log.contains("the-right-key"), "the key is in the log");
    assert!(!log.contains("\"message\":\"forged"), "a line of the log was forged");
}

#[tokio::test(flavor = "multi_thread")]
async fn giants_are_refused_before_they_are_held() {
    let victim = Victim::start("").await;
    let before = victim.memory();
    let request = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    let long = "a".repeat(60_000);
    let login = |text: &str| format!("Proxy-Authorization: Basic {}\r\nConnection: close\r\n", basic(text.as_bytes()));
    for opening in [
        request("GET http://a.test/", &login(&format!("{}:x", &long[..40_000]))),
        request("GET http://a.test/", &format!("A: {long}{long}\r\n")),
        request(&format!("GET http://{}/", &long[..10_000]), "Connection: close\r\n"),
        request(&format!("{} http://a.test/", &long[..1000]), ""),
        request("CONNECT a.test:4294967376", ""),
        request("POST http://a.test/", "Content-Length: 18446744073709551616\r\n"),
        request("POST http://a.test/", "Content-Length: -1\r\n"),
        request("POST http://a.test/", &format!("Content-Length: {}\r\n", "9".repeat(400))),
    ] {
        let answer = talk(victim.shared(), &opening).await;
        assert!((400..=431).contains(&status(&answer)), "{}: {}", opening[..60].escape_ascii(), answer.escape_ascii());
    }
    // SOCKS says its lengths in a byte, but for the user of SOCKS4, which ends where it ends.
    let answer = talk(victim.shared(), &[&[4, 1, 0, 80, 8, 8, 8, 8][..], &vec![b'u'; 1 << 20]].concat()).await;
    assert!(answer.is_empty() || answer[1] != 90, "{answer:?}");
    let answer = talk(victim.shared(), &socks5(&[b'u'; 255], &[b'k'; 255], &named(&"a.".repeat(127)), 80)).await;
    assert!(answer.starts_with(&[5, 2, 1, 0, 5]) && answer[5] != 0, "{answer:?}");
    victim.is_unharmed().await;
    let grown = victim.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_more_than_memory_is_a_promise_and_not_an_allocation() {
    let victim = Victim::start("gateway.allow_private_targets = true").await;
    let origin = serve(victim.sandbox.ip(60, 1), |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    });
    let (origin, before) = (origin.await, victim.memory());
    let login = basic(format!("{STRAIGHT}:x").as_bytes());
    for fields in ["Content-Length: 2147483648", "Content-Length: 4294967296", "Content-Length: 999999999999999999"] {
        let request = format!(
            "POST http://{origin}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\nProxy-Authorization: Basic {login}\r\n\r\nstart"
        );
        let answer = talk(victim.shared(), request.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{fields}: {}", answer.escape_ascii());
    }
    for size in ["80000000", "FFFFFFFFFFFFFFFF", "7fffffffffffffff"] {
        let request = format!(
            "POST http://{origin}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
             Proxy-Authorization: Basic {login}\r\n\r\n{size}\r\nstart"
        );
        let answer = talk(victim.shared(), request.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{size}: {}", answer.escape_ascii());
    }
    // One digit more than a number of 64 bits has.
    let request = format!(
        "POST http://{origin}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
         Proxy-Authorization: Basic {login}\r\n\r\n10000000000000000\r\nstart"
    );
    assert!(matches!(status(&talk(victim.shared(), request.as_bytes()).await), 400 | 413));
    let grown = victim.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_smuggled_behind_a_body_never_reaches_the_origin_as_a_request() {
    let victim = Victim::start("gateway.allow_private_targets = true").await;
    let origin = serve(victim.sandbox.ip(60, 1), |mut stream, asked| async move {
        // What arrived is told, so that the test can look at it.
        let body = asked.replace("\r\n", "|");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let origin = origin.await;
    let login = basic(format!("{STRAIGHT}:x").as_bytes());
    let ask = async |fields: &str, body: &str| {
        let request = format!(
            "POST http://{origin}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\nProxy-Authorization: Basic {login}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        talk(victim.shared(), request.as_bytes()).await
    };
    const NEXT: &str = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    for fields in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: xchunked",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 0\r\n Content-Length: 5",
        "Content-Length: +0",
        "Content-Length: 0\nX: y",
    ] {
        let answer = ask(fields, &format!("0\r\n\r\n{NEXT}")).await;
        assert_eq!(status(&answer), 400, "{fields}: {}", answer.escape_ascii());
        assert_eq!(answer.windows(8).filter(|part| part == b"HTTP/1.1").count(), 1, "{fields}: a second answer");
    }
    // What is good goes on in the one form that every program reads alike.
    let answer = ask("transfer-ENCODING:CHUNKED\t", "0\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&answer).contains("|transfer-ENCODING: chunked|"), "{}", answer.escape_ascii());
    let answer = ask("Content-Length: 0000", "").await;
    assert!(String::from_utf8_lossy(&answer).contains("|Content-Length: 0|"), "{}", answer.escape_ascii());
    victim.is_unharmed().await;
}
