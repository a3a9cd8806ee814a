//! State on the disk: SQLite on a thread of its own, behind a bounded channel.
//!
//! There are two kinds of writes. What a user *asked for* (a route, a pin, a rotation) is [committed](Store::commit): the
//! answer comes when it is on the disk. What was only *noticed* (a check, a last use, a verdict) is
//! [noted](Store::note): it is batched, never waited for, and dropped first when there is no room. Both are a [`Write`].
//!
//! Histories are read on another connection, so reads and writes do not wait for each other. No type of the database
//! leaves this room: callers use records, [`Write`], [`Fault`] and a handle.
//!
//! Next: `store/writer.rs` (the thread, and what happens when the disk is full), `store/file.rs` (open, check, backup).
//! Each table has a file beside them. [`crate::state`] is the caller.

mod bans;
mod checks;
mod exits;
mod fault;
mod file;
mod load;
mod meta;
mod pins;
mod public;
mod reader;
mod routes;
mod row;
mod sessions;
mod unavailable;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::bans::Ban;
pub use self::checks::{Check, Page, Timings};
pub use self::exits::{Exit, Observed, TargetVerdict, Verdict};
pub use self::fault::{Fault, StoreError};
pub use self::file::{Report, backup, check, set_aside};
pub use self::load::Loaded;
pub use self::meta::Source;
pub use self::public::Public;
pub use self::routes::Route;
pub use self::write::Write;
pub use self::writer::Health;

use self::reader::Reader;
use self::writer::{Job, Writer};
use crate::exit::ExitId;
use crate::lifecycle::yielding;
use crate::telemetry::metrics as names;

/// How much the store keeps, and how much may wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Checks older than this are deleted.
    pub keep_checks: Duration,
    /// How many writes may wait, and how many notes are kept while the file fails.
    pub queue: usize,
}

impl Default for Options {
    /// Two weeks of history (100 MB at one check a second), and a queue of about 2 MB.
    fn default() -> Self {
        Self { keep_checks: Duration::from_secs(14 * 86_400), queue: 8192 }
    }
}

/// One in this many places of the queue is reserved for commits.
const FOR_CHANGES: usize = 8;

/// A handle on the store: cheap to clone. The file is closed when [`Store::close`] returns, or soon after the last handle
/// is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    reader: Reader,
    health: watch::Receiver<Health>,
    reserve: usize,
    lost: metrics::Counter,
}

impl Store {
    /// Opens the file, creates it or brings its schema up to date, reads everything and starts the threads. Blocks for some
    /// milliseconds. A file that can be read but not written is opened, and commits are refused.
    pub fn open(path: &Path, options: Options) -> Result<(Self, Loaded), StoreError> {
        let failed = |fault: Fault| StoreError::Open { path: path.to_owned(), fault };
        let claim = file::claim(path)?;
        let db = file::open(path)?;
        let loaded = load::load(&db).map_err(|error| failed(error.into()))?;
        let first_write = meta::put(&db, "written_by", env!("CARGO_PKG_VERSION"));
        let reader = Reader::start(path)?;

        let queue = options.queue.max(2 * FOR_CHANGES);
        let (jobs, waiting) = mpsc::channel(queue);
        let (sender, health) = watch::channel(Health::Ok);
        let mut writer = Writer::new(db, claim, waiting, sender, (queue, options.keep_checks));
        if let Err(error) = first_write {
            writer.begin_failing(error.into());
        }
        spawn(writer).map_err(|error| failed(error.into()))?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        Ok((Self { jobs, reader, health, reserve: queue / FOR_CHANGES, lost }, loaded))
    }

    /// A store for a gateway that runs although its file cannot be used, for this reason. It keeps nothing, refuses every
    /// commit, and does not touch the file.
    pub fn refusing(path: &Path, fault: Fault, options: Options) -> Result<Self, StoreError> {
        let claim = file::claim(path)?;
        let queue = options.queue.max(2 * FOR_CHANGES);
        let (jobs, waiting) = mpsc::channel(queue);
        let failed = |error: std::io::Error| StoreError::Open { path: path.to_owned(), fault: error.into() };
        let health = unavailable::start(fault, claim, waiting).map_err(failed)?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        Ok(Self { jobs, reader: Reader::of_nothing(), health, reserve: queue / FOR_CHANGES, lost })
    }

    /// Writes a change, all of it or nothing, and returns when it is on the disk. The change may also happen if the caller
    /// stops waiting. It hangs as long as the disk does: use a deadline.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.jobs.send(Job::Commit { writes, answer }).await.map_err(|_| StoreError::Closed)?;
        let died = || StoreError::Refused(Fault::Io("the store's thread panicked while it wrote this change".into()));
        result.await.unwrap_or_else(|_| Err(died()))
    }

    /// Writes something soon. Never waits; what finds no room is dropped and counted. While the file takes writes, notes
    /// and commits are written in the order of the calls.
    pub fn note(&self, write: Write) {
        if self.jobs.capacity() <= self.reserve || self.jobs.try_send(Job::Note(write)).is_err() {
            self.lost.increment(1);
        }
    }

    /// Writes what waits, and closes the file. Call it last: later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        let _ = self.jobs.send(Job::Close).await; // fails if it is closed already
        self.jobs.closed().await;
        let mut health = self.health.clone();
        while health.changed().await.is_ok() {} // the writer drops its end when it has closed the file
    }

    /// The checks of an exit, newest first.
    pub async fn checks(&self, exit: &ExitId, target: Option<&str>, page: Page) -> Result<Vec<Check>, StoreError> {
        let (exit, target) = (exit.clone(), target.map(str::to_owned));
        self.reader.ask(move |db| checks::list(db, &exit, target.as_deref(), page)).await
    }
}

/// Starts the thread that writes. After a panic it goes on; what it was writing then is lost, and its callers get an error.
fn spawn(mut writer: Writer) -> std::io::Result<()> {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let work = move || {
        yielding::mark_background();
        while std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run(&clock))).is_err() {
            tracing::error!("the store's thread panicked; this is a bug in exitgate, please report it");
            writer.forget_backlog();
        }
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work).map(drop)
}
