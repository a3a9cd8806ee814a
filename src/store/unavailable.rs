//! A store whose file cannot be used: the gateway goes on from memory, and the file is left exactly as it is.
//!
//! It keeps the promise of the ordinary one: nobody is told of a durability that is not there. So every change that is
//! asked for is refused, every note is dropped and counted, and the health says why for as long as the process runs. What
//! a person does about the file takes a restart.

use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use super::fault::{Fault, StoreError};
use super::file::Claim;
use super::writer::{Health, Job};
use crate::exit::Moment;
use crate::telemetry::metrics as names;

/// Says that there is no file, and starts the thread that refuses. It keeps the claim, so that nobody moves the file away
/// while there is a gateway that speaks of it.
pub(super) fn start(
    fault: Fault,
    claim: Claim,
    mut jobs: mpsc::Receiver<Job>,
) -> std::io::Result<watch::Receiver<Health>> {
    tracing::error!(fault = fault.as_str(), "the store cannot be used, going on from memory: {fault}");
    metrics::gauge!(names::STORE_FAILING).set(1.0);
    metrics::counter!(names::STORE_FAULTS, "reason" => fault.as_str()).increment(1);
    let since = Moment::from(SystemTime::now());
    let (tell, health) = watch::channel(Health::Failing { fault: fault.clone(), since, behind: 0 });
    let work = move || {
        let lost = metrics::counter!(names::STORE_NOTES_LOST);
        while let Some(job) = jobs.blocking_recv() {
            match job {
                // Whoever asked may have left.
                Job::Commit { answer, .. } => drop(answer.send(Err(StoreError::Refused(fault.clone())))),
                Job::Note(_) => lost.increment(1),
                Job::Close => break,
                #[cfg(test)]
                Job::Meddle(_) => {}
            }
        }
        drop((claim, jobs, tell)); // in this order: who closes waits for the queue first, and then for the health
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
    Ok(health)
}
