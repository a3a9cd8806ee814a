//! The thread that writes to the database.
//!
//! A commit is a write whose caller waits until it is on the disk. A note is a write for which no caller waits. When
//! the thread wakes, it writes everything that is in its queue in one transaction, so several commits and notes share
//! one fsync. If there are only notes, they are collected for a short time and written without fsync. A power cut can
//! then lose the notes of the last quarter of a second, which does no harm.
//!
//! When the file fails (full, locked, read-only, damaged), a commit is refused immediately. Notes are kept for the next
//! try, up to a limit. The thread tries again with growing pauses, and in the meantime the gateway runs from memory.
//! This thread never deletes or replaces the file.
//!
//! Next: `store/settle.rs` decides what becomes of the jobs of a batch. `store/stall.rs` notices a disk that hangs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Histogram};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::fault::Fault;
use super::file::Claim;
use super::job::{Job, Otherwise};
use super::settle::{Outcome, Settled, commit, remove_older, settle};
use super::stall::Stall;
use super::write::{Write, apply};
use super::{bans, checks, meta, sessions};
use crate::exit::Moment;
use crate::lifecycle::yielding;
use crate::telemetry::metrics as names;

/// The largest number of jobs in one transaction. This is about 30 ms of work, because a commit behind many notes must
/// not wait longer.
const MOST: usize = 1024;

/// How long notes are collected before they are written. This leads to at most four small transactions per second. Not
/// tuned.
const LINGER: Duration = Duration::from_millis(250);

/// The first and the longest pause between two tries to write a failing file. After a person has repaired the file, the
/// thread writes again within half a minute.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The time after which a failure that continues is logged again.
const REMIND: Duration = Duration::from_secs(600);

/// The time between two deletions of expired rows, and the largest number of checks that one deletion removes. 60,000
/// checks a minute (1,000 per second) are more than the testers make, and 60,000 rows of 100 bytes are deleted in well
/// under a second.
const SWEEP: (Duration, u32) = (Duration::from_secs(60), 60_000);

/// How many free pages of the file one deletion of expired rows gives back to the disk. The pages have 4 MB together.
const GIVE_BACK: u32 = 1024;

/// Whether the file can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Ok,
    /// Writes fail, and the gateway runs from memory.
    Failing {
        fault: Fault,
        since: Moment,
        /// How many notes (writes for which no caller waits) are kept for the next try.
        behind: usize,
    },
}

struct Failing {
    fault: Fault,
    since: Moment,
    tries: u32,
    next: Instant,
    said: Instant,
}

struct Meters {
    queue: Gauge,
    failing: Gauge,
    seconds: Histogram,
    lost: Counter,
}

/// The state of the thread that writes.
pub(super) struct Writer {
    db: Connection,
    _claim: Claim,
    jobs: mpsc::Receiver<Job>,
    health: watch::Sender<Health>,
    stall: Arc<Stall>,
    failing: Option<Failing>,
    backlog: VecDeque<Write>,
    room: usize,
    keep_checks: Duration,
    sweep: Instant,
    meters: Meters,
}

impl Writer {
    /// Returns a writer for an open file. `room` is the largest number of notes (writes for which no caller waits) that
    /// are kept while the file fails.
    pub(super) fn new(
        db: Connection,
        claim: Claim,
        jobs: mpsc::Receiver<Job>,
        health: watch::Sender<Health>,
        stall: Arc<Stall>,
        (room, keep_checks): (usize, Duration),
    ) -> Self {
        let meters = Meters {
            queue: metrics::gauge!(names::STORE_QUEUE),
            failing: metrics::gauge!(names::STORE_FAILING),
            seconds: metrics::histogram!(names::STORE_WRITE_SECONDS),
            lost: metrics::counter!(names::STORE_NOTES_LOST),
        };
        let sweep = Instant::now() + SWEEP.0;
        let backlog = VecDeque::new();
        Self { db, _claim: claim, jobs, health, stall, failing: None, backlog, room, keep_checks, sweep, meters }
    }

    /// Records that the first write at the start failed.
    pub(super) fn begin_failing(&mut self, fault: Fault) {
        self.fail(fault);
    }

    /// Drops the notes (writes for which no caller waits) that are kept for the next try. This is called after a panic,
    /// because one of these notes may have caused the panic.
    pub(super) fn forget_backlog(&mut self) {
        self.meters.lost.increment(self.backlog.len() as u64);
        self.backlog.clear();
        self.stall.end(self.failing.is_some());
    }

    /// Works until [`Job::Close`] arrives, or until the last handle is dropped.
    pub(super) fn run(&mut self, clock: &tokio::runtime::Runtime) {
        loop {
            let mut batch = Vec::new();
            let more = clock.block_on(self.gather(&mut batch));
            let closing = !more || batch.iter().any(|job| matches!(job, Job::Close));
            if closing {
                self.jobs.close();
                while let Ok(job) = self.jobs.try_recv() {
                    batch.push(job);
                }
            }
            self.stall.begin();
            self.take(batch);
            if closing {
                return self.finish();
            }
            if Instant::now() >= self.sweep {
                self.tidy();
            }
            self.stall.end(self.failing.is_some());
        }
    }

    /// Waits for jobs, for the next deletion of expired rows, or for the next try. Returns false if no more jobs can
    /// arrive.
    async fn gather(&mut self, batch: &mut Vec<Job>) -> bool {
        let retry = self.failing.as_ref().map(|failing| failing.next);
        let until = retry.map_or(self.sweep, |retry| retry.min(self.sweep));
        match timeout_at(until, self.jobs.recv_many(batch, MOST)).await {
            Err(_) => return true,
            Ok(0) => return false,
            Ok(_) => {}
        }
        let linger = Instant::now() + LINGER;
        let mut seen = 0;
        while batch.len() < MOST && batch[seen..].iter().all(|job| matches!(job, Job::Note(_))) {
            seen = batch.len();
            match timeout_at(linger, self.jobs.recv_many(batch, MOST - seen)).await {
                Err(_) => break,
                Ok(0) => return false,
                Ok(_) => {}
            }
        }
        self.meters.queue.set(self.jobs.len() as f64);
        true
    }

    /// Writes a batch, and answers its commits.
    fn take(&mut self, batch: Vec<Job>) {
        #[cfg(test)]
        batch.iter().for_each(|job| {
            if let Job::Meddle(meddle) = job {
                meddle(&self.db)
            }
        });
        let commits = batch.iter().any(|job| matches!(job, Job::Commit { .. }));
        let due = self.failing.as_ref().is_none_or(|failing| failing.next <= Instant::now());
        let notes = batch.iter().any(|job| matches!(job, Job::Note(_)));
        let worth_it = commits || due && (notes || self.failing.is_some());
        if !worth_it {
            return self.keep(batch.into_iter().filter_map(Job::into_note));
        }
        let begun = Instant::now();
        let tried = self.transact(&batch, due);
        self.meters.seconds.record(begun.elapsed());
        let outcome = match tried {
            Ok(outcomes) if due => {
                self.backlog.clear();
                self.recover();
                return self.undo(settle(batch, outcomes).undo);
            }
            Err(fault) => {
                self.fail(fault.clone());
                // The whole batch could not be written. If the disk is full, it may still have enough space for the
                // commits alone, because commits are small. So the commits are written without the notes.
                let alone = commits && due && !matches!(fault, Fault::Locked | Fault::ReadOnly);
                if alone { self.transact(&batch, false) } else { Err(fault) }
            }
            commits_alone => commits_alone,
        };
        let Settled { notes, undo, written } = match outcome {
            Ok(outcomes) => settle(batch, outcomes),
            Err(fault) => settle(batch, std::iter::repeat(Err(fault))),
        };
        remove_older(&mut self.backlog, &written);
        self.undo(undo);
        self.keep(notes);
    }

    /// Makes `writes`, which undo commits whose callers no longer wait. If this fails, `writes` are kept and tried
    /// again with the notes.
    fn undo(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        tracing::warn!("a change was written after its caller had been told that the disk hangs, and is undone");
        self.backlog.extend(writes);
        match self.transact(&[], true) {
            Ok(_) => self.backlog.clear(),
            Err(fault) => self.fail(fault),
        }
    }

    /// Writes a batch in one transaction. `notes` is true if the notes of the batch are written too. An error means
    /// that the file failed, and then no part of the batch is stored. A commit that contradicts the stored data is
    /// undone alone.
    fn transact(&mut self, batch: &[Job], notes: bool) -> Result<Vec<Outcome>, Fault> {
        let durable = batch.is_empty() || batch.iter().any(|job| matches!(job, Job::Commit { .. }));
        self.db.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
        let mut tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut answers = Vec::new();
        if notes {
            if self.failing.is_some() {
                meta::put(&tx, "written_by", env!("CARGO_PKG_VERSION"))?; // shows whether the file can be written
            }
            self.backlog.iter().try_for_each(|write| note(&tx, write, &self.meters.lost))?;
        }
        for job in batch {
            if !durable {
                yielding::yield_if_due(); // no caller waits for a note
            }
            match job {
                Job::Note(write) if notes => note(&tx, write, &self.meters.lost)?,
                Job::Commit { answer, otherwise: Otherwise::Undo, .. } if answer.is_closed() => {
                    answers.push(Err(Fault::Hung)); // the caller has given up, so nothing is written
                }
                Job::Commit { writes, otherwise, .. } => answers.push(commit(&mut tx, writes, *otherwise)?),
                _ => {}
            }
        }
        tx.commit()?;
        Ok(answers)
    }

    /// Keeps notes (writes for which no caller waits) until the file can be written. If there are more than the limit,
    /// the oldest are dropped.
    fn keep(&mut self, notes: impl IntoIterator<Item = Write>) {
        self.backlog.extend(notes);
        let over = self.backlog.len().saturating_sub(self.room);
        self.backlog.drain(..over);
        self.meters.lost.increment(over as u64);
        self.publish();
    }

    fn publish(&self) {
        let behind = self.backlog.len();
        let health = self.failing.as_ref().map_or(Health::Ok, |failing| {
            let (fault, since) = (failing.fault.clone(), failing.since);
            Health::Failing { fault, since, behind }
        });
        self.health.send_if_modified(|old| {
            if *old == health {
                false
            } else {
                *old = health;
                true
            }
        });
    }

    fn fail(&mut self, fault: Fault) {
        metrics::counter!(names::STORE_FAULTS, "reason" => fault.as_str()).increment(1);
        self.meters.failing.set(1.0);
        let now = Instant::now();
        let failing = self.failing.get_or_insert_with(|| {
            let since = Moment::from(SystemTime::now());
            Failing { fault: fault.clone(), since, tries: 0, next: now, said: now - REMIND }
        });
        if failing.tries == 0 || failing.fault != fault || now.duration_since(failing.said) >= REMIND {
            tracing::error!(
                fault = fault.as_str(),
                "cannot write to the store, and the gateway runs from memory: {fault}"
            );
            failing.said = now;
        }
        failing.next = now + PAUSES.0.saturating_mul(1 << failing.tries.min(16)).min(PAUSES.1);
        failing.tries = failing.tries.saturating_add(1);
        failing.fault = fault;
        self.publish();
    }

    fn recover(&mut self) {
        if let Some(failing) = self.failing.take() {
            tracing::info!(fault = failing.fault.as_str(), "the store takes writes again");
            self.meters.failing.set(0.0);
            self.publish();
        }
    }

    /// Deletes expired rows, and gives free pages back to the disk.
    fn tidy(&mut self) {
        self.sweep = Instant::now() + SWEEP.0;
        if self.failing.is_some() {
            return;
        }
        if let Err(error) = self.sweep_now() {
            self.fail(error.into());
        }
    }

    fn sweep_now(&mut self) -> rusqlite::Result<()> {
        let now = Moment::from(SystemTime::now());
        let keep = u64::try_from(self.keep_checks.as_micros()).unwrap_or(u64::MAX);
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        bans::sweep(&self.db, now)?;
        sessions::sweep(&self.db, now)?;
        checks::forget(&self.db, Moment(now.0.saturating_sub(keep)), SWEEP.1)?;
        // Each step of this statement gives one page of the file back to the disk. So the loop must run until there are
        // no more steps.
        let mut give_back = self.db.prepare_cached(&format!("PRAGMA incremental_vacuum({GIVE_BACK})"))?;
        let mut pages = give_back.query([])?;
        while pages.next()?.is_some() {}
        Ok(())
    }

    /// Copies the write-ahead log into the main file before the thread ends.
    fn finish(&mut self) {
        if !self.backlog.is_empty() {
            self.meters.lost.increment(self.backlog.len() as u64);
            tracing::warn!(notes = self.backlog.len(), "the store closes, and some notes could not be written");
        }
        if let Err(error) = self.db.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::debug!(%error, "the write-ahead log stays beside the file, and the next start reads it");
        }
    }
}

/// Writes a note (a write for which no caller waits). A note that contradicts the stored data is dropped, because every
/// later try would fail too.
fn note(tx: &Transaction<'_>, write: &Write, lost: &Counter) -> Result<(), Fault> {
    match apply(tx, write).map_err(Fault::from) {
        Err(fault) if !fault.is_the_file() => {
            tracing::debug!(%fault, "a note was not written");
            lost.increment(1);
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Route, Store, file};
    use tokio::sync::oneshot;

    use super::*;

    fn route(selector: &str) -> Write {
        let (name, asked) = ("shop".to_owned(), "{}".to_owned());
        Write::PutRoute(Route { name, selector: selector.into(), port: None, asked, created: Moment(1), expires: None })
    }

    /// The disk answers after the caller has given up: between the transaction and the answer.
    #[tokio::test]
    async fn a_commit_that_is_written_after_its_caller_gave_up_is_undone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("exitgate.db");
        let (_jobs, waiting) = mpsc::channel(1);
        let (db, claim) = (file::open(&path).unwrap(), file::claim(&path).unwrap());
        let (health, _) = watch::channel(Health::Ok);
        let keep = Duration::from_secs(1);
        let mut writer = Writer::new(db, claim, waiting, health, Arc::new(Stall::new()), (100, keep));
        let commit = |writes| {
            let (answer, result) = oneshot::channel();
            (vec![Job::Commit { writes, answer, otherwise: Otherwise::Undo }], result)
        };
        let (first, mut result) = commit(vec![route("us"), Write::PutMeta("ports", "1".into())]);
        writer.take(first);
        assert_eq!(result.try_recv(), Ok(Ok(())));

        let (late, result) = commit(vec![
            route("de"),
            route("fr"),
            Write::PutMeta("ports", "2".into()),
            Write::PutMeta("new", "3".into()),
        ]);
        let outcomes = writer.transact(&late, true).unwrap();
        drop(result);
        let undo = settle(late, outcomes).undo;
        writer.undo(undo);
        drop(writer);
        let (_store, loaded) = Store::open(&path, Options::default()).unwrap();
        let selectors: Vec<_> = loaded.routes.into_iter().map(|route| route.selector).collect();
        assert_eq!(selectors, ["us"]);
        assert_eq!((loaded.meta.get("ports").map(String::as_str), loaded.meta.get("new")), (Some("1"), None));
    }
}
