//! The jobs of the thread that writes (`store/writer.rs`).

use tokio::sync::oneshot;

use super::fault::StoreError;
use super::write::Write;

/// A job for the thread that writes.
#[derive(Debug)]
pub(super) enum Job {
    /// Writes all of `writes` or none, and sends the answer when the writes are on the disk.
    Commit { writes: Vec<Write>, answer: oneshot::Sender<Result<(), StoreError>>, otherwise: Otherwise },
    /// Writes this note together with other writes. No caller waits for the note.
    Note(Write),
    /// Writes everything that is in the queue, and then ends the thread.
    Close,
    /// In tests, this job damages the file.
    #[cfg(test)]
    Meddle(fn(&rusqlite::Connection)),
}

impl Job {
    pub(super) fn into_note(self) -> Option<Write> {
        if let Self::Note(write) = self { Some(write) } else { None }
    }
}

/// What happens to a commit that fails or whose caller stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Nothing of the commit stays in the file, because the caller reports to a user that nothing has changed.
    Undo,
    /// The writes become notes, because their facts stay true even if this commit fails.
    Note,
}
