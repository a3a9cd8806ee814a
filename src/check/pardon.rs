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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exit::{Catalog, Fingerprint, Listing, Verdict};

    const NOW: Moment = Moment(1_788_314_400_000_000);

    fn condemned() -> Arc<Exit> {
        let id = ExitId::Tor(Fingerprint([7; 20]));
        let mut edit = Catalog::default().edit();
        edit.list(Listing::new(id.clone()));
        edit.learn(&id, |known| {
            (known.verdict, known.checked) = (Verdict::Bad, Some(NOW));
            known.marks.bad_for_good = true;
        });
        edit.finish().get(&id).unwrap().clone()
    }

    #[test]
    fn after_a_restart_a_pardoned_exit_counts_as_never_tested() {
        let exit = condemned();
        let [Write::PutVerdict(row)] = &rows(&exit, NOW)[..] else { panic!("not one verdict") };
        assert_eq!((&row.exit, &*row.target), (exit.id(), "echo"), "the row of the condemnation is replaced");
        assert_ne!(row.verdict, TargetVerdict::Condemned);
        assert_eq!((row.checked, row.good), (Moment(0), None));
    }

    #[test]
    fn a_pardon_changes_the_snapshot_and_the_store_together() {
        let exit = condemned();
        let ExitUpdate { exit: id, update: change, ban, writes } = update(&exit, NOW);
        let mut known = exit.known().clone();
        change(&mut known);
        assert_eq!((known.verdict, known.marks.bad_for_good), (Verdict::Untested, false));
        assert_eq!((&id, ban.is_none(), writes), (exit.id(), true, rows(&exit, NOW)));
    }
}
