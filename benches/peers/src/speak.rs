//! The client's side of the three ways to ask for a tunnel, as bytes to say and bytes to wait for.
//!
//! Nothing is said ahead of the answer that it depends on: a client that pipelines its handshake would hide a round
//! trip that every real client pays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::server::{Kind, Server};

/// What one tunnel echoes.
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// One thing to say and how to know that its answer is complete.
#[derive(Clone, Debug)]
pub struct Step {
    /// The bytes to send.
    pub say: Vec<u8>,
    /// When the answer is whole.
    pub until: Until,
}

/// When an answer is whole.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many bytes, the second of which is 0 where `ok` says so.
    Bytes { len: usize, ok: bool },
    /// After the blank line of an HTTP head that says 200.
    Head,
}

impl Until {
    /// `Some(true)` = whole and good, `Some(false)` = whole and a refusal, `None` = more is to come.
    pub fn met(self, got: &[u8]) -> Option<bool> {
        match self {
            Self::Bytes { len, ok } => (got.len() >= len).then(|| got.len() == len && (!ok || got[1] == 0)),
            Self::Head => got.ends_with(b"\r\n\r\n").then(|| got.get(9..12) == Some(b"200")),
        }
    }
}

/// What must be said to `kind` until it has opened a tunnel to `target`.
pub fn handshake(kind: Kind, target: SocketAddr) -> Vec<Step> {
    let SocketAddr::V4(v4) = target else { unreachable!("the target listens on 127.0.0.1") };
    match kind {
        Kind::Plain => Vec::new(),
        Kind::Http => {
            let say = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
            vec![Step { say, until: Until::Head }]
        }
        Kind::Socks5 => {
            let mut connect = vec![5, 1, 0, 1];
            connect.extend(v4.ip().octets());
            connect.extend(v4.port().to_be_bytes());
            vec![
                Step { say: vec![5, 1, 0], until: Until::Bytes { len: 2, ok: true } },
                Step { say: connect, until: Until::Bytes { len: 10, ok: true } },
            ]
        }
    }
}

/// Opens a tunnel and waits for it.
pub fn open(server: &Server, target: SocketAddr) -> Result<TcpStream, String> {
    let fault = |fault: std::io::Error| fault.to_string();
    let mut stream = TcpStream::connect(server.addr).map_err(fault)?;
    stream.set_nodelay(true).map_err(fault)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(fault)?;
    for step in handshake(server.kind, target) {
        stream.write_all(&step.say).map_err(fault)?;
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

/// What the server says when nobody listens at the target: a success here means that it lies.
pub fn refusal(server: &Server) -> Result<String, String> {
    let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
    match open(server, nobody) {
        Ok(_) => Err("success was said though nobody listens there".into()),
        Err(answer) => Ok(answer),
    }
}
