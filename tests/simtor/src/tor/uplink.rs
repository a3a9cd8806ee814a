//! The engine's side of its connection to the world.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::directory::News;
use super::engine::{Engine, Said, State};
use super::event::Kind;
use crate::link::{Ask, CLIENT, Conduct, Conn, Hello, Tell};

/// The connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    asked: mpsc::UnboundedReceiver<Ask>,
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

/// What the world said first.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) engine: u32,
    pub(super) speed: f64,
    pub(super) conduct: Conduct,
}

pub(super) async fn connect(world: &Path, bridges: Vec<String>) -> Result<(Link, Welcome), String> {
    let fault = |e: std::io::Error| format!("Cannot reach the simulated network at {}: {e}", world.display());
    let (read, mut write) = UnixStream::connect(world).await.map_err(fault)?.into_split();
    let client = std::env::var(CLIENT).unwrap_or_else(|_| "client".to_owned());
    let hello = Hello::Engine { pid: std::process::id(), client, bridges };
    let mut line = serde_json::to_vec(&hello).map_err(|e| e.to_string())?;
    line.push(b'\n');
    write.write_all(&line).await.map_err(fault)?;
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await.map_err(fault)?.unwrap_or_default();
    let (asks, asked) = mpsc::unbounded_channel();
    match serde_json::from_str(&first) {
        Ok(Tell::Welcome { engine, speed, conduct }) => {
            Ok((Link { asks, asked, lines, write }, Welcome { engine, speed, conduct }))
        }
        _ => Err(format!("{} is not a simulated network.", world.display())),
    }
}

/// Carries what is asked and told, until the world is gone.
pub(super) async fn run(engine: Arc<Engine>, link: Link) {
    let Link { mut asked, mut lines, mut write, asks: _asks } = link;
    loop {
        tokio::select! {
            ask = asked.recv() => {
                let Some(Ok(mut line)) = ask.map(|ask| serde_json::to_vec(&ask)) else { return };
                line.push(b'\n');
                if write.write_all(&line).await.is_err() {
                    return;
                }
            }
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                if let Ok(tell) = serde_json::from_str(&line) {
                    told(&engine, tell);
                }
            }
        }
    }
}

fn told(engine: &Engine, tell: Tell) {
    let news = |news: News| engine.with(|state| drop(state.news.send(news))); // its receiver lives as long as we do
    match tell {
        Tell::Conn { relay, conn } => engine.with(|state| state.on_conn(&relay, &conn)),
        Tell::Extended { circuit, path, built } => {
            engine.with(|state| state.on_extended(circuit, path, built));
            engine.changed.notify_waiters();
        }
        Tell::Gone { circuit, gone } => {
            engine.with(|state| state.on_gone(circuit, &gone));
            engine.changed.notify_waiters();
        }
        Tell::Fetched(edition) => news(News::Fetched(edition)),
        Tell::NotFetched { .. } => news(News::Failed),
        Tell::Asking { .. } => news(News::Asking),
        Tell::Conduct(conduct) => engine.with(|state| {
            let version = state.conduct.version.clone(); // a program does not change while it runs
            state.conduct = Conduct { version, ..conduct };
            drop(state.news.send(News::Conduct));
        }),
        Tell::Crash => std::process::abort(),
        Tell::CutControl => engine.with(|state| {
            state.controllers.iter().for_each(|controller| drop(controller.tell.send(Said::End)));
        }),
        Tell::Welcome { .. } => {}
    }
}

impl State {
    fn on_conn(&mut self, relay: &str, conn: &Conn) {
        let name = self.directory.long_name(relay);
        let number = match conn {
            Conn::Launched => {
                let number = self.next_conn;
                self.next_conn += 1;
                self.conns.insert(relay.to_owned(), (number, false));
                number
            }
            _ => self.conns.get(relay).map_or(0, |(number, _)| *number),
        };
        let (word, reason) = match conn {
            Conn::Launched => ("LAUNCHED", String::new()),
            Conn::Connected => {
                self.conns.insert(relay.to_owned(), (number, true));
                self.guard(relay, true);
                ("CONNECTED", String::new())
            }
            Conn::Failed(why) => ("FAILED", format!(" REASON={why}")),
            Conn::Closed(why) => ("CLOSED", format!(" REASON={why}")),
        };
        if let Conn::Failed(_) | Conn::Closed(_) = conn {
            self.conns.remove(relay);
        }
        if let Conn::Failed(why) = conn {
            self.guard(relay, false);
            self.warn_of_bootstrap(relay, why);
        }
        self.event(Kind::OrConn, format!("ORCONN {name} {word}{reason} ID={number}"));
    }

    fn guard(&mut self, relay: &str, up: bool) {
        if self.guards.insert(relay.to_owned(), up) != Some(up) {
            let name = self.directory.long_name(relay);
            self.event(Kind::Guard, format!("GUARD ENTRY {name} {}", if up { "UP" } else { "DOWN" }));
        }
    }
}
