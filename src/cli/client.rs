//! Sends requests to the API of a running gateway.
//!
//! The address of the API is `EXITGATE_URL`, or else the first address of `api.listen`. The token is `EXITGATE_TOKEN`,
//! or else `api.token`, or else the content of the file that the gateway wrote into `data_dir`. So on the machine where
//! the gateway runs, no command needs an option for this.
//!
//! The HTTP client is reqwest with TLS by rustls and the public roots of `webpki-roots`, as for all other requests of
//! exitgate. The client follows no redirect, because a redirect could send the token to another server. It ignores
//! variables such as `http_proxy`, because they often contain the address of this very gateway.
//!
//! Next: `client/error.rs`, the possible errors and their exit codes.

mod error;

use std::env;
use std::path::Path;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Client, Response, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

pub(super) use self::error::ClientError;
use crate::app::secrets::TOKEN_FILE;
use crate::config::Config;
use crate::net::Secret;

/// The time limit for an answer of the API. It is longer than the 60 seconds that the API gives a rotation to find a
/// working exit.
const DEADLINE: Duration = Duration::from_secs(75);

/// The longest pause between two lines of a streamed answer. Not tuned: a check waits at most a minute for its circuit.
const SILENCE: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes. Not tuned: a list of 10,000 exits has a tenth of this size.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The address of an API and the token for it.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    /// The URL of the API, without a `/` at the end.
    base: String,
    /// The Host header to send. It is set if the address comes from the configuration, because the gateway may listen
    /// on `0.0.0.0`. Every gateway accepts the host name `localhost`, but none accepts `0.0.0.0`.
    host: Option<&'static str>,
    token: Option<Secret>,
}

impl Api {
    /// Finds the API's address and token in the environment or in the configuration.
    pub(super) fn from_env(config: &Config) -> Result<Self, ClientError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::new(config, env::var("EXITGATE_URL").ok(), env::var("EXITGATE_TOKEN").ok().map(Secret::new), roots)
    }

    /// Does the work of [`Self::from_env`]. `url` and `token` are the values of the environment variables
    /// `EXITGATE_URL` and `EXITGATE_TOKEN`, or `None` if the variable is not set.
    fn new(
        config: &Config,
        url: Option<String>,
        token: Option<Secret>,
        roots: RootCertStore,
    ) -> Result<Self, ClientError> {
        let host = url.is_none().then_some("localhost");
        let listen = || config.api.listen.first().map(|addr| format!("http://{addr}"));
        let base = url.or_else(listen).ok_or(ClientError::NoAddress)?;
        check_url(&base).map_err(|reason| ClientError::Url { url: base.clone(), reason })?;
        let token = token.or_else(|| config.api.token.clone()).or_else(|| token_file(&config.data_dir));
        Ok(Self { client: client(roots)?, base: base.trim_end_matches('/').to_owned(), host, token })
    }

    /// Sends one request, and returns the JSON of its answer.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let exchange = async {
            let mut response = self.open(method, path, body).await?;
            let status = response.status();
            let mut text = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
                text.extend_from_slice(&chunk);
                self.check_length(text.len(), status)?;
            }
            let answer = serde_json::from_slice(&text).map_err(|_| self.not_exitgate(status))?;
            if status.is_success() { Ok(answer) } else { Err(ClientError::refused(status, answer, path)) }
        };
        timeout(DEADLINE, exchange).await.map_err(|_| self.late(DEADLINE))?
    }

    /// Sends a POST request with `body`, and calls `take` with each line of the answer as soon as the line arrives.
    pub(super) async fn send_for_lines(
        &self,
        path: &str,
        body: &Value,
        mut take: impl FnMut(Value),
    ) -> Result<(), ClientError> {
        let opened = timeout(DEADLINE, self.open(Method::POST, path, Some(body))).await;
        let mut response = opened.map_err(|_| self.late(DEADLINE))??;
        let status = response.status();
        let mut pending = Vec::new();
        loop {
            let chunk = timeout(SILENCE, response.chunk()).await.map_err(|_| self.late(SILENCE))?;
            let Some(chunk) = chunk.map_err(|error| self.broken(&error))? else { break };
            pending.extend_from_slice(&chunk);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n').filter(|_| status.is_success()) {
                let line: Vec<u8> = pending.drain(..=end).collect();
                take(serde_json::from_slice(&line).map_err(|_| self.not_exitgate(status))?);
            }
            self.check_length(pending.len(), status)?;
        }
        if status.is_success() {
            return Ok(());
        }
        Err(ClientError::refused(status, serde_json::from_slice(&pending).unwrap_or_default(), path))
    }

    /// Sends a request, and returns when the head of the answer has arrived.
    async fn open(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, ClientError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(host) = self.host {
            request = request.header(header::HOST, host);
        }
        if let Some(token) = &self.token {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| ClientError::Setup("the API token holds a byte that no header can carry".to_owned()))?;
            bearer.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        request.send().await.map_err(|error| {
            if error.is_connect() {
                return ClientError::Unreachable { base: self.base.clone(), reason: root_cause(&error) };
            }
            self.broken(&error)
        })
    }

    fn check_length(&self, length: usize, status: StatusCode) -> Result<(), ClientError> {
        if length > MAX_ANSWER { Err(self.not_exitgate(status)) } else { Ok(()) }
    }

    fn broken(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Broken { base: self.base.clone(), reason: root_cause(error) }
    }

    fn late(&self, after: Duration) -> ClientError {
        ClientError::Timeout { base: self.base.clone(), seconds: after.as_secs() }
    }

    fn not_exitgate(&self, status: StatusCode) -> ClientError {
        ClientError::NotExitgate { base: self.base.clone(), status }
    }
}

/// Sends one request and waits for its answer. For commands that are not async.
pub(super) fn request(config: &Config, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
    let api = Api::from_env(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::Setup(error.to_string()))?;
    runtime.block_on(api.send(method, path, body))
}

fn client(roots: RootCertStore) -> Result<Client, ClientError> {
    let setup = |error: &dyn std::error::Error| ClientError::Setup(root_cause(error));
    let provider = rustls::crypto::ring::default_provider().into();
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = versions.map_err(|error| setup(&error))?.with_root_certificates(roots).with_no_client_auth();
    let builder = Client::builder().tls_backend_preconfigured(tls).redirect(redirect::Policy::none()).no_proxy();
    builder.connect_timeout(DEADLINE).build().map_err(|error| setup(&error))
}

fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => Err("it has a query".to_owned()),
        "http" | "https" => Ok(()),
        other => Err(format!("{other:?} is not a scheme of the API")),
    }
}

/// Returns the innermost cause of an error. The outer errors only repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Reads the token from the file in `data_dir`. The gateway generates this token if the configuration has no
/// `api.token`.
fn token_file(data_dir: &Path) -> Option<Secret> {
    std::fs::read_to_string(data_dir.join(TOKEN_FILE)).ok().map(|text| Secret::new(text.trim()))
}

#[cfg(test)]
mod tests;
