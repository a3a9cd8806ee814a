//! What becomes of the jobs of a batch after the batch was written, or could not be written.
//!
//! A batch contains commits (their callers wait until the write is on the disk) and notes (nobody waits for them). Two
//! rules keep acknowledged commits safe. First, a note that is older than a commit of the same row is removed, because
//! a later try to write the note would undo the commit. Second, a commit whose caller no longer waits is undone,
//! because this caller got the answer that nothing has changed.

use std::collections::BTreeSet;

use rusqlite::Transaction;

use super::fault::{Fault, StoreError};
use super::job::{Job, Otherwise};
use super::write::{RowKey, Write, before};

/// The result of one commit: the writes that undo it, or why no part of it is stored.
pub(super) type Outcome = Result<Vec<Write>, Fault>;

/// What is left of a batch after its commits were answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settled {
    /// The notes (writes for which no caller waits) of the batch that must still be written, in the order of the calls.
    pub(super) notes: Vec<Write>,
    /// The writes that undo commits whose callers no longer wait.
    pub(super) undo: Vec<Write>,
    /// The rows that the commits of the batch have written. Older notes of the same rows may still wait to be written.
    /// They are removed, so that they do not replace what was committed.
    pub(super) written: Vec<Write>,
}

/// Answers the commits of a batch. `outcomes` are the results of its commits, in their order.
pub(super) fn settle(batch: Vec<Job>, outcomes: impl IntoIterator<Item = Outcome>) -> Settled {
    let (mut settled, mut outcomes) = (Settled::default(), outcomes.into_iter());
    for job in batch {
        let Job::Commit { writes, answer, otherwise } = job else {
            settled.notes.extend(job.into_note());
            continue;
        };
        match (outcomes.next().unwrap_or(Ok(Vec::new())), otherwise) {
            (Ok(undo), otherwise) => {
                remove_older(&mut settled.notes, &writes);
                settled.written.extend(writes);
                if answer.send(Ok(())).is_err() && otherwise == Otherwise::Undo {
                    settled.undo.splice(0..0, undo); // the newest commit is undone first
                }
            }
            (Err(fault), Otherwise::Note) if fault.is_the_file() => {
                settled.notes.extend(writes);
                drop(answer.send(Err(StoreError::Refused(fault)))); // fails if the caller no longer waits
            }
            (Err(fault), _) => drop(answer.send(Err(StoreError::Refused(fault)))),
        }
    }
    settled
}

/// Removes the notes that change the same rows as `commit`, because `commit` is newer than these notes.
pub(super) fn remove_older(notes: &mut impl Retain, commit: &[Write]) {
    let rows: BTreeSet<RowKey<'_>> = commit.iter().filter_map(Write::row).collect();
    if !rows.is_empty() {
        notes.keep_if(|note| note.row().is_none_or(|row| !rows.contains(&row)));
    }
}

/// A list of notes from which some can be removed.
pub(super) trait Retain {
    fn keep_if(&mut self, keep: impl FnMut(&Write) -> bool);
}

impl Retain for Vec<Write> {
    fn keep_if(&mut self, keep: impl FnMut(&Write) -> bool) {
        self.retain(keep);
    }
}

impl Retain for std::collections::VecDeque<Write> {
    fn keep_if(&mut self, keep: impl FnMut(&Write) -> bool) {
        self.retain(keep);
    }
}

/// Writes a commit, completely or not at all. The outer error means that the file failed. The inner error means that
/// the commit contradicts the stored data.
pub(super) fn commit(tx: &mut Transaction<'_>, writes: &[Write], otherwise: Otherwise) -> Result<Outcome, Fault> {
    let part = tx.savepoint()?;
    let mut undo = Vec::new();
    for write in writes {
        if otherwise == Otherwise::Undo {
            undo.extend(before(&part, write)?);
        }
        if let Err(fault) = super::write::apply(&part, write).map_err(Fault::from) {
            // dropping the savepoint undoes the commit
            return if fault.is_the_file() { Err(fault) } else { Ok(Err(fault)) };
        }
    }
    part.commit()?;
    undo.reverse();
    Ok(Ok(undo))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn meta(key: &'static str, value: &str) -> Write {
        Write::PutMeta(key, value.to_owned())
    }

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    fn job(writes: Vec<Write>, otherwise: Otherwise) -> (Job, Answer) {
        let (answer, result) = oneshot::channel();
        (Job::Commit { writes, answer, otherwise }, result)
    }

    #[test]
    fn a_commit_removes_older_notes_of_its_rows_and_keeps_newer_ones() {
        let (commit, mut answer) = job(vec![meta("a", "2"), Write::DropRoute("r".into())], Otherwise::Undo);
        let route = Write::DropRoute("r".into());
        let batch = vec![Job::Note(meta("a", "1")), Job::Note(meta("b", "1")), Job::Note(route), commit];
        let batch = batch.into_iter().chain([Job::Note(meta("a", "3"))]).collect();
        let settled = settle(batch, [Ok(vec![])]);
        assert_eq!(settled.notes, [meta("b", "1"), meta("a", "3")]);
        assert_eq!((settled.undo, settled.written.len()), (vec![], 2));
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn commits_whose_callers_are_gone_are_undone_newest_first() {
        let (first, gone) = job(vec![meta("a", "1")], Otherwise::Undo);
        drop(gone);
        let (second, gone) = job(vec![meta("a", "2")], Otherwise::Undo);
        drop(gone);
        let (pin, gone) = job(vec![meta("pin", "1")], Otherwise::Note);
        drop(gone);
        let undo = |value| Ok(vec![meta("a", value)]);
        let settled = settle(vec![first, second, pin], [undo("0"), undo("1"), Ok(vec![meta("pin", "0")])]);
        assert_eq!(settled.undo, [meta("a", "1"), meta("a", "0")]);
        assert_eq!(settled.notes, []);
    }

    #[test]
    fn while_the_file_fails_only_commits_that_may_be_late_are_kept() {
        let (user, mut refused) = job(vec![meta("a", "1")], Otherwise::Undo);
        let (pin, mut kept) = job(vec![meta("b", "1")], Otherwise::Note);
        let (wrong, mut conflict) = job(vec![meta("c", "1")], Otherwise::Note);
        let contradiction = Fault::Conflict("taken".into());
        let outcomes = [Err(Fault::Full), Err(Fault::Full), Err(contradiction.clone())];
        let settled = settle(vec![user, Job::Note(meta("b", "0")), pin, wrong], outcomes);
        assert_eq!(settled.notes, [meta("b", "0"), meta("b", "1")], "in the order of the calls");
        assert_eq!((settled.undo, settled.written), (vec![], vec![]));
        for answer in [&mut refused, &mut kept] {
            assert_eq!(answer.try_recv(), Ok(Err(StoreError::Refused(Fault::Full))));
        }
        assert_eq!(conflict.try_recv(), Ok(Err(StoreError::Refused(contradiction))));
    }
}
