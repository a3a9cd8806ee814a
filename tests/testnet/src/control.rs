//! The part of tor's control protocol that tests need: one command with its answer, and waiting for an event.

use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::UnixStream;

/// An authenticated connection to a tor process.
#[derive(Debug)]
pub struct Control {
    stream: BufStream<UnixStream>,
}

impl Control {
    /// Connects to a control socket that asks for no password.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.with_context(|| format!("cannot reach {}", socket.display()))?;
        let mut control = Self { stream: BufStream::new(stream) };
        control.command("AUTHENTICATE").await?;
        Ok(control)
    }

    /// Sends a command and returns the lines of a good answer without their codes; a data block is one entry, joined
    /// to its line by a newline.
    pub async fn command(&mut self, command: &str) -> anyhow::Result<Vec<String>> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        let mut answer = Vec::new();
        loop {
            let line = self.line().await?;
            let (Some(code), Some(kind), Some(rest)) = (line.get(..3), line.get(3..4), line.get(4..)) else {
                bail!("{command}: tor answered {line:?}");
            };
            match (code, kind) {
                ("650", _) => {} // an event: this call does not wait for one
                ("250", " ") => {
                    answer.push(rest.to_owned());
                    return Ok(answer);
                }
                ("250", "-") => answer.push(rest.to_owned()),
                ("250", "+") => answer.push(format!("{rest}\n{}", self.block().await?)),
                _ => bail!("{command}: tor answered {line:?}"),
            }
        }
    }

    /// The value of one `GETINFO` key.
    pub async fn info(&mut self, key: &str) -> anyhow::Result<String> {
        let answer = self.command(&format!("GETINFO {key}")).await?;
        let value = answer.first().and_then(|line| line.strip_prefix(key)).and_then(|rest| rest.strip_prefix('='));
        Ok(value
            .with_context(|| format!("GETINFO {key}: tor answered {answer:?}"))?
            .trim_start_matches('\n')
            .to_owned())
    }

    /// The next event of one line, without `650 `. Send `SETEVENTS` first.
    pub async fn event(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(event) = self.line().await?.strip_prefix("650 ") {
                return Ok(event.to_owned());
            }
        }
    }

    async fn block(&mut self) -> anyhow::Result<String> {
        let mut block = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(block);
            }
            block.push_str(line.strip_prefix('.').unwrap_or(&line));
            block.push('\n');
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("tor closed the control connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn answered(reply: &str) -> anyhow::Result<Vec<String>> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(reply.as_bytes()).await.unwrap();
        let mut control = Control { stream: BufStream::new(ours) };
        let answer = control.command("X").await;
        let mut sent = [0; 3];
        theirs.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"X\r\n");
        answer
    }

    #[tokio::test]
    async fn good_answers_events_and_errors() {
        assert_eq!(answered("250 OK\r\n").await.unwrap(), ["OK"]);
        assert_eq!(answered("250-a=1\r\n250-b=2\r\n250 OK\r\n").await.unwrap(), ["a=1", "b=2", "OK"]);
        assert_eq!(answered("250+a=\r\nx\r\n..y\r\n.\r\n250 OK\r\n").await.unwrap(), ["a=\nx\n.y\n", "OK"]);
        assert_eq!(answered("650 CIRC 1 BUILT\r\n250 OK\r\n").await.unwrap(), ["OK"]);
        assert!(answered("552 Unrecognized key\r\n").await.is_err());
        assert!(answered("nonsense\r\n").await.is_err());
    }
}
