//! Tests of the connection against a simulated tor that sends prepared answers over a pair of sockets.

use std::future::Future;

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::*;
use crate::lifecycle::Lifecycle;
use crate::tor::control::commands::extended;
use crate::tor::event::{CircuitId, EndReason, StreamId};

/// Returns a logged-in connection and the other end of its socket pair.
fn pair() -> (Control, Events, BufReader<UnixStream>, Lifecycle) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let life = Lifecycle::new();
    let (control, events) = Control::over(Socket::Unix(ours), &life.tasks());
    (control, events, BufReader::new(theirs), life)
}

async fn heard(tor: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    tor.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

async fn say(tor: &mut BufReader<UnixStream>, text: &str) {
    tor.get_mut().write_all(text.as_bytes()).await.unwrap();
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), work).await.expect("took too long")
}

#[tokio::test]
async fn answers_come_in_the_order_of_asking_whatever_events_come_between() {
    let (control, mut events, mut tor, _life) = pair();
    let first = control.start(&Command::new("GETINFO").arg("version"));
    let second = control.attach_stream(StreamId(7), Some(CircuitId(3)));
    let third = control.close_stream(StreamId(9), EndReason::Timeout);
    assert_eq!(within(heard(&mut tor)).await, "GETINFO version");
    assert_eq!(within(heard(&mut tor)).await, "ATTACHSTREAM 7 3");
    assert_eq!(within(heard(&mut tor)).await, "CLOSESTREAM 9 7");
    say(&mut tor, "650 BW 1 2\r\n250-version=0.4.9.11\r\n250 OK\r\n650 BW 3 4\r\n552 Unknown circuit\r\n250 OK\r\n")
        .await;
    assert_eq!(within(third.wait()).await.map(|reply| reply.code()), Ok(250));
    let refused = ControlError::Refused { verb: "ATTACHSTREAM", code: 552, text: "Unknown circuit".into() };
    assert_eq!(within(second.wait()).await, Err(refused));
    assert_eq!(within(first.wait()).await.unwrap().value("version"), Some("0.4.9.11"));
    for (read, written) in [(1, 2), (3, 4)] {
        assert_eq!(within(events.next()).await, Some(Incoming::Event(Event::Bw { read, written })));
    }
}

#[tokio::test]
async fn an_answer_can_keep_its_place_among_the_events() {
    let (control, mut events, mut tor, _life) = pair();
    let relay = "F5C688BE508553C516E3A1AE96955F380AC31EDF".parse().unwrap();
    control.extend_circuit(&[relay, relay], 77).unwrap();
    assert_eq!(within(heard(&mut tor)).await, format!("EXTENDCIRCUIT 0 ${relay},${relay} purpose=controller"));
    say(&mut tor, "650 BW 1 1\r\n250 EXTENDED 12\r\n650 BW 2 2\r\n").await;
    assert_eq!(within(events.next()).await, Some(Incoming::Event(Event::Bw { read: 1, written: 1 })));
    let Some(Incoming::Answer { tag: 77, result: Ok(reply) }) = within(events.next()).await else { panic!() };
    assert_eq!(extended(&reply), Some(CircuitId(12)));
    assert_eq!(within(events.next()).await, Some(Incoming::Event(Event::Bw { read: 2, written: 2 })));
}

#[tokio::test]
async fn when_tor_goes_everybody_who_waits_is_told() {
    let (control, mut events, mut tor, _life) = pair();
    let waiting = control.start(&Command::new("GETINFO").arg("version"));
    control.submit(&Command::new("EXTENDCIRCUIT"), 5).unwrap();
    within(heard(&mut tor)).await;
    drop(tor);
    assert!(matches!(within(waiting.wait()).await, Err(ControlError::Closed | ControlError::Io(_))));
    assert!(matches!(within(events.next()).await, Some(Incoming::Answer { tag: 5, result: Err(_) })));
    assert!(control.is_closed());
    assert!(within(control.command(&Command::new("GETINFO"))).await.is_err());
    // The stream of events ends although the test still holds a handle to the connection.
    assert_eq!(within(events.next()).await, None);
    assert_eq!(within(events.next()).await, None);
    drop(control);
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    let (control, _events, mut tor, _life) = pair();
    let waiting = control.start(&Command::new("GETINFO").arg("version"));
    say(&mut tor, "HTTP/1.1 400 Bad Request\r\n").await;
    assert_eq!(within(waiting.wait()).await, Err(ControlError::Reply(ReplyError::NotAReply)));
}

#[tokio::test(start_paused = true)]
async fn a_tor_that_hangs_costs_a_deadline_and_a_late_answer_harms_nobody() {
    let (control, _events, mut tor, _life) = pair();
    let slow = control.command(&Command::new("GETINFO").arg("version")).await;
    assert_eq!(slow, Err(ControlError::Deadline { verb: "GETINFO" }));
    let next = control.start(&Command::new("SIGNAL").arg("ACTIVE"));
    say(&mut tor, "250-version=late\r\n250 OK\r\n250 second\r\n").await;
    assert_eq!(next.wait().await.unwrap().text(), "second");
}

#[tokio::test]
async fn what_the_socket_does_not_take_at_once_is_sent_later_and_in_order() {
    let (control, _events, mut tor, _life) = pair();
    let count = 20_000;
    let asked: Vec<_> = (0..count).map(|n| control.start(&Command::new("PING").arg(n))).collect();
    let script = async {
        for n in 0..count {
            assert_eq!(heard(&mut tor).await, format!("PING {n}"));
            say(&mut tor, &format!("250 {n}\r\n")).await;
        }
    };
    let reader = async {
        for (n, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.wait().await.unwrap().text(), n.to_string());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(script, reader) }).await.unwrap();
}

#[tokio::test]
async fn no_argument_ends_its_line() {
    let (control, _events, mut tor, _life) = pair();
    for evil in ["x\r\nSIGNAL SHUTDOWN", "x\nSIGNAL SHUTDOWN", "x\0"] {
        let refused = control.command(&Command::new("GETINFO").arg(evil)).await;
        assert_eq!(refused, Err(ControlError::BadArgument { verb: "GETINFO" }), "{evil:?}");
    }
    let quoted = control.start(&Command::new("SETCONF").pair("Nickname", "a\r\nSIGNAL SHUTDOWN \"\\"));
    assert_eq!(within(heard(&mut tor)).await, r#"SETCONF Nickname="a\r\nSIGNAL SHUTDOWN \"\\""#);
    drop(quoted);
}

/// Logs in to a simulated tor that offers SAFECOOKIE. `honest` is true if this tor knows the cookie.
async fn safecookie(cookie: [u8; 32], honest: bool) -> (Result<(), ControlError>, Option<String>) {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let (control, _events, mut tor, _life) = pair();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cookie");
    std::fs::write(&path, cookie).unwrap();
    let login = async { control.log_in(&Auth::Offered).await };
    let script = async {
        heard(&mut tor).await;
        let path = path.display();
        say(
            &mut tor,
            &format!("250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"{path}\"\r\n250 OK\r\n"),
        )
        .await;
        let challenge = heard(&mut tor).await;
        let nonce = challenge.strip_prefix("AUTHCHALLENGE SAFECOOKIE ").unwrap();
        let nonce: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&nonce[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let known = if honest { cookie } else { [0; 32] };
        let key = b"Tor safe cookie authentication server-to-controller hash";
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
        mac.update(&[&known[..], &nonce, &[1, 2]].concat());
        let hash: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        say(&mut tor, &format!("250 AUTHCHALLENGE SERVERHASH={hash} SERVERNONCE=0102\r\n")).await;
        if !honest {
            return None;
        }
        let proof = heard(&mut tor).await;
        say(&mut tor, "250 OK\r\n").await;
        Some(proof)
    };
    within(async { tokio::join!(login, script) }).await
}

#[tokio::test]
async fn safecookie_proves_itself_and_asks_for_proof() {
    let (result, proof) = safecookie([7; 32], true).await;
    assert_eq!(result, Ok(()));
    assert_eq!(proof.unwrap().len(), "AUTHENTICATE ".len() + 64);
    assert_eq!(safecookie([7; 32], false).await.0, Err(ControlError::Impostor));
}

#[tokio::test]
async fn logs_in_by_what_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, [b'k'; 32]).unwrap();
    let asks_for_it = format!("COOKIE COOKIEFILE=\"{}\"", secret.display());
    let shown = format!("AUTHENTICATE {}", "6b".repeat(32));
    for (methods, auth, sent) in [
        // The program at the control port must not choose which file we send to it.
        (&*asks_for_it, Auth::Offered, None),
        ("COOKIE", Auth::CookieFile(secret.clone()), Some(&*shown)),
        ("NULL", Auth::Offered, Some("AUTHENTICATE")),
        ("HASHEDPASSWORD", Auth::Password(crate::net::Secret::new("a \"b\"")), Some(r#"AUTHENTICATE "a \"b\"""#)),
        ("HASHEDPASSWORD", Auth::Offered, None),
        ("COOKIE", Auth::Password(crate::net::Secret::new("x")), None),
        ("COOKIE,SAFECOOKIE", Auth::CookieFile("/nonexistent".into()), None),
    ] {
        let (control, _events, mut tor, _life) = pair();
        let script = async {
            heard(&mut tor).await;
            say(&mut tor, &format!("250-PROTOCOLINFO 1\r\n250-AUTH METHODS={methods}\r\n250 OK\r\n")).await;
            if let Some(sent) = sent {
                assert_eq!(heard(&mut tor).await, sent);
                say(&mut tor, "250 OK\r\n").await;
            }
        };
        let (result, ()) = within(async { tokio::join!(control.log_in(&auth), script) }).await;
        assert_eq!(result.is_ok(), sent.is_some(), "{methods}: {result:?}");
    }
}

proptest! {
    #[test]
    fn a_command_is_one_line_or_refuses(arg in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", key in "[A-Z]{1,8}", value in "[\\x00-\\x7f]{0,40}") {
        let command = Command::new("X").arg(&arg).pair(&key, &value);
        let bytes = command.encode();
        let inner = &bytes[..bytes.len() - 2];
        prop_assert!(command.broken || !inner.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        prop_assert!(!Command::new("X").pair(&key, &value).broken);
    }
}
