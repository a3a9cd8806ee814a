//! A store whose file cannot be used: the gateway runs from memory, and the file is not touched.
//!
//! No commit is acknowledged that is not on the disk. So every commit is refused, and every note is dropped and counted,
//! for as long as the process runs. When the file is repaired, the gateway must be restarted.

use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use super::fault::{Fault, StoreError};
use super::file::Claim;
use super::writer::{Health, Job};
use crate::exit::Moment;
use crate::telemetry::metrics as names;

/// Logs the fault, and starts the thread that refuses commits. It keeps the file's lock: no other exitgate may use or move
/// the file meanwhile.
pub(super) fn start(
    fault: Fault,
    claim: Claim,
    mut jobs: mpsc::Receiver<Job>,
) -> std::io::Result<watch::Receiver<Health>> {
    tracing::error!(fault = fault.as_str(), "the store cannot be used, and the gateway runs from memory: {fault}");
    metrics::gauge!(names::STORE_FAILING).set(1.0);
    metrics::counter!(names::STORE_FAULTS, "reason" => fault.as_str()).increment(1);
    let since = Moment::from(SystemTime::now());
    let (sender, health) = watch::channel(Health::Failing { fault: fault.clone(), since, behind: 0 });
    let work = move || {
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        while let Some(job) = jobs.blocking_recv() {
            match job {
                // Sending fails if the caller has gone.
                Job::Commit { answer, .. } => drop(answer.send(Err(StoreError::Refused(fault.clone())))),
                Job::Note(_) => lost.increment(1),
                Job::Close => break,
                #[cfg(test)]
                Job::Meddle(_) => {}
            }
        }
        drop((claim, jobs, sender)); // in this order: `Store::close` waits for the queue, then for the health
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
    Ok(health)
}
