//! Methods of [`Control`] for the control commands that we use, one for each command.

use std::fmt::Write as _;

use super::auth::version_text;
use super::{Answer, Command, Control, ControlError};
use crate::exit::Fingerprint;
use crate::tor::event::{self, Bootstrap, CircuitId, EndReason, Stream, StreamId};
use crate::tor::reply::Reply;
use crate::tor::version::Version;

/// The largest accepted answer that contains the whole directory, in bytes. On the public network `md/all` has 9 MB
/// now, and its size grows.
pub const DIRECTORY_REPLY: usize = 64 * 1024 * 1024;

/// Signals that the command `SIGNAL` sends to tor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// tor reads its configuration file again.
    Reload,
    /// tor ends. A tor that is only a client ends immediately after `SHUTDOWN`.
    Shutdown,
}

impl Control {
    /// Returns the value of one GETINFO key.
    pub async fn getinfo(&self, key: &'static str) -> Result<String, ControlError> {
        self.info(Command::new("GETINFO").arg(key), key).await
    }

    /// Returns the value of a GETINFO key whose answer may be as large as the whole directory of relays.
    pub async fn getinfo_directory(&self, key: &'static str) -> Result<String, ControlError> {
        self.info(Command::new("GETINFO").arg(key).expecting(DIRECTORY_REPLY), key).await
    }

    /// Returns the value of one configuration option.
    pub async fn config(&self, option: &'static str) -> Result<String, ControlError> {
        let reply = self.command(&Command::new("GETCONF").arg(option)).await?;
        reply.value(option).map(str::to_owned).ok_or(ControlError::Unexpected { verb: "GETCONF" })
    }

    async fn info(&self, command: Command, key: &str) -> Result<String, ControlError> {
        let reply = self.command(&command).await?;
        reply.value(key).map(str::to_owned).ok_or(ControlError::Unexpected { verb: "GETINFO" })
    }

    /// Returns the version of the tor at the other end of the connection.
    pub async fn version(&self) -> Result<Version, ControlError> {
        let reply = self.command(&Command::new("PROTOCOLINFO").arg(1)).await?;
        let version = version_text(&reply).and_then(|text| text.parse().ok());
        version.ok_or(ControlError::Unexpected { verb: "PROTOCOLINFO" })
    }

    /// Returns the process id of the tor at the other end of the connection.
    pub async fn process_id(&self) -> Result<u32, ControlError> {
        let text = self.getinfo("process/pid").await?;
        text.trim().parse().map_err(|_| ControlError::Unexpected { verb: "GETINFO" })
    }

    /// Returns true once tor can build circuits. The bootstrap progress that tor reports stays at 75 % even then,
    /// because this gateway turns tor's predicted circuits off.
    pub async fn enough_directory(&self) -> Result<bool, ControlError> {
        Ok(self.getinfo("status/enough-dir-info").await?.trim() == "1")
    }

    /// Returns the progress of tor's bootstrap.
    pub async fn bootstrap(&self) -> Result<Bootstrap, ControlError> {
        let text = self.getinfo("status/bootstrap-phase").await?;
        event::bootstrap(&text).ok_or(ControlError::Unexpected { verb: "GETINFO" })
    }

    /// Returns the streams that exist now.
    pub async fn streams(&self) -> Result<Vec<Stream>, ControlError> {
        let command = Command::new("GETINFO").arg("stream-status").expecting(DIRECTORY_REPLY);
        let text = self.info(command, "stream-status").await?;
        Ok(text.lines().filter_map(event::stream).collect())
    }

    /// Returns the circuits that exist now.
    pub async fn circuits(&self) -> Result<Vec<event::Circ>, ControlError> {
        let command = Command::new("GETINFO").arg("circuit-status").expecting(DIRECTORY_REPLY);
        let text = self.info(command, "circuit-status").await?;
        Ok(text.lines().filter_map(event::circ).collect())
    }

    /// Sets several configuration options. If tor refuses one option, it sets none.
    pub async fn setconf(&self, options: &[(&str, &str)]) -> Result<(), ControlError> {
        let command = options.iter().fold(Command::new("SETCONF"), |command, (key, value)| command.pair(key, value));
        self.command(&command).await.map(drop)
    }

    /// Subscribes to exactly the events in `events` and cancels all other subscriptions.
    pub async fn setevents(&self, events: &[&str]) -> Result<(), ControlError> {
        let command = events.iter().fold(Command::new("SETEVENTS"), |command, event| command.arg(event));
        self.command(&command).await.map(drop)
    }

    /// Makes tor end when this control connection ends.
    pub async fn take_ownership(&self) -> Result<(), ControlError> {
        self.command(&Command::new("TAKEOWNERSHIP")).await.map(drop)
    }

    /// Sends a signal to tor.
    pub async fn signal(&self, signal: Signal) -> Result<(), ControlError> {
        let name = match signal {
            Signal::Reload => "RELOAD",
            Signal::Shutdown => "SHUTDOWN",
        };
        self.command(&Command::new("SIGNAL").arg(name)).await.map(drop)
    }

    /// Starts the build of a circuit over these relays. The circuit id is delivered in the channel of events as the
    /// answer with the number `tag`, before the circuit's own events: see [`extended`].
    ///
    /// The circuit gets the purpose `controller`. With the purpose `general`, tor would close the circuit while it is
    /// unused, and would put streams of other clients on it.
    pub fn extend_circuit(&self, path: &[Fingerprint], tag: u64) -> Result<(), ControlError> {
        let mut relays = String::with_capacity(path.len() * 42);
        for (at, relay) in path.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(relays, "{comma}${relay}"); // writing to a String cannot fail
        }
        self.submit(&Command::new("EXTENDCIRCUIT").arg(0).arg(relays).arg("purpose=controller"), tag)
    }

    /// Attaches a stream to a circuit. With `None`, tor chooses the circuit.
    pub fn attach_stream(&self, stream: StreamId, circuit: Option<CircuitId>) -> Answer {
        self.start(&Command::new("ATTACHSTREAM").arg(stream).arg(circuit.map_or(0, |id| id.0)))
    }

    /// Attaches a stream for a name look-up (RESOLVE) to a circuit. tor 0.4.9.11 aborts with a failed assertion if such
    /// a stream is attached to a circuit of purpose `controller`. So the circuit gets the purpose `general` for the
    /// time of the command ATTACHSTREAM. The three commands are written together, and tor does nothing else between
    /// them.
    pub fn attach_resolve(&self, stream: StreamId, circuit: CircuitId) -> Answer {
        let purpose = |name| Command::new("SETCIRCUITPURPOSE").arg(circuit).arg(name);
        drop(self.start(&purpose("purpose=general")));
        let answer = self.attach_stream(stream, Some(circuit));
        drop(self.start(&purpose("purpose=controller")));
        answer
    }

    /// Closes a stream with `reason`, which its client gets. It is no error if the stream is already gone.
    pub fn close_stream(&self, stream: StreamId, reason: EndReason) -> Answer {
        self.start(&Command::new("CLOSESTREAM").arg(stream).arg(reason.code()))
    }
}

/// Returns the circuit id in an answer to [`Control::extend_circuit`].
pub fn extended(reply: &Reply) -> Option<CircuitId> {
    if !reply.is_ok() {
        return None;
    }
    reply.text().strip_prefix("EXTENDED ")?.parse().ok().map(CircuitId)
}
