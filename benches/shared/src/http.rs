//! HTTP/1.1 as a client speaks it: to the API, and through the gateway.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 64 * 1024;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One request to a server, over a connection of its own.
pub async fn ask(server: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    exchange(server, &format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{headers}\r\n{body}"))
        .await
}

/// `GET` of an absolute URL through an HTTP proxy. An empty username sends no login.
pub async fn get_through(proxy: SocketAddr, username: &str, url: &str) -> anyhow::Result<Response> {
    let (host, login) = (url.split('/').nth(2).unwrap_or_default(), login(username));
    exchange(proxy, &format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{login}Connection: close\r\n\r\n")).await
}

async fn exchange(server: SocketAddr, request: &str) -> anyhow::Result<Response> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    read(&mut stream).await
}

/// Opens a tunnel to `target` (`host:port`) through an HTTP proxy.
pub async fn connect(proxy: SocketAddr, username: &str, target: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    let login = login(username);
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the head of the answer is too long");
        head.push(stream.read_u8().await?); // a byte beyond the head belongs to the tunnel
    }
    let answer = parse_head(&head)?;
    ensure!(answer.status == 200, "status {}", answer.status);
    Ok(stream)
}

fn login(username: &str) -> String {
    if username.is_empty() {
        return String::new();
    }
    format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{username}:x")))
}

/// Reads one answer. Its body ends where its length or the connection ends; nothing that the benches ask answers in chunks.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Response> {
    let mut read = Vec::with_capacity(64 * 1024);
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(read.len() < MAX_HEAD, "the head of the answer is too long");
        more(stream, &mut read).await.context("closed before the head of the answer was complete")?;
    };
    let mut answer = parse_head(&read[..end])?;
    ensure!(answer.header("transfer-encoding").is_none(), "the answer comes in chunks");
    answer.body = read.split_off(end);
    if let Some(length) = answer.header("content-length").map(str::parse::<usize>).transpose()? {
        answer.body.reserve(length.saturating_sub(answer.body.len()));
        while answer.body.len() < length {
            more(stream, &mut answer.body).await.context("closed before the body was complete")?;
        }
    } else {
        stream.read_to_end(&mut answer.body).await?;
    }
    Ok(answer)
}

async fn more(stream: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> anyhow::Result<()> {
    ensure!(stream.read_buf(into).await? > 0, "the connection is closed");
    Ok(())
}

fn parse_head(head: &[u8]) -> anyhow::Result<Response> {
    let text = std::str::from_utf8(head)?;
    let mut lines = text.trim_end().split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("the answer has no status")?;
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Response { status, headers: lines.filter_map(header).collect(), body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_basic() {
        assert_eq!((login("us").as_str(), login("").as_str()), ("Proxy-Authorization: Basic dXM6eA==\r\n", ""));
    }

    #[tokio::test]
    async fn a_body_ends_by_its_length_or_with_the_connection() {
        for (answer, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd", Some("abcd")), // one request at a time: nothing follows
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nabcd", Some("abcd")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("nonsense\r\n\r\n", None),
        ] {
            let got = read(&mut answer.as_bytes()).await.ok().map(|answer| answer.text());
            assert_eq!(got.as_deref(), body, "{answer:?}");
        }
    }
}
