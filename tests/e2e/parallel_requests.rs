//! Sends many requests in parallel by the three protocols. The client side uses none of the gateway's code.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exitgate_testnet::fetch::{SocksRefusal, socks5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The protocols; [`send_many`] uses them in this order, again and again.
pub const WAYS: [Way; 3] = [Way::Socks5, Way::Connect, Way::Plain];

/// Deadline of one request: longer than the gateway's own deadlines, so that its error arrives first.
const PATIENCE: Duration = Duration::from_secs(45);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Socks5,
    Connect,
    Plain,
}

/// What one request came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status, and the address that the site saw; or why there is none, as the client was told.
    pub seen: Result<String, String>,
    /// The exit that the gateway named, where the protocol lets it.
    pub named: Option<String>,
    /// From the first byte sent to the first byte of the site's answer.
    pub first_byte: Duration,
}

/// Whom to ask, through which port, and as whom (SOCKS alone says that: the others go through a route's own port).
#[derive(Clone, Debug)]
pub struct Ask {
    pub at: SocketAddr,
    pub user: Option<String>,
    pub host: String,
    pub port: u16,
}

impl Ask {
    pub async fn by(&self, way: Way) -> Answer {
        let began = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, self.text(way, began)).await;
        match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("silence"))) {
            Ok((text, first_byte)) => {
                Answer { seen: body(&text), named: header(&text, "x-exitgate-exit-ip"), first_byte }
            }
            Err(error) => {
                let refused = error.downcast_ref::<SocksRefusal>().map(|refusal| format!("socks {}", refusal.0));
                let seen = Err(refused.unwrap_or_else(|| format!("{error:#}")));
                Answer { seen, named: None, first_byte: began.elapsed() }
            }
        }
    }

    /// Everything that the gateway and the site said, and when the site began.
    async fn text(&self, way: Way, began: Instant) -> anyhow::Result<(String, Duration)> {
        let Self { at, user, host, port } = self;
        let (mut stream, target) = match way {
            Way::Socks5 => {
                let login = user.as_deref().map(|user| (user, "key"));
                (socks5(*at, login, host, *port).await?, "/ip".to_owned())
            }
            Way::Connect => (TcpStream::connect(at).await?, "/ip".to_owned()),
            Way::Plain => (TcpStream::connect(at).await?, format!("http://{host}:{port}/ip")),
        };
        let mut text = String::new();
        if way == Way::Connect {
            let line = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
            stream.write_all(line.as_bytes()).await?;
            text = head(&mut stream).await?;
            if !text.starts_with("HTTP/1.1 200") {
                return Ok((text, began.elapsed()));
            }
        }
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        let first_byte = began.elapsed();
        text.push(first[0].into());
        stream.read_to_string(&mut text).await?;
        Ok((text, first_byte))
    }
}

async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// The site's answer is the last one; an answer of the gateway's own that is no 200 is the only one.
fn body(text: &str) -> Result<String, String> {
    let last = text.rfind("HTTP/1.1 ").map_or(text, |at| &text[at..]);
    let (head, body) = last.split_once("\r\n\r\n").unwrap_or((last, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(body.to_owned());
    }
    let why = header(head, "x-exitgate-error").unwrap_or_else(|| "no reason given".to_owned());
    Err(format!("{status} {why}"))
}

fn header(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// `count` requests, `at_once` at a time, each by `way` of its number.
pub async fn send_many(ask: &Ask, count: usize, at_once: usize, way: impl Fn(usize) -> Way) -> Vec<Answer> {
    let (ask, places) = (Arc::new(ask.clone()), Arc::new(Semaphore::new(at_once)));
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let (ask, way, place) = (ask.clone(), way(n), places.clone().acquire_owned().await.unwrap());
        tasks.spawn(async move {
            let _place = place;
            ask.by(way).await
        });
    }
    tasks.join_all().await
}

/// How often each address was seen; fails where a request failed, or the gateway named another exit than the site saw.
pub fn tally(answers: &[Answer]) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for answer in answers {
        let ip = answer.seen.as_ref().unwrap_or_else(|why| panic!("a request failed: {why}"));
        assert!(answer.first_byte < PATIENCE, "nobody waits so long: {answer:?}");
        assert!(answer.named.as_ref().is_none_or(|named| named == ip), "{answer:?}");
        *seen.entry(ip.clone()).or_insert(0) += 1;
    }
    seen
}
