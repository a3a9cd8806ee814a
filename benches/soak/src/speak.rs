//! The little HTTP that the soak speaks itself, so that nothing of the gateway's own code stands on both sides.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer's status and headers, names in lower case.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HashMap<String, String>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One request to the API over a fresh connection.
pub async fn ask_api(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let host = stream.peer_addr()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    let body = read_body(&mut stream, &head).await?;
    Ok((head.status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// `GET` of an absolute URL through an HTTP proxy.
pub async fn get_through(proxy: SocketAddr, login: &str, url: &str) -> anyhow::Result<(Head, Vec<u8>)> {
    let mut stream = TcpStream::connect(proxy).await?;
    let host = url.split('/').nth(2).unwrap_or_default();
    let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{login}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    let body = read_body(&mut stream, &head).await?;
    Ok((head, body))
}

/// A tunnel through an HTTP proxy, and what its answer said.
pub async fn connect(proxy: SocketAddr, login: &str, target: &str) -> anyhow::Result<(Head, TcpStream)> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    Ok((head, stream))
}

/// The header line that says who one is.
pub fn login(username: &str) -> String {
    format!("Proxy-Authorization: Basic {}\r\n", base64(format!("{username}:x").as_bytes()))
}

async fn read_head(stream: &mut TcpStream) -> anyhow::Result<Head> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 64 * 1024, "a head without end");
        head.push(stream.read_u8().await.context("closed before the answer's head was whole")?);
    }
    let text = String::from_utf8(head)?;
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Head { status, headers: lines.filter_map(header).collect() })
}

/// A body that ends where its length, its last chunk or the connection says.
async fn read_body(stream: &mut TcpStream, head: &Head) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = head.get("content-length") {
        body.resize(length.parse()?, 0);
        stream.read_exact(&mut body).await.context("closed before the body was whole")?;
    } else if head.get("transfer-encoding") == Some("chunked") {
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
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_basic() {
        assert_eq!(login("us"), "Proxy-Authorization: Basic dXM6eA==\r\n");
        assert_eq!((base64(b"abc"), base64(b"a"), base64(b"")), ("YWJj".into(), "YQ==".into(), String::new()));
    }
}
