//! A target's answer with any bytes: what the client gets has the same end, and no forged `X-Exitgate-…` header.
use exitgate::gateway::http::framing::Version;
use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::response::{Asked, Response};

/// Runs one input. Its first byte says which request the answer is for.
pub fn run(input: &[u8]) {
    let (first, bytes) = super::cut(input);
    let (head, old) = (first & 1 == 1, first & 2 == 2);
    let version = if old { Version::Old } else { Version::Current };
    let asked = Asked { head, version, upgrade: true };
    let Ok(Some(length)) = Scan::default().end(bytes) else { return };
    let Ok(answer) = Response::parse(&bytes[..length], asked) else { return };
    assert!(Response::may_begin(&bytes[..length]));
    let mut sent = Vec::new();
    answer.write(&mut sent);
    sent.extend_from_slice(b"\r\n");
    assert_eq!(Scan::default().end(&sent), Ok(Some(sent.len())));
    let again = Response::parse(&sent, asked).expect("what is sent is an answer");
    assert_eq!((again.status, again.body), (answer.status, answer.body));
    assert!(!sent.to_ascii_lowercase().windows(13).any(|start| start == b"\r\nx-exitgate-"));
}
