//! Asks a running gateway something over its API.
//!
//! Where and with which token: `EXITGATE_URL` and `EXITGATE_TOKEN`, else what the configuration says, else the token that
//! the gateway made for itself under `data_dir`. So the commands work without a word on the machine where it runs.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::secrets::TOKEN_FILE;
use crate::config::Config;

/// How long an answer may take: a rotation is given a minute to find an exit that works.
const DEADLINE: Duration = Duration::from_secs(75);

/// How long an answer that comes in pieces may pause. Arbitrary: longer than the tester waits for a circuit, several times
/// over.
const SILENCE: Duration = Duration::from_secs(300);

/// The longest answer that is read. Arbitrary: the list of some 10,000 exits.
const ANSWER: usize = 64 * 1024 * 1024;

/// Where the API is, and what opens it.
#[derive(Clone)]
pub(super) struct Api {
    base: Uri,
    /// What the `Host` header says. At the configured address that is `localhost`, which every gateway takes for itself;
    /// it may listen on `0.0.0.0`, and that is nobody's name.
    host: String,
    token: Option<String>,
}

impl Api {
    /// `url` and `token` are the environment's, which come before the configuration's.
    fn of(config: &Config, url: Option<String>, token: Option<String>) -> anyhow::Result<Self> {
        let told = url.is_some();
        let own = || config.api.listen.first().map(|addr| format!("http://{addr}"));
        let base = url.or_else(own).context("api.listen names no address")?;
        let base: Uri =
            base.parse().with_context(|| format!("{base:?} is no URL; write EXITGATE_URL=http://host:port"))?;
        if base.scheme_str() != Some("http") {
            bail!("{base}: the API speaks http://; put TLS in front of it and EXITGATE_URL behind that");
        }
        let authority = base.authority().with_context(|| format!("{base} names no host"))?;
        let host = if told { authority.to_string() } else { "localhost".to_owned() };
        let written = || config.api.token.as_ref().map(|token| token.expose().to_owned());
        let token = token.or_else(written).or_else(|| kept(&config.data_dir));
        Ok(Self { base, host, token })
    }

    /// The API that the environment and the configuration name.
    pub(super) fn here(config: &Config) -> anyhow::Result<Self> {
        Self::of(config, env::var("EXITGATE_URL").ok(), env::var("EXITGATE_TOKEN").ok())
    }

    /// What to connect to.
    fn address(&self) -> (&str, u16) {
        (self.base.host().unwrap_or_default().trim_matches(['[', ']']), self.base.port_u16().unwrap_or(80))
    }
}

fn kept(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.join(TOKEN_FILE)).ok().map(|text| text.trim().to_owned())
}

/// One question: the answer's status and JSON.
pub(super) fn ask(config: &Config, method: Method, path: &str) -> anyhow::Result<(StatusCode, Value)> {
    ask_with(config, method, path, None)
}

/// The same, with a body.
pub(super) fn ask_with(
    config: &Config,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(StatusCode, Value)> {
    let api = Api::here(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(api.ask(method, path, body))
}

impl Api {
    /// The same, for who asks more than once.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let asked = timeout(DEADLINE, exchange(self, method, path, body)).await;
        asked.with_context(|| format!("{} gave no answer in {} s", self.base, DEADLINE.as_secs()))?
    }

    /// Posts `body`, and takes each line of the answer when it is there. What is no such answer is an error.
    pub(super) async fn lines(&self, path: &str, body: &Value, mut take: impl FnMut(Value)) -> anyhow::Result<()> {
        let late = || format!("{} says nothing any more", self.base);
        let (mut send, connection) = timeout(DEADLINE, self.connect()).await.with_context(late)??;
        let request = self.request(Method::POST, path).body(Full::from(body.to_string()))?;
        let talk = async {
            let answer = timeout(DEADLINE, send.send_request(request)).await.with_context(late)??;
            let (status, mut body) = (answer.status(), answer.into_body());
            let mut held = Vec::new();
            while let Some(frame) = timeout(SILENCE, body.frame()).await.with_context(late)? {
                held.extend_from_slice(&frame?.into_data().unwrap_or_default());
                while let Some(end) = held.iter().position(|byte| *byte == b'\n').filter(|_| status.is_success()) {
                    let line: Vec<u8> = held.drain(..=end).collect();
                    take(serde_json::from_slice(&line).context("a line of the answer is no JSON: is this exitgate?")?);
                }
                if held.len() > ANSWER {
                    bail!("the answer has a line without end: is this exitgate?");
                }
            }
            if status.is_success() {
                return Ok(());
            }
            let said: Value = serde_json::from_slice(&held).unwrap_or_default();
            bail!("{status}: {}", said["error"]["message"].as_str().unwrap_or("the gateway refused"))
        };
        tokio::pin!(talk);
        tokio::select! {
            biased;
            done = &mut talk => done,
            _ = connection => talk.await, // what became of the connection is told to who talks over it
        }
    }

    async fn connect(&self) -> anyhow::Result<(SendRequest<Full<Bytes>>, Connection<TokioIo<TcpStream>, Full<Bytes>>)> {
        #[expect(clippy::disallowed_methods, reason = "the operator's own gateway, and not a client's target")]
        let stream = TcpStream::connect(self.address()).await.with_context(|| {
            format!("no gateway answers at {}; is it running? EXITGATE_URL says where if it is elsewhere", self.base)
        })?;
        Ok(http1::handshake(TokioIo::new(stream)).await?)
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

async fn exchange(api: &Api, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
    let (mut send, connection) = api.connect().await?;
    let request = api.request(method, path).body(Full::from(body.map(Value::to_string).unwrap_or_default()))?;
    let answer = async {
        let answer = send.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        let body = body.to_bytes();
        let value =
            serde_json::from_slice(&body).with_context(|| format!("{status} without JSON: is this exitgate?"))?;
        anyhow::Ok((status, value))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => bail!("the connection broke: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first_and_our_own_address_is_called_localhost() {
        for (listen, url, at, host) in [
            ("0.0.0.0:8080", None, ("0.0.0.0", 8080), "localhost"),
            ("[::]:81", None, ("::", 81), "localhost"),
            ("127.0.0.1:8080", Some("http://gate.example:9"), ("gate.example", 9), "gate.example:9"),
            ("127.0.0.1:8080", Some("http://[::1]"), ("::1", 80), "[::1]"),
        ] {
            let mut config = Config::default();
            config.api.listen = vec![listen.parse().unwrap()];
            let api = Api::of(&config, url.map(str::to_owned), Some("t".to_owned())).unwrap();
            assert_eq!(
                (api.address(), api.host.as_str(), api.token.as_deref()),
                (at, host, Some("t")),
                "{listen} {url:?}"
            );
        }
        for url in ["https://gate.example", "gate.example", "http://", ""] {
            assert!(Api::of(&Config::default(), Some(url.to_owned()), None).is_err(), "{url}");
        }
    }
}
