//! A client for tests: SOCKS, HTTP CONNECT, TLS with the test CA, one GET. It shares no code with the gateway, so that no fault is on
//! both sides of a test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use self::socks::{SocksRefusal, socks4, socks5};

mod socks;

/// An HTTP proxy's refusal of CONNECT: its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRefusal(pub u16);

impl std::fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {} to CONNECT", self.0)
    }
}

impl std::error::Error for HttpRefusal {}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Opens a tunnel to `host:port` with HTTP CONNECT. An answer other than 200 is an error that is an [`HttpRefusal`].
pub async fn connect(proxy: SocketAddr, host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await.with_context(|| format!("cannot reach {proxy}"))?;
    stream.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?); // a byte beyond the head belongs to the tunnel
    }
    let got = parse(&head).with_context(|| format!("this is no HTTP answer: {:?}", String::from_utf8_lossy(&head)))?;
    if got.status != 200 {
        return Err(HttpRefusal(got.status).into());
    }
    Ok(stream)
}

/// Speaks TLS to `host` over a tunnel, trusting only the CA in the PEM file `ca`.
pub async fn tls(tunnel: TcpStream, host: &str, ca: &Path) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    handshake(tunnel, host, verifier).await
}

/// Speaks TLS and accepts any certificate, as careless clients do.
pub async fn tls_to_anybody(tunnel: TcpStream, host: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    handshake(tunnel, host, Arc::new(AnyCertificate)).await
}

async fn handshake(
    tunnel: TcpStream,
    host: &str,
    verifier: Arc<dyn ServerCertVerifier>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let host = ServerName::try_from(host.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(host, tunnel).await?)
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// One GET over an open tunnel; reads until the server closes.
pub async fn get(tunnel: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> anyhow::Result<Got> {
    get_with(tunnel, host, path, &[]).await
}

/// [`get`] with additional headers.
pub async fn get_with(
    mut tunnel: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Got> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    tunnel.write_all(format!("{request}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).await?;
    parse(&answer).with_context(|| format!("this is no HTTP answer: {:?}", String::from_utf8_lossy(&answer)))
}

fn parse(answer: &[u8]) -> Option<Got> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(Got { status, headers, body: answer[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_headers_and_a_body() {
        let got = parse(b"HTTP/1.1 429 Too Many\r\nA: 1\r\nA: 2\r\n\r\nbody").unwrap();
        assert_eq!((got.status, got.headers.get_all("a").iter().count(), got.text().as_str()), (429, 2, "body"));
        for broken in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", b"x\r\n\r\n"] {
            assert!(parse(broken).is_none());
        }
    }
}
