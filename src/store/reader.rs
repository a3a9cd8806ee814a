//! The thread that reads histories, on a database connection of its own.
//!
//! A query must not wait for the fsync of a write, and must not block the threads of the runtime. One connection is
//! enough, because few people look at histories at the same time. The queue is bounded to limit the memory.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, StoreError};
use super::file;

/// How many queries may wait in the queue. Not tuned.
const QUEUE: usize = 64;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// A handle on the thread that reads.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    queries: mpsc::Sender<Query>,
}

impl Reader {
    /// Opens a connection for reading and starts the thread. The thread ends when the last handle is dropped.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let db = file::open_for_reading(path)?;
        let (queries, mut received) = mpsc::channel::<Query>(QUEUE);
        let work = move || {
            while let Some(query) = received.blocking_recv() {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| query(&db)));
                if done.is_err() {
                    tracing::error!("a query of the store panicked; this is a bug in exitgate, please report it");
                }
            }
        };
        let started = std::thread::Builder::new().name("store-lists".to_owned()).spawn(work);
        started.map_err(|error| StoreError::Open { path: path.to_owned(), fault: error.into() })?;
        Ok(Self { queries })
    }

    /// Returns a reader without a file: every query fails.
    pub(super) fn of_nothing() -> Self {
        Self { queries: mpsc::channel(1).0 }
    }

    /// Runs a query on the thread, and returns the result.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let query: Query = Box::new(move |db| {
            let _ = answer.send(query(db)); // fails if the caller no longer waits
        });
        self.queries.send(query).await.map_err(|_| StoreError::Closed)?;
        let panicked = |_| StoreError::Refused(Fault::Io("the query panicked, which is a bug in exitgate".into()));
        result.await.map_err(panicked)?.map_err(StoreError::from)
    }
}
