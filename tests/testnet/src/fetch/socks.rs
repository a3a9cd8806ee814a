//! The client's side of SOCKS. SOCKS5 is spoken by fast-socks5, which was written independently of exitgate.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, ensure};
use fast_socks5::client::{Config, Socks5Stream};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{AuthenticationMethod, Socks5Command};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

/// The highest reply code that fast-socks5 knows; it panics on others, and tor sends some from 0xF0 on.
const HIGHEST_KNOWN_REPLY: u8 = 8;

/// A SOCKS server's refusal: its reply code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocksRefusal(pub u8);

impl std::fmt::Display for SocksRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SOCKS reply {:#04x}", self.0)
    }
}

impl std::error::Error for SocksRefusal {}

/// Opens a tunnel to `host:port` through a SOCKS5 server, with a username and a password if there are any. A refusal is an error that is
/// a [`SocksRefusal`].
pub async fn socks5(
    proxy: SocketAddr,
    login: Option<(&str, &str)>,
    host: &str,
    port: u16,
) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(proxy).await.with_context(|| format!("cannot reach {proxy}"))?;
    open(stream, login, host, port).await
}

async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    login: Option<(&str, &str)>,
    host: &str,
    port: u16,
) -> anyhow::Result<S> {
    let (username, password) = login.unwrap_or_default();
    // fast-socks5 cuts longer lengths off without an error.
    ensure!(username.len() <= 255 && password.len() <= 255, "a username or password of more than 255 bytes");
    let login =
        login.map(|_| AuthenticationMethod::Password { username: username.to_owned(), password: password.to_owned() });
    let mut socks = Socks5Stream::use_stream(ReplyCode::new(stream), login, Config::default()).await?;
    socks.get_socket_mut().reply_follows();
    let opened = socks.request(Socks5Command::TCPConnect, TargetAddr::Domain(host.to_owned(), port)).await;
    let socket = socks.get_socket();
    match socket.code {
        Some(0) => opened.map(|_| socket.stream).context("the rest of the SOCKS reply"),
        Some(code) => Err(SocksRefusal(code).into()),
        None => Err(opened.err().map_or_else(|| anyhow::anyhow!("no SOCKS reply"), anyhow::Error::from)),
    }
}

/// A stream that notes the code of a SOCKS5 reply, and shows fast-socks5 no code that it does not know.
struct ReplyCode<S> {
    stream: S,
    /// How many bytes of the reply were read; none before the reply.
    read: Option<usize>,
    code: Option<u8>,
}

impl<S> ReplyCode<S> {
    fn new(stream: S) -> Self {
        Self { stream, read: None, code: None }
    }

    /// The next byte to be read is the first of the reply.
    fn reply_follows(&mut self) {
        self.read = Some(0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyCode<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = &mut buf.filled_mut()[before..];
        if let Some(read) = self.read {
            self.read = Some(read + bytes.len());
            // The code is the second byte of the reply.
            if let Some(code) = 1_usize.checked_sub(read).and_then(|at| bytes.get_mut(at)) {
                self.code = Some(*code);
                *code = (*code).min(HIGHEST_KNOWN_REPLY);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyCode<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens a tunnel to `host:port` through a SOCKS4a server.
pub async fn socks4(proxy: SocketAddr, host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await.with_context(|| format!("cannot reach {proxy}"))?;
    let [high, low] = port.to_be_bytes();
    stream.write_all(&[&[4, 1, high, low, 0, 0, 0, 1, 0], host.as_bytes(), &[0]].concat()).await?;
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).await?;
    if reply[1] != 90 {
        return Err(SocksRefusal(reply[1]).into());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request to a server that sends these bytes.
    async fn answered(server: &[u8]) -> anyhow::Result<()> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(server).await?;
        theirs.shutdown().await?;
        open(ours, Some(("us", "x")), "a.test", 80).await.map(drop)
    }

    #[tokio::test]
    async fn every_refusal_has_its_code_also_those_that_fast_socks5_does_not_know() {
        assert!(answered(&[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.is_ok());
        for code in 1..=255 {
            let error = answered(&[5, 2, 1, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&SocksRefusal(code)));
        }
        for broken in [&[5, 2, 1, 0, 5, 0, 0, 1][..], &[5, 2, 1, 0, 5], &[5, 2, 1, 1], &[5, 255], &[4, 0], &[]] {
            let error = answered(broken).await.unwrap_err();
            assert!(error.downcast_ref::<SocksRefusal>().is_none(), "{broken:?}");
        }
    }
}
