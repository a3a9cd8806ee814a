//! Tunnels without a runtime: the client's side of three ways to open one, as bytes to send and bytes to wait for.
//!
//! Nothing is sent ahead of the answer that it depends on: a client that pipelines its handshake would hide a round trip that
//! every real client pays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What one tunnel echoes.
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// How long [`open`] waits for a piece of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How a server is asked for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SOCKS5 without authentication.
    Socks5,
    /// HTTP CONNECT.
    Http,
    /// The server relays to a fixed target and is not asked.
    Plain,
}

/// Bytes to send, and how to know that their answer is complete.
#[derive(Clone, Debug)]
pub struct Step {
    pub send: Vec<u8>,
    pub until: Until,
}

/// When an answer is complete.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many bytes, the second of which is 0 where `ok` says so.
    Bytes { len: usize, ok: bool },
    /// After the blank line of an HTTP head with status 200.
    Head,
}

impl Until {
    /// `Some(true)`: complete and good. `Some(false)`: complete and a refusal. `None`: more is to come.
    pub fn met(self, got: &[u8]) -> Option<bool> {
        match self {
            Self::Bytes { len, ok } => (got.len() >= len).then(|| got.len() == len && (!ok || got[1] == 0)),
            Self::Head => got.ends_with(b"\r\n\r\n").then(|| got.get(9..12) == Some(b"200")),
        }
    }
}

/// The steps until a server of this kind has opened a tunnel to `target`, which must be IPv4.
pub fn handshake(kind: Kind, target: SocketAddr) -> Vec<Step> {
    let SocketAddr::V4(v4) = target else { unreachable!("the target listens on 127.0.0.1") };
    match kind {
        Kind::Plain => Vec::new(),
        Kind::Http => {
            let send = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
            vec![Step { send, until: Until::Head }]
        }
        Kind::Socks5 => {
            let mut connect = vec![5, 1, 0, 1];
            connect.extend(v4.ip().octets());
            connect.extend(v4.port().to_be_bytes());
            vec![
                Step { send: vec![5, 1, 0], until: Until::Bytes { len: 2, ok: true } },
                Step { send: connect, until: Until::Bytes { len: 10, ok: true } },
            ]
        }
    }
}

/// Opens a tunnel through `server`.
pub fn open(kind: Kind, server: SocketAddr, target: SocketAddr) -> Result<TcpStream, String> {
    let fault = |fault: std::io::Error| fault.to_string();
    let mut stream = TcpStream::connect(server).map_err(fault)?;
    stream.set_nodelay(true).map_err(fault)?;
    stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(fault)?;
    for step in handshake(kind, target) {
        stream.write_all(&step.send).map_err(fault)?;
        let mut got = Vec::new();
        let good = loop {
            let mut byte = [0];
            if stream.read(&mut byte).map_err(fault)? == 0 {
                return Err(format!("closed after {got:?}"));
            }
            got.push(byte[0]);
            if let Some(good) = step.until.met(&got) {
                break good;
            }
        };
        if !good {
            return Err(format!("refused: {:?}", String::from_utf8_lossy(&got)));
        }
    }
    Ok(stream)
}

/// Sends [`PAYLOAD`] and waits until it has come back.
pub fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&PAYLOAD)?;
    stream.read_exact(&mut PAYLOAD.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_good_or_a_refusal() {
        let target = "127.0.0.1:80".parse().unwrap();
        let reply = handshake(Kind::Socks5, target)[1].until;
        assert_eq!(reply.met(&[5, 0, 0, 1]), None);
        assert_eq!(reply.met(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Some(true));
        assert_eq!(reply.met(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]), Some(false));
        let head = handshake(Kind::Http, target)[0].until;
        assert_eq!(head.met(b"HTTP/1.1 200 OK\r\n\r\n"), Some(true));
        assert_eq!((head.met(b"HTTP/1.1 502 No\r\n\r\n"), head.met(b"HTTP/1.1 200 OK\r\n")), (Some(false), None));
        assert!(handshake(Kind::Plain, target).is_empty());
    }
}
