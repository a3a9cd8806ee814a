//! One request through the gateway, as a scraper sends it, and what it came to.
//!
//! Plain HTTP through the shared port: the answer's fields name the exit, and the fake web's page names the address that it
//! saw, so that each answer can be held against the other. Spoken here rather than with the gateway's own code, which must
//! not stand on both sides of a measurement.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The longest head of an answer that is read.
const HEAD: usize = 64 * 1024;

/// What a request came to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 if there was no answer at all.
    pub status: u16,
    /// The address that the web saw; none if the page does not say.
    pub seen: Option<IpAddr>,
    /// The exit, as the gateway names it.
    pub exit: String,
    /// The address of that exit, as the gateway names it.
    pub exit_ip: Option<IpAddr>,
    /// What the gateway says of a session that moved.
    pub moved: Option<String>,
    /// Why it failed, in the gateway's words or in ours.
    pub error: String,
    /// From the first byte of the request to the first byte of the answer.
    pub first: Duration,
    /// To the last byte of the answer.
    pub whole: Duration,
    /// Bytes of the body.
    pub bytes: usize,
    /// True if it took longer than the longest time that the gateway may take.
    pub hung: bool,
}

impl Answer {
    /// Whether the page arrived.
    pub fn served(&self) -> bool {
        self.status == 200 && self.error.is_empty()
    }

    /// Whether the web saw another address than the gateway says. Must never happen.
    pub fn wrong_exit(&self) -> bool {
        self.served() && self.seen.is_some() && self.exit_ip.is_some() && self.seen != self.exit_ip
    }
}

/// Asks for a page in the clear through the proxy at `proxy`, with this username; gives up at `patience`.
pub async fn get(proxy: SocketAddr, username: &str, url: &str, patience: Duration) -> Answer {
    let began = Instant::now();
    let mut answer = Answer::default();
    match timeout(patience, exchange(proxy, username, url, began, &mut answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => answer.error = format!("{error:#}"),
        Err(_) => {
            answer.hung = true;
            answer.error = format!("no whole answer within {} s", patience.as_secs());
        }
    }
    answer.whole = began.elapsed();
    if answer.first.is_zero() {
        answer.first = answer.whole;
    }
    answer
}

async fn exchange(
    proxy: SocketAddr,
    username: &str,
    url: &str,
    began: Instant,
    answer: &mut Answer,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(proxy).await.context("the gateway takes no connection")?);
    let host = url.split('/').nth(2).unwrap_or_default();
    let login = base64(format!("{username}:x").as_bytes());
    let request = format!(
        "GET {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic {login}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (status, fields) = head(&mut stream, || answer.first = began.elapsed()).await?;
    let field = |name: &str| fields.get(name).cloned();
    answer.status = status;
    answer.exit = field("x-exitgate-exit").unwrap_or_default();
    answer.exit_ip = field("x-exitgate-exit-ip").and_then(|ip| ip.parse().ok());
    answer.moved = field("x-exitgate-moved");
    if status >= 400 {
        answer.error = field("x-exitgate-error").unwrap_or_else(|| format!("status {status}"));
    }
    let body = body(&mut stream, &fields).await?;
    answer.bytes = body.len();
    answer.seen = std::str::from_utf8(&body).ok().and_then(|text| text.trim().parse().ok());
    Ok(())
}

/// One request to the gateway's API: its status and its body as JSON, null where it is none.
pub async fn api(at: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
    let (status, bytes) = raw(at, method, path, body).await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// The same, with the body as it comes.
pub async fn raw(at: SocketAddr, method: &str, path: &str, asked: Option<&Value>) -> anyhow::Result<(u16, Vec<u8>)> {
    let asked = asked.map(Value::to_string).unwrap_or_default();
    let mut stream = BufReader::new(TcpStream::connect(at).await?);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{asked}",
        asked.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let (status, fields) = head(&mut stream, || {}).await?;
    Ok((status, body(&mut stream, &fields).await?))
}

async fn head(
    stream: &mut BufReader<TcpStream>,
    mut at_first: impl FnMut(),
) -> anyhow::Result<(u16, HashMap<String, String>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD, "a head without end");
        head.push(stream.read_u8().await.context("closed before the answer's head was whole")?);
        if head.len() == 1 {
            at_first();
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok((status, lines.filter_map(field).collect()))
}

/// A body that ends where its length, its last chunk or the connection says.
async fn body(stream: &mut BufReader<TcpStream>, fields: &HashMap<String, String>) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = fields.get("content-length") {
        body.resize(length.parse()?, 0);
        stream.read_exact(&mut body).await.context("closed before the body was whole")?;
    } else if fields.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut size = Vec::new();
            while !size.ends_with(b"\r\n") {
                size.push(stream.read_u8().await.context("closed within the body")?);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&size)?.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.context("closed within a chunk")?;
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        stream.read_to_end(&mut body).await?;
    }
    Ok(body)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |place: usize| DIGITS[(word >> (18 - 6 * place)) as usize & 63] as char;
        text.extend((0..4).map(|place| if place <= chunk.len() { digit(place) } else { '=' }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_is_sent_as_a_basic_login() {
        assert_eq!((base64(b"us:x"), base64(b"ab"), base64(b"a")), ("dXM6eA==".into(), "YWI=".into(), "YQ==".into()));
    }

    #[test]
    fn an_answer_is_wrong_when_the_web_saw_another_address() {
        let one = Some(IpAddr::from([127, 1, 1, 10]));
        let answer = Answer { status: 200, seen: one, exit_ip: one, ..Answer::default() };
        assert!(answer.served() && !answer.wrong_exit());
        assert!(Answer { exit_ip: Some(IpAddr::from([127, 1, 1, 11])), ..answer.clone() }.wrong_exit());
        assert!(!Answer { status: 504, error: "late".into(), ..answer }.served());
    }
}
