//! Orders to a world and figures from it, for whoever has its socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::fault::Order;
use crate::link::Hello;
use crate::world::stats::Stats;

/// How long an answer may take. It takes a millisecond unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A world that runs. Each call is a connection of its own and blocks for a moment.
#[derive(Clone, Debug)]
pub struct WorldClient {
    socket: PathBuf,
}

impl WorldClient {
    /// The world that listens at this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Begins a fault; its number.
    pub fn order(&self, order: &Order) -> io::Result<u64> {
        let answer = self.ask(&Hello::Order(order.clone()))?;
        answer["id"].as_u64().ok_or_else(|| io::Error::other(answer.to_string()))
    }

    /// Begins the fault of a JSON text, such as `{"fault":"relay_down","who":"exits","share":0.4,"for":60}`.
    pub fn order_text(&self, text: &str) -> io::Result<u64> {
        self.order(&serde_json::from_str(text)?)
    }

    /// Ends one fault.
    pub fn clear(&self, id: u64) -> io::Result<()> {
        self.ask(&Hello::Clear { id: Some(id) }).map(drop)
    }

    /// Ends all faults.
    pub fn clear_all(&self) -> io::Result<()> {
        self.ask(&Hello::Clear { id: None }).map(drop)
    }

    /// The faults in force, as JSON.
    pub fn orders(&self) -> io::Result<Value> {
        self.ask(&Hello::Orders)
    }

    /// The figures so far.
    pub fn stats(&self) -> io::Result<Stats> {
        Ok(serde_json::from_value(self.ask(&Hello::Stats)?)?)
    }

    /// Who and where the relays are, as JSON.
    pub fn relays(&self) -> io::Result<Value> {
        self.ask(&Hello::Relays)
    }

    /// The version that engines are to be, and by what times are divided.
    pub(crate) fn version(&self) -> io::Result<(String, f64)> {
        let answer = self.ask(&Hello::Version)?;
        Ok((answer["version"].as_str().unwrap_or_default().to_owned(), answer["speed"].as_f64().unwrap_or(1.0)))
    }

    fn ask(&self, hello: &Hello) -> io::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(hello)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer)?;
        match answer["error"].as_str() {
            Some(error) => Err(io::Error::other(error.to_owned())),
            None => Ok(answer),
        }
    }
}
