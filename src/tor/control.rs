//! One control connection to one tor process: commands, the answers in the order of the commands, and events.
//!
//! A caller writes its command into the socket itself, under a lock. So an ATTACHSTREAM command, for which a client
//! waits, costs one system call and no switch to another task. If the socket does not accept all bytes, the
//! connection's task writes the rest later.
//!
//! The connection's task also reads the answers. tor answers in the order of the commands, so a queue of waiting
//! callers is enough to find the caller of each answer.
//!
//! Events go into a channel without a size limit, for two reasons. First, with a limit, a full channel would also stop
//! the reading of answers, because answers arrive over the same socket. This would be a deadlock, because the task that
//! takes events out of the channel sometimes waits for an answer. Second, if events were dropped, circuits and streams
//! would leak.
//!
//! Instead of a limit, the number of waiting events is watched. An error is logged each time the number doubles. At
//! `BACKLOG_END` waiting events the connection is closed, because a receiver that is so late will not recover.
//!
//! Some answers must be handled before the events that follow them (for example EXTENDED before BUILT).
//! [`Control::submit`] sends a command whose answer is delivered in the channel of events.
//!
//! Next: [`super::reply`] parses bytes; `control/commands.rs` has a method for each command; `control/auth.rs` logs in.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::event::Event;
use super::reply::{MAX_REPLY, Parser, Reply, ReplyError};
use crate::lifecycle::Tasks;
use crate::net::Printable;

mod auth;
pub mod commands;
mod socket;
#[cfg(test)]
mod tests;

pub use auth::Auth;
use socket::Socket;
pub use socket::{Addr, BadAddr};

/// How long tor may take to answer a command. tor usually answers in less than a millisecond. While tor parses a new
/// consensus on a small machine, the answer takes a second or two.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// The number of waiting events at which an error is logged. A burst of 500 new circuits makes about 2,500 events.
const BACKLOG_ALARM: usize = 10_000;

/// The number of waiting events at which the connection is closed: 30 MB at about 300 bytes per event. A busy tor sends
/// a few thousand events a second. So either the receiver has not run for half a minute, or the other end is not tor.
const BACKLOG_END: usize = 100_000;

/// The size of the buffer for one read, in bytes. Not tuned.
const READ_SIZE: usize = 64 * 1024;

/// Why the control connection, or one command, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No program answers at the address of the control port.
    #[error("cannot connect to tor's control port at {addr}: {kind}")]
    Unreachable { addr: String, kind: io::ErrorKind },
    /// tor requires the content of a cookie file, and this gateway cannot read that file.
    #[error("cannot read tor's control cookie {path}: {why}")]
    Cookie { path: String, why: String },
    /// tor accepts only credentials that the configuration of this gateway does not contain.
    #[error("tor's control port asks for {methods}; give it a password or a readable cookie file")]
    NoWayIn { methods: String },
    /// The program at the control port sent the path of the cookie file but does not know the content of that file. So
    /// the program is not tor.
    #[error("the program at the control port could not prove that it is our tor; check what listens there")]
    Impostor,
    /// The received bytes are not the control protocol.
    #[error("unusable control reply: {0}")]
    Reply(#[from] ReplyError),
    /// tor refused the command.
    #[error("tor refused {verb}: {code} {text}")]
    Refused {
        verb: &'static str,
        code: u16,
        /// The reason that tor sent.
        text: Box<str>,
    },
    /// tor accepted the command, but a value is missing in its answer.
    #[error("tor's answer to {verb} lacks what it must hold")]
    Unexpected { verb: &'static str },
    /// tor did not answer the command in time.
    #[error("tor did not answer {verb} in time")]
    Deadline { verb: &'static str },
    /// An argument contains a line break or a NUL. Nothing was sent.
    #[error("an argument of {verb} holds a line break")]
    BadArgument { verb: &'static str },
    /// The receiver of the events is too slow: too many events wait in the channel.
    #[error("too many events of tor are waiting")]
    Backlog,
    /// The connection broke because of an I/O error.
    #[error("the control connection to tor failed: {0}")]
    Io(io::ErrorKind),
    /// The connection has ended.
    #[error("the control connection to tor is closed")]
    Closed,
}

/// One command to tor. An argument with a line break is refused, so no argument can start a second command.
#[derive(Clone, Debug)]
pub struct Command {
    verb: &'static str,
    line: String,
    data: Option<String>,
    limit: usize,
    broken: bool,
}

impl Command {
    /// Returns a command without arguments.
    pub fn new(verb: &'static str) -> Self {
        Self { verb, line: verb.to_owned(), data: None, limit: MAX_REPLY, broken: false }
    }

    /// Adds an argument to the command, without quotes. If the argument contains a line break, sending the command will
    /// fail.
    #[must_use]
    pub fn arg(mut self, value: impl fmt::Display) -> Self {
        use fmt::Write as _;
        self.line.push(' ');
        let from = self.line.len();
        self.broken |= write!(self.line, "{value}").is_err();
        self.broken |= self.line.as_bytes()[from..].iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
        self
    }

    /// Adds the argument `key="value"`. The value is quoted, so every value is allowed.
    #[must_use]
    pub fn pair(self, key: &str, value: &str) -> Self {
        self.arg(format_args!("{key}={}", super::reply::quote(value)))
    }

    /// Sets the largest allowed answer to this command, in bytes.
    #[must_use]
    pub fn expecting(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    fn encode(&self) -> Vec<u8> {
        let Some(data) = &self.data else {
            return [self.line.as_bytes(), b"\r\n"].concat();
        };
        let mut bytes = [b"+", self.line.as_bytes(), b"\r\n"].concat();
        for row in data.lines() {
            bytes.extend_from_slice(if row.starts_with('.') { b"." } else { b"" });
            bytes.extend_from_slice(row.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b".\r\n");
        bytes
    }
}

/// An item in the channel of events. The items are in the order in which tor sent them.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// An event that tor sent by itself.
    Event(Event),
    /// The answer to a command that was sent with [`Control::submit`].
    Answer {
        /// The number that the caller gave to the command in [`Control::submit`].
        tag: u64,
        result: Result<Reply, ControlError>,
    },
}

/// The receiver of the events of one connection.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::UnboundedReceiver<Option<Incoming>>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    /// Returns the next event. Returns `None` after the connection has ended and all earlier events were taken.
    pub async fn next(&mut self) -> Option<Incoming> {
        let next = self.queue.recv().await.flatten();
        match next {
            Some(_) => drop(self.waiting.fetch_sub(1, Ordering::Relaxed)),
            None => self.queue.close(),
        }
        next
    }
}

/// The receiver of the answer to a command.
#[derive(Debug)]
enum Waiter {
    Caller(oneshot::Sender<Result<Reply, ControlError>>),
    InOrder(u64),
}

#[derive(Debug)]
struct Pending {
    limit: usize,
    waiter: Waiter,
}

/// The state of sending: bytes to write, and commands that tor has not answered yet.
#[derive(Debug, Default)]
struct Outgoing {
    /// The receivers of the missing answers, in the order of the commands.
    pending: VecDeque<Pending>,
    /// Bytes that the socket has not accepted yet.
    unsent: Vec<u8>,
    /// The reason why nothing can be sent any more. `None` while the connection works.
    ended: Option<ControlError>,
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    outgoing: Mutex<Outgoing>,
    /// Wakes the task of the connection when `unsent` is no longer empty, or when the connection must end.
    bell: Notify,
    /// The channel of events. `None` in the channel marks the end, because the channel itself closes too late: handles
    /// may exist longer than the connection.
    queue: mpsc::UnboundedSender<Option<Incoming>>,
    waiting: Arc<AtomicUsize>,
}

impl Shared {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        // No code panics while it holds this lock, and the queue would be valid even after a panic.
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command: puts the receiver of its answer into the queue and writes as many bytes as the socket accepts.
    fn send(&self, command: &Command, waiter: Waiter) -> Result<(), ControlError> {
        if command.broken {
            return Err(ControlError::BadArgument { verb: command.verb });
        }
        let bytes = command.encode();
        let mut outgoing = self.outgoing();
        if let Some(why) = &outgoing.ended {
            return Err(why.clone());
        }
        outgoing.pending.push_back(Pending { limit: command.limit, waiter });
        let written = if outgoing.unsent.is_empty() { self.socket.try_write(&bytes).unwrap_or(0) } else { 0 };
        // A write error is ignored here, because the connection's task gets the same error and ends the connection.
        outgoing.unsent.extend_from_slice(&bytes[written..]);
        let left = !outgoing.unsent.is_empty();
        drop(outgoing);
        if left {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Ends the connection: nothing more is sent, and the receivers of all missing answers get the error `why`.
    fn end(&self, why: &ControlError) {
        let mut outgoing = self.outgoing();
        if outgoing.ended.is_some() {
            return;
        }
        outgoing.ended = Some(why.clone());
        outgoing.unsent = Vec::new();
        let pending = std::mem::take(&mut outgoing.pending);
        drop(outgoing);
        for Pending { waiter, .. } in pending {
            self.tell(waiter, Err(why.clone()));
        }
        drop(self.queue.send(None)); // fails if the receiver of events is gone
        self.bell.notify_one();
    }

    fn tell(&self, waiter: Waiter, result: Result<Reply, ControlError>) {
        match waiter {
            Waiter::Caller(caller) => drop(caller.send(result)), // fails if the caller gave up
            Waiter::InOrder(tag) => self.push(Incoming::Answer { tag, result }),
        }
    }

    fn push(&self, incoming: Incoming) {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        if waiting >= BACKLOG_ALARM
            && (waiting / BACKLOG_ALARM).is_power_of_two()
            && waiting.is_multiple_of(BACKLOG_ALARM)
        {
            tracing::warn!(waiting, "events of tor are not being handled as fast as they come");
        }
        drop(self.queue.send(Some(incoming))); // fails if the receiver of events is gone
    }
}

/// When the last handle to the connection is dropped, this value is dropped too and ends the connection.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end(&ControlError::Closed);
    }
}

/// A control connection that is logged in. Cloning is cheap. The connection closes when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Owner>,
}

/// The answer to a command that was sent. tor may not have answered yet: call [`Answer::wait`].
#[derive(Debug)]
pub struct Answer {
    verb: &'static str,
    deadline: Instant,
    result: Result<oneshot::Receiver<Result<Reply, ControlError>>, ControlError>,
}

impl Answer {
    /// Waits for the answer. If tor refuses the command, returns [`ControlError::Refused`].
    pub async fn wait(self) -> Result<Reply, ControlError> {
        let Self { verb, deadline, result } = self;
        let reply = match timeout_at(deadline, result?).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(ControlError::Closed),
            Err(_) => return Err(ControlError::Deadline { verb }),
        };
        if reply.is_ok() {
            return Ok(reply);
        }
        Err(ControlError::Refused { verb, code: reply.code(), text: Printable(reply.text()).to_string().into() })
    }
}

impl Control {
    /// Connects to the control port and logs in. Both must be complete by `deadline`.
    pub async fn connect(
        addr: &Addr,
        auth: &Auth,
        deadline: Instant,
        tasks: &Tasks,
    ) -> Result<(Self, Events), ControlError> {
        let work = async {
            let socket = Socket::connect(addr).await;
            let socket = socket.map_err(|e| ControlError::Unreachable { addr: addr.to_string(), kind: e.kind() })?;
            let (control, events) = Self::over(socket, tasks);
            control.log_in(auth).await?;
            Ok((control, events))
        };
        timeout_at(deadline, work).await.unwrap_or(Err(ControlError::Deadline { verb: "AUTHENTICATE" }))
    }

    fn over(socket: Socket, tasks: &Tasks) -> (Self, Events) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            socket,
            outgoing: Mutex::default(),
            bell: Notify::new(),
            queue,
            waiting: waiting.clone(),
        });
        tasks.spawn("tor control connection", run(shared.clone(), tasks.clone()));
        (Self { shared: Arc::new(Owner(shared)) }, Events { queue: receiver, waiting })
    }

    /// Sends a command immediately. The returned [`Answer`] waits for tor's answer. Many commands can wait for their
    /// answers at the same time.
    pub fn start(&self, command: &Command) -> Answer {
        let (caller, receiver) = oneshot::channel();
        let result = self.shared.0.send(command, Waiter::Caller(caller)).map(|()| receiver);
        Answer { verb: command.verb, deadline: Instant::now() + COMMAND_DEADLINE, result }
    }

    /// Sends a command and waits for its answer.
    pub fn command(&self, command: &Command) -> impl Future<Output = Result<Reply, ControlError>> + Send + use<> {
        self.start(command).wait()
    }

    /// Sends a command whose answer is delivered in the channel of events, in the order in which tor sent it, with the
    /// number `tag`. A refusal is delivered as an `Ok` reply with an error code.
    pub fn submit(&self, command: &Command, tag: u64) -> Result<(), ControlError> {
        self.shared.0.send(command, Waiter::InOrder(tag))
    }

    /// Returns true once the connection has ended, so that no command can be sent any more.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.shared.0.outgoing().ended.is_some()
    }
}

/// The connection's task: reads until the connection ends, and writes the bytes that callers could not write.
async fn run(shared: Arc<Shared>, tasks: Tasks) {
    let mut parser = Parser::new();
    let why = loop {
        let unsent = !shared.outgoing().unsent.is_empty();
        let step = tokio::select! {
            ready = shared.socket.readable() => ready.map_err(|e| ControlError::Io(e.kind())).and_then(|()| read(&shared, &mut parser)),
            ready = shared.socket.writable(), if unsent => ready.map_err(|e| ControlError::Io(e.kind())).and_then(|()| flush(&shared)),
            () = shared.bell.notified() => Ok(()),
            () = tasks.killed() => Err(ControlError::Closed),
        };
        if let Err(why) = step {
            break why;
        }
        if let Some(why) = shared.outgoing().ended.clone() {
            break why;
        }
    };
    shared.end(&why);
}

/// Reads the available bytes and delivers every complete reply to its receiver.
fn read(shared: &Shared, parser: &mut Parser) -> Result<(), ControlError> {
    parser.buffer().reserve(READ_SIZE);
    match shared.socket.try_read_buf(parser.buffer()) {
        Ok(0) => return Err(ControlError::Closed),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(e) => return Err(ControlError::Io(e.kind())),
    }
    loop {
        let limit = shared.outgoing().pending.front().map_or(MAX_REPLY, |pending| pending.limit);
        let Some(reply) = parser.next(limit)? else { break };
        if reply.is_event() {
            shared.push(Incoming::Event(Event::read(&reply)));
            continue;
        }
        // This is a separate statement, so that the lock is not held while the answer is delivered.
        let pending = shared.outgoing().pending.pop_front();
        match pending {
            Some(Pending { waiter, .. }) => shared.tell(waiter, Ok(reply)),
            None => tracing::debug!(code = reply.code(), "tor sent an answer without a command"),
        }
    }
    if shared.waiting.load(Ordering::Relaxed) > BACKLOG_END { Err(ControlError::Backlog) } else { Ok(()) }
}

/// Writes as many of the waiting bytes as the socket accepts.
fn flush(shared: &Shared) -> Result<(), ControlError> {
    let mut outgoing = shared.outgoing();
    match shared.socket.try_write(&outgoing.unsent) {
        Ok(written) => {
            outgoing.unsent.drain(..written);
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(e) => Err(ControlError::Io(e.kind())),
    }
}
