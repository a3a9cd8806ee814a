//! Restores the keys that the API created, and starts their administration.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::super::{StartError, secrets};
use crate::admin::Listeners;
use crate::admin::keys::{KeyAdmin, KeyParts, restore_keys, restore_usage};
use crate::config::Config;
use crate::exit::Moment;
use crate::gateway::connection_table::ConnectionTable;
use crate::lifecycle::Tasks;
use crate::limit::Limits;
use crate::net::Secret;
use crate::state::State;
use crate::store::{self, Store};

/// The keys of the last run.
pub(super) struct StoredKeys {
    secret: Option<Secret>,
    /// What keys used that do not exist now.
    other_usage: Vec<store::KeyUsage>,
}

/// Makes the stored keys valid, and continues with what all keys used. Called before a port is open.
pub(super) fn restore(
    config: &Config,
    limits: &Limits,
    (keys, usage): (Vec<store::Key>, Vec<store::KeyUsage>),
    now: Moment,
) -> Result<StoredKeys, StartError> {
    for key in keys.iter().filter(|key| config.gateway.keys.iter().any(|of_config| of_config.name == key.name)) {
        tracing::warn!(
            key = key.name,
            "a key of the configuration has the name of a key that the API created, and both are valid: rename one of them"
        );
    }
    let secret = secret(config, &keys)?;
    restore_keys(limits, &keys, secret.as_ref(), now);
    let other_usage = restore_usage(limits, usage);
    Ok(StoredKeys { secret, other_usage })
}

/// Starts the administration of keys.
pub(super) fn start(
    config: &Config,
    tasks: &Tasks,
    (state, store, limits): (&State, &Store, &Limits),
    (listeners, connections): (&Arc<Mutex<Listeners>>, &Arc<ConnectionTable>),
    StoredKeys { secret, other_usage }: StoredKeys,
) -> KeyAdmin {
    let data_dir = config.data_dir.clone();
    let parts = KeyParts {
        limits: limits.clone(),
        state: state.clone(),
        store: store.clone(),
        listeners: listeners.clone(),
        connections: connections.clone(),
        key_file: Box::new(move || {
            let made = secrets::load_or_make(&data_dir, secrets::API_KEYS_FILE);
            made.map(|(secret, _)| secret).map_err(|error| error.to_string())
        }),
    };
    KeyAdmin::start(tasks, parts, secret.as_ref(), other_usage)
}

/// Reads the key file, with which the secrets of the API's keys are recognized. Returns `None` if there is no such file:
/// the first key that the API creates makes it.
fn secret(config: &Config, stored: &[store::Key]) -> Result<Option<Secret>, StartError> {
    if config.data_dir.join(secrets::API_KEYS_FILE).exists() {
        return Ok(Some(secrets::load_or_make(&config.data_dir, secrets::API_KEYS_FILE)?.0));
    }
    if !stored.is_empty() {
        let file = config.data_dir.join(secrets::API_KEYS_FILE);
        tracing::error!(
            file = %file.display(),
            keys = stored.len(),
            "the key file is missing: the keys that the API created are refused. Restore the file from a backup, or delete \
             these keys and create them again"
        );
    }
    Ok(None)
}
