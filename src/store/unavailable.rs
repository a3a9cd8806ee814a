//! A store whose file cannot be used: the gateway runs from memory, and the file is not touched.
//!
//! A commit (a write whose caller waits) is never acknowledged before it is on the disk. So this store refuses every
//! commit until the process ends. Every note (a write for which nobody waits) is dropped and counted. After the file
//! was repaired, the gateway must be restarted.

use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use super::fault::{Fault, StoreError};
use super::file::Claim;
use super::job::Job;
use super::writer::Health;
use crate::exit::Moment;
use crate::telemetry::metrics as names;

/// Logs the fault, and starts the thread that refuses commits. The thread keeps the lock of the file, so no other
/// exitgate process can use or move the file in the meantime.
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
                // Sending the answer fails if the caller no longer waits.
                Job::Commit { answer, .. } => drop(answer.send(Err(StoreError::Refused(fault.clone())))),
                Job::Note(_) => lost.increment(1),
                Job::Close => break,
                #[cfg(test)]
                Job::Meddle(_) => {}
            }
        }
        // in this order, because `Store::close` waits for the end of `jobs` first, and then for that of `health`
        drop((claim, jobs, sender));
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
    Ok(health)
}
