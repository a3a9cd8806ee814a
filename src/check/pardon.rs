//! Ends the condemnation of an exit: for the snapshot and for the store.
//!
//! `check/condemnation.rs` decides when a condemnation ends. A person may end one earlier, over the API.

use super::condemnation;
use super::exit_update::ECHO;
use super::public;
use crate::exit::{Exit, ExitId, Moment};
use crate::state::ExitUpdate;
use crate::store::{self, TargetVerdict, Write};

/// Returns the update that ends the condemnation of an exit.
pub(super) fn update(exit: &Exit, now: Moment) -> ExitUpdate {
    ExitUpdate { exit: exit.id().clone(), update: Box::new(condemnation::pardon), ban: None, writes: rows(exit, now) }
}

/// Returns the rows that end the condemnation of an exit in the store.
pub fn rows(exit: &Exit, now: Moment) -> Vec<Write> {
    if let ExitId::Public(_) = exit.id() {
        return public::pardon_rows(exit, now);
    }
    // The condemnation has ended. Its row in the store is replaced by a verdict of the year 1970, which is too old to
    // count. So after a restart the exit counts as never tested.
    let checked = Moment(0);
    let (exit, target, why) = (exit.id().clone(), ECHO.to_owned(), String::new());
    let verdict = TargetVerdict::Bad;
    let row = store::Verdict { exit, target, verdict, streak: 0, checked, good: None, latency: None, why };
    vec![Write::PutVerdict(row)]
}
