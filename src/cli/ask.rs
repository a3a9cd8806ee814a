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
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::secrets::TOKEN_FILE;
use crate::config::Config;

/// How long an answer may take: a rotation is given a minute to find an exit that works.
const DEADLINE: Duration = Duration::from_secs(75);

/// The longest answer that is read. Arbitrary: the list of some 10,000 exits.
const ANSWER: usize = 64 * 1024 * 1024;

/// Where the API is, and what opens it.
struct Api {
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
    let api = Api::of(config, env::var("EXITGATE_URL").ok(), env::var("EXITGATE_TOKEN").ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = timeout(DEADLINE, exchange(&api, method, path, body)).await;
        asked.with_context(|| format!("{} gave no answer in {} s", api.base, DEADLINE.as_secs()))?
    })
}

async fn exchange(api: &Api, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
    #[expect(clippy::disallowed_methods, reason = "the operator's own gateway, and not a client's target")]
    let stream = TcpStream::connect(api.address()).await.with_context(|| {
        format!("no gateway answers at {}; is it running? EXITGATE_URL says where if it is elsewhere", api.base)
    })?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &api.host)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = &api.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::<Bytes>::from(body.map(Value::to_string).unwrap_or_default()))?;
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
