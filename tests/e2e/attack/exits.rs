//! The other side means harm: an origin that answers in two ways at once, public proxies that are none.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{STRAIGHT, Victim, basic, serve, status};
use crate::gateway::until;

/// Answers that two readers could end in two places, or that put words into our mouth: the path says which.
const SPLIT: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 9\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nA: b\r\n folded: c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\nevil",
    "HTTP/1.1 099 Odd\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01",
    "ICY 200 OK\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_be_split_is_told_by_nobody() {
    let victim = Victim::start("gateway.allow_private_targets = true").await;
    let origin = serve(victim.sandbox.ip(60, 1), |mut stream, asked| async move {
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let answer = match path.trim_start_matches('/').parse::<usize>() {
            Ok(at) => SPLIT[at].to_owned(),
            // Honest, and then an answer that nobody asked for.
            Err(_) => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{}",
                "HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil"
            ),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let origin = origin.await;
    let login = basic(format!("{STRAIGHT}:x").as_bytes());
    for (at, split) in SPLIT.iter().enumerate() {
        // One connection of a client: what is wrong with the first answer must not become the second.
        let one = |path: &str, last: &str| {
            format!(
                "GET http://{origin}/{path} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\n{last}\r\n"
            )
        };
        let both = format!("{}{}", one(&at.to_string(), ""), one("good", "Connection: close\r\n"));
        let answer = super::talk(victim.shared(), both.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status(&answer), 502, "{split:?}: {text}");
        assert!(!text.contains("evil") && !text.contains("X-Evil"), "{split:?}: {text}");
    }
    let twice = (0..2).map(|at| {
        let last = if at == 1 { "Connection: close\r\n" } else { "" };
        format!("GET http://{origin}/good HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\n{last}\r\n")
    });
    let answer = super::talk(victim.shared(), twice.collect::<String>().as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("evil").count()), (2, 0), "{text}");
    victim.is_unharmed().await;
}

/// Noise.
const FLOOD: &[u8] = &[b'x'; 65536];

/// How a proxy of the list behaves, by the last part of its address.
async fn misbehave(kind: u8, mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]).await;
    match kind {
        // A line without end, a head without end, interim answers without end.
        1 => while stream.write_all(FLOOD).await.is_ok() {},
        2 => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n").await.is_ok() {}
        }
        3 => while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {},
        // A good word, and then noise for ever.
        4 => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(FLOOD).await.is_ok() {}
        }
        5 => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {}
        }
        // Words for the terminal of whoever reads the log.
        6 => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 \x1b[2J\r\nServer: \x1b]0;evil\x07\r\n\r\n{\"evil\":\"\x1b[2J\"}")
                .await;
        }
        7 => {
            let _ = stream.write_all(b"\x05\x00\x05\x00\x00\x03\xff").await;
            while stream.write_all(FLOOD).await.is_ok() {}
        }
        _ => {
            let _ = stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 999999999999\r\n\r\n")
                .await;
            while stream.write_all(FLOOD).await.is_ok() {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_flood_and_lie_are_found_out_and_cost_nothing() {
    let sandbox = exitgate_testnet::Sandbox::claim().unwrap();
    let mut lines = String::new();
    for kind in 1..=8_u8 {
        let addr: SocketAddr = (sandbox.ip(70, kind), 3128).into();
        let listener = TcpListener::bind(addr).await.unwrap();
        for scheme in ["http", "socks4", "socks5"] {
            // A login with line breaks in it, for the head of the next hop.
            lines.push_str(&format!("{scheme}://u%0d%0aX-Evil%3a1:p%0d%0aq@{addr}\n"));
        }
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(misbehave(kind, stream));
            }
        });
    }
    let list: &'static str = lines.leak();
    let server = serve(sandbox.ip(71, 1), move |mut stream, _| async move {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let server = server.await;
    let page = format!("http://{}", SocketAddr::from((sandbox.ip(72, 1), 80)));
    let more = format!(
        "gateway.allow_private_targets = true\ncheck.public.echo = [\"{page}/ip\", \"{page}/ip2\"]\n\
         check.public.headers = \"{page}/headers\"\ncheck.public.timeout = \"3s\"\n\
         check.public.reply_timeout = \"2s\"\n\n[[sources.list]]\nname = \"evil\"\nurl = \"http://{server}/list\"\n"
    );
    let victim = Victim::start_in(sandbox, &more, &[]).await;
    let before = victim.memory();
    let counted = |body: &str, name: &str| {
        serde_json::from_str::<serde_json::Value>(body).unwrap_or_default()[name].as_u64().unwrap_or_default()
    };
    let got = until(|| victim.gateway.api("/stats"), |got| counted(&got.body, "failed_proxies") >= 24).await;
    assert_eq!(counted(&got.body, "total_proxies"), 24, "{}", got.body);
    assert_eq!((counted(&got.body, "failed_proxies"), counted(&got.body, "working_proxies")), (24, 0), "{}", got.body);
    let grown = victim.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    victim.is_unharmed().await;
    // A login of a list is nobody's business, here or in the log.
    let shown = victim.gateway.api("/exits").await.body;
    assert!(!shown.contains("X-Evil") && !victim.gateway.log().contains("X-Evil"), "{shown}");
}
