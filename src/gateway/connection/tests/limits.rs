//! Tests that a connection is counted for the limits of its client as long as it uses the gateway.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::gateway::testing::{FACTS, Script, expect, head, listener, rest, talk};
use crate::limit::Account;

#[tokio::test(start_paused = true)]
async fn a_tunnel_counts_for_the_limits_until_it_ends() {
    let connect = format!("HTTP/1.1 200 Connection established\r\n{FACTS}\r\n");
    let upgrade = format!("HTTP/1.1 101 Go\r\nUpgrade: ws\r\nConnection: Upgrade\r\n{FACTS}\r\n");
    let asked = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: ws\r\n\r\n";
    let accepted = "HTTP/1.1 101 Go\r\nUpgrade: ws\r\nConnection: Upgrade\r\n\r\n";
    // The client's request, the request at the target, the target's answer, and the answer at the client.
    let tunnels: [[&[u8]; 4]; 5] = [
        [b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", b"", b"", connect.as_bytes()],
        [b"\x04\x01\x00\x50\0\0\0\x01us\0a.test\0", b"", b"", b"\0\x5a\0\0\xc0\0\x02\x07"],
        [b"\x05\x01\x00\x05\x01\x00\x03\x06a.test\x00\x50", b"", b"", b"\x05\0\x05\0\0\x01\xc0\0\x02\x07\0\0"],
        [
            b"\x05\x01\x02\x01\x02us\x01k\x05\x01\x00\x03\x06a.test\x00\x50",
            b"",
            b"",
            b"\x05\x02\x01\0\x05\0\0\x01\xc0\0\x02\x07\0\0",
        ],
        [
            b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: ws\r\n\r\n",
            asked.as_bytes(),
            accepted.as_bytes(),
            upgrade.as_bytes(),
        ],
    ];
    for [request, sent, answer, reply] in tunnels {
        let shown = request.escape_ascii();
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(request).await.unwrap();
            expect(&mut target, sent).await;
            target.write_all(answer).await.unwrap();
            expect(&mut client, reply).await;
            client.write_all(b"up").await.unwrap();
            expect(&mut target, b"up").await;
            target.write_all(b"down").await.unwrap();
            expect(&mut client, b"down").await;
            assert_eq!(gate.admitted(), 1, "while the tunnel is open: {shown}");
            // The client has closed its direction, and the target still sends.
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut target).await, "");
            target.write_all(b"more").await.unwrap();
            expect(&mut client, b"more").await;
            assert_eq!(gate.admitted(), 1, "while the tunnel is half closed: {shown}");
            drop((client, target));
        })
        .await;
        assert_eq!(gate.admitted(), 0, "after the tunnel: {shown}");
    }
}

/// A client whose limit is one connection must be able to send its next request on the connection that it keeps.
#[tokio::test(start_paused = true)]
async fn a_kept_connection_counts_only_while_it_serves_a_request() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        for _ in 0..2 {
            client.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            expect(&mut target, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            assert_eq!(gate.admitted(), 1, "during a request");
            target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            expect(&mut client, format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{FACTS}\r\nok")).await;
            tokio::task::yield_now().await;
            assert_eq!(gate.admitted(), 0, "between two requests");
        }
        drop((client, target));
    })
    .await;
}

/// The client gets the status 429 while it has received nothing of the answer. After that, the answer breaks off.
#[tokio::test(start_paused = true)]
async fn a_plain_request_stops_at_the_last_byte_of_a_budget() {
    const SENT: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for budget in [10, SENT.len(), SENT.len() + 20] {
        let (gate, [mut target]) = Script::targets();
        let account = Account::limited(budget as u64);
        let gate = Arc::new(gate.with_spend(account.spend("direct")));
        talk(listener(), &gate, async |mut client| {
            client.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            expect(&mut target, &SENT[..SENT.len().min(budget)]).await;
            if budget >= SENT.len() {
                target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
            if budget <= SENT.len() {
                let refused = head(&mut client).await;
                assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
            } else {
                assert_eq!(rest(&mut client).await, "HTTP/1.1 200 OK\r\nCon");
            }
            drop((client, target));
        })
        .await;
    }
}
