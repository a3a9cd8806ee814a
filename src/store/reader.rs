//! The one thread that reads lists, on a connection of its own.
//!
//! A list must not wait behind a write's fsync, nor hold up the runtime's threads; one connection is enough for the few
//! people who look at histories, and a bounded queue keeps the many from filling memory.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, StoreError};
use super::file;

/// Questions that may wait; more than that wait to be allowed to. Arbitrary.
const QUEUE: usize = 64;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// A handle on the thread that reads.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    questions: mpsc::Sender<Question>,
}

impl Reader {
    /// Opens a reading connection and starts the thread, which ends with the last handle.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let db = file::open_for_reading(path)?;
        let (questions, mut asked) = mpsc::channel::<Question>(QUEUE);
        let work = move || {
            while let Some(question) = asked.blocking_recv() {
                let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| question(&db)));
                if answered.is_err() {
                    tracing::error!("a list of the store panicked; this is a bug in exitgate, please report it");
                }
            }
        };
        let started = std::thread::Builder::new().name("store-lists".to_owned()).spawn(work);
        started.map_err(|error| StoreError::Open { path: path.to_owned(), fault: error.into() })?;
        Ok(Self { questions })
    }

    /// A reader that nobody answers: every list is refused.
    pub(super) fn of_nothing() -> Self {
        Self { questions: mpsc::channel(1).0 }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, told) = oneshot::channel();
        let question: Question = Box::new(move |db| {
            let _ = answer.send(question(db)); // whoever asked may have left
        });
        self.questions.send(question).await.map_err(|_| StoreError::Closed)?;
        let died = |_| StoreError::Refused(Fault::Io("the list died of a bug".into()));
        told.await.map_err(died)?.map_err(StoreError::from)
    }
}
