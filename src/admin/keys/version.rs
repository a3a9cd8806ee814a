//! The version of a key: a short digest of its settings. An operator names the version with a change, so two operators
//! do not undo each other's changes.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::exit::Moment;
use crate::limit::Budget;
use crate::limit::keys::KeyState;

/// The number of bytes of the digest that are used. A collision would only let one change through, so 64 bits are
/// enough.
const LENGTH: usize = 8;

/// Returns the version of a key. It depends on the settings of the key alone, and not on what the key has used, so it is
/// the same after a restart.
pub fn version(key: &KeyState) -> String {
    let mut budgets: Vec<_> = key
        .account
        .usage(Moment::from(SystemTime::now()))
        .into_iter()
        .filter(|usage| usage.ledger.budget != Budget::default())
        .map(|usage| (usage.source, usage.ledger.budget))
        .collect();
    budgets.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let settings = (&key.name, key.created, key.expires(), key.amounts(), key.rights(), budgets);
    let digest = Sha256::digest(format!("{settings:?}"));
    digest.iter().take(LENGTH).map(|byte| format!("{byte:02x}")).collect()
}
