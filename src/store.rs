//! SQLite on a thread of its own, behind a bounded channel.
//!
//! There are two kinds of writes, because there are two kinds of loss. What somebody *asked for* (a route, a pin, a
//! rotation) is [committed](Store::commit): the answer comes when it is on the disk, and not before. What we merely
//! *noticed* (a check, a last use, a verdict) is [noted](Store::note): batched, never waited for, and the first to go
//! when there is no room. Both say what they mean with the same word, [`Write`].
//!
//! Lists are read on a connection of their own, so that a page of history never waits behind a write, nor the other way
//! round. No type of the database's own leaves this room: callers know records, [`Write`], [`Fault`] and a handle, and
//! another store could stand behind the same page.
//!
//! Next: `store/writer.rs` (the thread, and what happens when the disk is full), `store/file.rs` (open, check, backup);
//! one file a table beside them. [`crate::state`] is the caller.

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
    /// Checks older than this are forgotten.
    pub keep_checks: Duration,
    /// Writes that may wait, and notes that are kept while the file fails.
    pub queue: usize,
}

impl Default for Options {
    /// Two weeks of history (a plot of a fortnight, 100 MB at a check a second), and a queue of about 2 MB.
    fn default() -> Self {
        Self { keep_checks: Duration::from_secs(14 * 86_400), queue: 8192 }
    }
}

/// The share of the queue that notes leave free for changes.
const FOR_CHANGES: usize = 8;

/// A handle on the store: cheap to clone. The file is let go when [`Store::close`] returns, or soon after the last
/// handle is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    reader: Reader,
    health: watch::Receiver<Health>,
    reserve: usize,
    lost: metrics::Counter,
}

impl Store {
    /// Opens the file, creates it or brings its schema up to date, reads everything and starts the threads. Takes
    /// milliseconds and blocks for them. A file that can be read but not written opens, with [`Store::health`] failing.
    pub fn open(path: &Path, options: Options) -> Result<(Self, Loaded), StoreError> {
        let failed = |fault: Fault| StoreError::Open { path: path.to_owned(), fault };
        let claim = file::claim(path)?;
        let db = file::open(path)?;
        let loaded = load::load(&db).map_err(|error| failed(error.into()))?;
        let first_write = meta::put(&db, "written_by", env!("CARGO_PKG_VERSION"));
        let reader = Reader::start(path)?;

        let queue = options.queue.max(2 * FOR_CHANGES);
        let (jobs, waiting) = mpsc::channel(queue);
        let (tell, health) = watch::channel(Health::Ok);
        let mut writer = Writer::new(db, claim, waiting, tell, (queue, options.keep_checks));
        if let Err(error) = first_write {
            writer.begin_failing(error.into());
        }
        spawn(writer).map_err(|error| failed(error.into()))?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        Ok((Self { jobs, reader, health, reserve: queue / FOR_CHANGES, lost }, loaded))
    }

    /// A store for a gateway that must go on although its file cannot be used, for this reason. It remembers nothing,
    /// refuses every change, and leaves the file alone.
    pub fn refusing(path: &Path, fault: Fault, options: Options) -> Result<Self, StoreError> {
        let claim = file::claim(path)?;
        let queue = options.queue.max(2 * FOR_CHANGES);
        let (jobs, waiting) = mpsc::channel(queue);
        let failed = |error: std::io::Error| StoreError::Open { path: path.to_owned(), fault: error.into() };
        let health = unavailable::start(fault, claim, waiting).map_err(failed)?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        Ok(Self { jobs, reader: Reader::of_nothing(), health, reserve: queue / FOR_CHANGES, lost })
    }

    /// Writes a change, all of it or nothing, and returns when it is on the disk. Once this was called the change may
    /// happen, whether or not the caller stays to hear of it. A disk that hangs makes this hang: bring a deadline.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let (answer, told) = oneshot::channel();
        self.jobs.send(Job::Commit { writes, answer }).await.map_err(|_| StoreError::Closed)?;
        let died = || StoreError::Refused(Fault::Io("the store's thread died over this change".into()));
        told.await.unwrap_or_else(|_| Err(died()))
    }

    /// Writes something soon, if it can. Never waits; what finds no room is dropped and counted. Notes and changes are
    /// written in the order in which they were given while the file is well.
    pub fn note(&self, write: Write) {
        if self.jobs.capacity() <= self.reserve || self.jobs.try_send(Job::Note(write)).is_err() {
            self.lost.increment(1);
        }
    }

    /// Writes what waits and lets go of the file. Call it last; a call after it gets [`StoreError::Closed`].
    pub async fn close(&self) {
        let _ = self.jobs.send(Job::Close).await; // closed already: then only the wait is left
        self.jobs.closed().await;
        let mut health = self.health.clone();
        while health.changed().await.is_ok() {} // the writer drops its end when it has let go
    }

    /// The checks of an exit, newest first.
    pub async fn checks(&self, exit: &ExitId, target: Option<&str>, page: Page) -> Result<Vec<Check>, StoreError> {
        let (exit, target) = (exit.clone(), target.map(str::to_owned));
        self.reader.ask(move |db| checks::list(db, &exit, target.as_deref(), page)).await
    }
}

/// Starts the thread that writes. It outlives a panic in itself: what it was writing then is lost and said to be.
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
