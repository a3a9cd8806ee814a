//! Those who ask and do not listen, and those who begin and do not end: others are served all the same.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{STRAIGHT, Victim, head, serve, status, talk};

/// Clients that never read.
const DEAF: usize = 200;

/// What each of them may cost, KiB: the kernel holds what is on its way, and a relay's buffers are small. Measured
/// when this was written: 40 to 60.
const EACH: u64 = 128;

/// A connection with as small a window as the kernel gives.
async fn deaf(to: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_cost_little_and_keep_nobody_out() {
    let victim = Victim::start("gateway.allow_private_targets = true\ngateway.client_limits.connections = 0").await;
    // Never ends, as fast as it is taken, in either framing.
    let endless = serve(victim.sandbox.ip(60, 1), |mut stream, asked| async move {
        let chunked = asked.contains("/chunked");
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 999999999999" };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await;
        let piece = [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
        while stream.write_all(if chunked { &piece[..] } else { &piece[7..65543] }).await.is_ok() {}
    });
    let short = serve(victim.sandbox.ip(60, 2), |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    });
    let (endless, short) = (endless.await, short.await);
    let before = victim.memory();
    let mut held = Vec::new();
    for at in 0..DEAF {
        let mut stream = deaf(victim.shared()).await;
        let line = match at % 3 {
            0 => format!("GET http://{endless}/plain"),
            1 => format!("GET http://{endless}/chunked"),
            _ => format!("CONNECT {endless}"),
        };
        stream.write_all(head(&line, STRAIGHT, "x").as_bytes()).await.unwrap();
        if at % 3 == 2 {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        // It has begun, and now nobody listens any more.
        stream.read_exact(&mut [0; 12]).await.unwrap();
        held.push(stream);
    }
    for _ in 0..20 {
        let begun = Instant::now();
        let answer = talk(victim.shared(), head(&format!("GET http://{short}/"), STRAIGHT, "x").as_bytes()).await;
        assert!(status(&answer) == 200 && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let each = victim.memory().saturating_sub(before) / DEAF as u64;
    assert!(each < EACH, "{each} KiB for each client that does not read");
    drop(held);
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_gives_its_place_in_the_api_back() {
    let victim = Victim::start("").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(victim.api()).await.unwrap();
        let request = "POST /proxies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                       Content-Length: 60000\r\nConnection: close\r\n\r\n{";
        stream.write_all(request.as_bytes()).await.unwrap();
        held.push(stream);
    }
    assert_eq!(victim.gateway.api("/health").await.status, 200);
    for mut stream in held {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(super::ANSWERED, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "it is waited for without end");
        assert_eq!(status(&answer), 408, "{}", answer.escape_ascii());
    }
}
