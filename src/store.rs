//! Stores the state on the disk: SQLite on a thread of its own, behind a bounded channel.
//!
//! There are two ways to write. A change that a user *asked for* (a route, a pin, a rotation) is
//! [committed](Store::commit): the caller gets the answer when the change is on the disk. A fact that the gateway only
//! *observed* (a check, a last use, a verdict) is [noted](Store::note): it is written later, together with others, and
//! no caller waits for it. If the queue is full, notes are dropped and commits are not. The type [`Write`] serves for
//! both ways.
//!
//! Histories are read on a separate connection, so reads and writes do not wait for each other. No type of the database
//! library is visible outside this module: callers use records, [`Write`], [`Fault`] and a handle.
//!
//! Next: `store/writer.rs` contains the thread that writes, and what happens when the disk is full. `store/file.rs`
//! opens, checks and backs up the file. Each table has a file in the same folder. [`crate::state`] is the main caller.

mod bans;
mod checks;
mod exits;
mod fault;
mod file;
mod job;
mod keys;
mod load;
mod meta;
mod pins;
mod public;
mod reader;
mod routes;
mod row;
mod sessions;
mod settle;
mod stall;
mod unavailable;
mod write;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::bans::Ban;
pub use self::checks::{Check, Page, Timings};
pub use self::exits::{Exit, Observed, TargetVerdict, Verdict};
pub use self::fault::{Fault, StoreError};
pub use self::file::{Report, backup, check, set_aside};
pub use self::keys::{Key, KeyUsage, UsagePeriod};
pub use self::load::Loaded;
pub use self::meta::Source;
pub use self::public::Public;
pub use self::routes::Route;
pub use self::write::Write;
pub use self::writer::Health;

use self::job::{Job, Otherwise};
use self::reader::Reader;
use self::stall::{PATIENCE, Stall};
use self::writer::Writer;
use crate::exit::ExitId;
use crate::lifecycle::yielding;
use crate::telemetry::metrics as names;

/// How much the store keeps, and how many writes may wait in its queue.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The age after which checks are deleted.
    pub keep_checks: Duration,
    /// How many writes may wait in the queue. The same number of notes is kept while the file cannot be written.
    pub queue: usize,
}

impl Default for Options {
    /// Keeps two weeks of history (100 MB at one check per second), and a queue of about 2 MB.
    fn default() -> Self {
        Self { keep_checks: Duration::from_secs(14 * 86_400), queue: 8192 }
    }
}

/// One in this many places of the queue is reserved for commits, so notes alone cannot fill the queue.
const FOR_CHANGES: usize = 8;

/// How long the end of the gateway waits for the last writes. systemd kills a service after 90 s. Not tuned.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// A handle on the store. Cheap to clone. The file is closed when [`Store::close`] returns, or soon after the last
/// handle is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    reader: Reader,
    health: watch::Receiver<Health>,
    stall: Arc<Stall>,
    reserve: usize,
    lost: metrics::Counter,
}

impl Store {
    /// Opens the file (or creates it), updates its schema, reads all data, and starts the threads. This blocks for some
    /// milliseconds. A file that can be read but not written is also opened, and then every commit is refused.
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
        let stall = Arc::new(Stall::new());
        let mut writer = Writer::new(db, claim, waiting, sender, stall.clone(), (queue, options.keep_checks));
        if let Err(error) = first_write {
            writer.begin_failing(error.into());
        }
        spawn(writer).map_err(|error| failed(error.into()))?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        Ok((Self { jobs, reader, health, stall, reserve: queue / FOR_CHANGES, lost }, loaded))
    }

    /// Returns a store for a gateway that runs although its file cannot be used. `fault` is the reason. This store
    /// keeps nothing, refuses every commit, and does not touch the file.
    pub fn refusing(path: &Path, fault: Fault, options: Options) -> Result<Self, StoreError> {
        let claim = file::claim(path)?;
        let queue = options.queue.max(2 * FOR_CHANGES);
        let (jobs, waiting) = mpsc::channel(queue);
        let failed = |error: std::io::Error| StoreError::Open { path: path.to_owned(), fault: error.into() };
        let health = unavailable::start(fault, claim, waiting).map_err(failed)?;
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        let (reader, stall) = (Reader::of_nothing(), Arc::new(Stall::new()));
        Ok(Self { jobs, reader, health, stall, reserve: queue / FOR_CHANGES, lost })
    }

    /// Writes a change completely or not at all, and returns when the change is on the disk. If the disk hangs for
    /// longer than [`PATIENCE`], this returns [`Fault::Hung`], and the change is undone if the disk finishes the write
    /// later. The change is also undone if the caller stops waiting. While the disk hangs, later commits are refused
    /// immediately.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if self.stall.hangs() {
            return Err(StoreError::Refused(Fault::Hung));
        }
        let deadline = Instant::now() + PATIENCE;
        let (answer, mut result) = oneshot::channel();
        let job = Job::Commit { writes, answer, otherwise: Otherwise::Undo };
        match timeout_at(deadline, self.jobs.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => return Err(self.late()),
        }
        match timeout_at(deadline, &mut result).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(died())),
            Err(_) => {
                // The wait is over, so the channel is closed. The writer then cannot answer any more and undoes the
                // commit. If the writer has already sent an answer, that answer counts.
                result.close();
                result.try_recv().unwrap_or_else(|_| Err(self.late()))
            }
        }
    }

    fn late(&self) -> StoreError {
        self.stall.commit_is_late();
        StoreError::Refused(Fault::Hung)
    }

    /// Writes facts that stay true even if the write fails, and returns when they are on the disk. `writes` is called
    /// as soon as the queue has a free place. If the time `within` is over or the file fails, this function returns an
    /// error, and the facts are written later, like notes (writes for which no caller waits). While the disk hangs, the
    /// error is returned immediately.
    pub async fn commit_or_note(
        &self,
        within: Duration,
        writes: impl FnOnce() -> Vec<Write>,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + if self.stall.hangs() { Duration::ZERO } else { within };
        let late = |_| StoreError::Refused(Fault::Hung);
        let place = timeout_at(deadline, self.jobs.reserve()).await.map_err(late)?.map_err(|_| StoreError::Closed)?;
        let (answer, result) = oneshot::channel();
        place.send(Job::Commit { writes: writes(), answer, otherwise: Otherwise::Note });
        timeout_at(deadline, result).await.map_err(late)?.unwrap_or_else(|_| Err(died()))
    }

    /// Reports a disk that hangs: in the log, and in the metric of a failing store. The caller calls this every few
    /// seconds.
    pub fn look_at_disk(&self) {
        self.stall.look();
    }

    /// Returns true if the queue has room for one more note. Without room, a note would be dropped.
    pub fn has_room(&self) -> bool {
        self.jobs.capacity() > self.reserve
    }

    /// Returns true while writes fail.
    pub fn is_failing(&self) -> bool {
        matches!(*self.health.borrow(), Health::Failing { .. })
    }

    /// Writes something soon after this call, which never blocks. If the queue is full, the write is dropped and
    /// counted. While the file can be written, writes of this kind (notes) and commits are written in the order of the
    /// calls.
    pub fn note(&self, write: Write) {
        if !self.has_room() || self.jobs.try_send(Job::Note(write)).is_err() {
            self.lost.increment(1);
        }
    }

    /// Writes everything that is in the queue, and closes the file. Call this last: later calls fail with
    /// [`StoreError::Closed`]. If the disk hangs, this gives up after [`CLOSE_WITHIN`].
    pub async fn close(&self) {
        let closed = async {
            let _ = self.jobs.send(Job::Close).await; // fails if the store is already closed
            self.jobs.closed().await;
            let mut health = self.health.clone();
            while health.changed().await.is_ok() {} // the writer drops its sender after it has closed the file
        };
        if timeout(CLOSE_WITHIN, closed).await.is_err() {
            tracing::error!("the store was not closed, because the disk hangs: observations of the last time are lost");
        }
    }

    /// Returns the key that the API created under this name, as it was committed last.
    pub async fn key(&self, name: &str) -> Result<Option<Key>, StoreError> {
        let name = name.to_owned();
        self.reader.ask(move |db| keys::get(db, &name)).await
    }

    /// Returns the checks of an exit, newest first.
    pub async fn checks(&self, exit: &ExitId, target: Option<&str>, page: Page) -> Result<Vec<Check>, StoreError> {
        let (exit, target) = (exit.clone(), target.map(str::to_owned));
        self.reader.ask(move |db| checks::list(db, &exit, target.as_deref(), page)).await
    }
}

fn died() -> StoreError {
    StoreError::Refused(Fault::Io("the store's thread panicked while it wrote this change".into()))
}

/// Starts the thread that writes. The thread continues after a panic. The writes that were in progress are then lost,
/// and their callers get an error.
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
