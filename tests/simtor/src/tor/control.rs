//! The control port: connections, and lines in and out.
//!
//! Next: `control/auth.rs` (logging in), `control/commands.rs` (what can be commanded), `control/getinfo.rs` (what can
//! be asked), `control/config.rs` (options).

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::engine::{Controller, Engine, Said};
use super::home::{Connection, Listener, Reader, Writer};

mod auth;
mod commands;
mod config;
mod getinfo;

use auth::Login;
pub(super) use auth::hashed;

/// A line longer than this is no command.
const LINE: usize = 1 << 20;

/// An answer: its lines with their codes, as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply(String);

impl Reply {
    fn ok() -> Self {
        Self::end(250, "OK")
    }

    /// The last line, or the only one.
    fn end(code: u16, text: &str) -> Self {
        Self(format!("{code} {text}\r\n"))
    }

    /// A line before it.
    fn mid(&mut self, text: &str) {
        self.0.push_str(&format!("250-{text}\r\n"));
    }

    /// A key with a block of lines before it.
    fn block(&mut self, key: &str, text: &str) {
        self.0.push_str(&format!("250+{key}=\r\n"));
        for line in text.lines() {
            self.0.push_str(if line.starts_with('.') { "." } else { "" });
            self.0.push_str(line);
            self.0.push_str("\r\n");
        }
        self.0.push_str(".\r\n");
    }
}

/// One command: its word in upper case, what follows it, and its block if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    word: String,
    /// The word as it was written.
    spelt: String,
    rest: String,
    block: Option<String>,
}

/// A controller's connection, as its commands see it.
struct Session {
    id: u64,
    login: Login,
}

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
}

/// Serves a control port for ever.
pub(super) async fn accept(engine: Arc<Engine>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                tokio::spawn(serve(engine.clone(), connection));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(engine: Arc<Engine>, connection: Connection) {
    let (read, write) = connection.split();
    let (tell, said) = mpsc::unbounded_channel();
    let id = engine.with(|state| {
        let id = state.next_controller;
        state.next_controller += 1;
        state.controllers.push(Controller { id, events: Vec::new(), tell: tell.clone() });
        id
    });
    let mut session = Session { id, login: Login::default() };
    let speaking = speak(engine.clone(), write, said);
    tokio::pin!(speaking);
    tokio::select! {
        () = &mut speaking => {}
        () = hear(&engine, &mut session, read, &tell) => {
            drop(tell.send(Said::End)); // what was said before still goes out
            speaking.await;
        }
    }
    let owned = engine.with(|state| {
        state.controllers.retain(|controller| controller.id != id);
        state.owner == Some(id)
    });
    if owned {
        engine.log.notice("Owning controller connection has closed -- exiting now.");
        engine.end();
    }
}

/// Sends what is to be sent, later where a fault says so.
async fn speak(engine: Arc<Engine>, mut write: Writer, mut said: mpsc::UnboundedReceiver<Said>) {
    while let Some(Said::Text(at, mut text)) = said.recv().await {
        let delay = Duration::from_millis(engine.with(|state| state.conduct.control_delay_ms));
        if delay > Duration::ZERO {
            sleep_until(at + engine.scaled(delay)).await;
        }
        let mut end = false;
        while let Ok(more) = said.try_recv() {
            match more {
                Said::Text(_, more) => text.push_str(&more),
                Said::End => end = true,
            }
        }
        if write.write_all(text.as_bytes()).await.is_err() || end {
            return;
        }
    }
}

async fn hear(engine: &Arc<Engine>, session: &mut Session, read: Reader, tell: &mpsc::UnboundedSender<Said>) {
    let mut read = BufReader::new(read);
    while let Some(command) = next(&mut read).await {
        let answer = |text: String| drop(tell.send(Said::Text(Instant::now(), text))); // a connection that is gone ends us
        let then = commands::run(engine, session, &command, answer);
        if then == Then::Close {
            return;
        }
    }
}

async fn next(read: &mut BufReader<Reader>) -> Option<Command> {
    let line = line(read).await?;
    let with_block = line.strip_prefix('+');
    let whole = with_block.unwrap_or(&line);
    let (word, rest) = whole.split_once(' ').unwrap_or((whole, ""));
    let (word, spelt, rest) = (word.to_ascii_uppercase(), word.to_owned(), rest.trim().to_owned());
    let mut block = with_block.map(|_| String::new());
    while let Some(text) = &mut block {
        match line_of(read).await?.as_str() {
            "." => break,
            row => {
                text.push_str(row.strip_prefix('.').unwrap_or(row));
                text.push('\n');
            }
        }
    }
    Some(Command { word, spelt, rest, block })
}

async fn line(read: &mut BufReader<Reader>) -> Option<String> {
    loop {
        let line = line_of(read).await?;
        if !line.is_empty() {
            return Some(line);
        }
    }
}

async fn line_of(read: &mut BufReader<Reader>) -> Option<String> {
    let mut line = Vec::new();
    let length = read.read_until(b'\n', &mut line).await.ok()?;
    if length == 0 || length > LINE {
        return None;
    }
    let text = String::from_utf8_lossy(&line);
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}
