//! The administration of keys: creates, changes and deletes keys while the gateway runs, and stores what keys use.
//!
//! A secret is shown once, in the answer to the request that created the key. The store contains only a digest of the
//! secret, which is computed with the content of the key file (`limit/keys.rs`).
//!
//! A change is stored first and then used, so a key that was acknowledged survives a restart. A worker stores twice a
//! second what keys have used. It also ends tunnels of keys whose budget of bytes is used up, and reports budgets that
//! are nearly used up.
//!
//! Next: `admin/keys/spec.rs` (the fields of a key), `admin/keys/worker.rs` (the worker), [`crate::limit`] (how keys
//! are found and budgets are counted).

mod error;
mod spec;
mod version;
mod worker;

use std::sync::Arc;

use rand::RngExt;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, broadcast, oneshot};

pub use self::error::KeyError;
pub use self::spec::{BudgetSpec, ByteCount, KeySpec, LimitsSpec};
pub use self::version::version;
pub use self::worker::restore_usage;
use super::{BadField, HumanDuration, Listeners};
use crate::exit::Moment;
use crate::gateway::connection_table::ConnectionTable;
use crate::lifecycle::Tasks;
use crate::limit::keys::{ApiKey, Digester, KeyState};
use crate::limit::{Level, Limits};
use crate::net::Secret;
use crate::state::State;
use crate::store::{self, Fault, Store, StoreError, Write};

/// The characters of a secret: letters and digits, because they need no escaping in a URL, a shell or a header. Letters
/// and digits that look alike are left out.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The number of random characters of a secret. 32 characters with 5 bits each are 160 bits, which nobody can guess.
const LENGTH: usize = 32;

/// The beginning of every secret, by which scanners for leaked secrets can recognize it.
const PREFIX: &str = "xg_";

/// How many events are kept for a slow reader before the reader misses some. Not tuned.
const EVENTS: usize = 256;

/// Reads the secret in the key file. If there is no such file, makes it.
pub type KeyFile = Box<dyn Fn() -> Result<Secret, String> + Send + Sync>;

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    pub key: Arc<str>,
    pub what: KeyChange,
}

/// How a key changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    Created,
    Changed,
    Deleted,
    Expired,
    /// A budget reached another level. `source` is `None` for the budget of all sources together.
    Budget {
        source: Option<Arc<str>>,
        level: Level,
    },
}

/// The parts that a [`KeyAdmin`] uses. `app` sets them.
pub struct KeyParts {
    pub limits: Limits,
    pub state: State,
    pub store: Store,
    pub listeners: Arc<Mutex<Listeners>>,
    pub connections: Arc<ConnectionTable>,
    pub key_file: KeyFile,
}

/// Creates, changes and deletes keys. A clone is cheap.
#[derive(Clone)]
pub struct KeyAdmin(Arc<Inner>);

struct Inner {
    parts: KeyParts,
    tasks: Tasks,
    /// Computes the digests of secrets. `None` until there is a key file. The lock is held while a key is changed, so two
    /// requests for the same name cannot both succeed.
    digester: Mutex<Option<Arc<Digester>>>,
    usage: std::sync::Mutex<worker::Saved>,
    events: broadcast::Sender<KeyEvent>,
}

/// A created key.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    pub name: String,
    /// The secret. `None` if the key existed already and was created from an equal spec: secrets are shown once.
    pub secret: Option<Secret>,
}

/// Makes the stored keys valid. Called at the start, before a port is open. `secret` is the content of the key file;
/// without it, no stored key can be recognized.
pub fn restore_keys(limits: &Limits, stored: &[store::Key], secret: Option<&Secret>, now: Moment) {
    if stored.is_empty() {
        return;
    }
    let digester = Arc::new(Digester::new(secret.unwrap_or(&Secret::default())));
    let keys = stored.iter().filter_map(|key| match api_key(key, now) {
        Ok(api) => Some(api),
        Err(why) => {
            tracing::error!(
                key = key.name,
                why = %why,
                "a stored key cannot be read; it stays in the store, and every client needs a key"
            );
            limits.close();
            None
        }
    });
    limits.set_api_keys(digester, keys.collect());
}

/// Converts a stored key into the form that connections use.
fn api_key(stored: &store::Key, now: Moment) -> Result<ApiKey, BadField> {
    let fields = serde_json::from_str(&stored.asked).unwrap_or_default();
    let spec = KeySpec::stored(&fields)?;
    Ok(ApiKey {
        name: stored.name.as_str().into(),
        digest: stored.digest,
        created: stored.created,
        expires: stored.expires.map(|expires| (expires, expires.since(now))),
        amounts: spec.amounts(),
        budgets: spec.budgets(),
        rights: spec.rights(),
    })
}

impl KeyAdmin {
    /// Starts the worker that stores how much each key uses. [`restore_keys`] must be called before. `secret` is the
    /// content of the key file. `usage` is the stored use of keys that do not exist now. A reload of the configuration
    /// may bring such a key back.
    pub fn start(tasks: &Tasks, parts: KeyParts, secret: Option<&Secret>, usage: Vec<store::KeyUsage>) -> Self {
        let digester = Mutex::new(secret.map(|secret| Arc::new(Digester::new(secret))));
        let usage = std::sync::Mutex::new(worker::Saved::new(usage));
        let inner = Inner { parts, tasks: tasks.clone(), digester, usage, events: broadcast::Sender::new(EVENTS) };
        let admin = Self(Arc::new(inner));
        let (worker, of) = (tasks.clone(), admin.clone());
        tasks.supervise("keys", move || worker::run(of.clone(), worker.clone()));
        admin
    }

    /// Returns the events of keys from now on.
    pub fn events(&self) -> broadcast::Receiver<KeyEvent> {
        self.0.events.subscribe()
    }

    /// Returns all keys, by name.
    pub fn list(&self) -> Vec<Arc<KeyState>> {
        let mut all = self.0.parts.limits.keys();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Returns the key with this name.
    pub fn one(&self, name: &str) -> Result<Arc<KeyState>, KeyError> {
        let found = self.0.parts.limits.keys().into_iter().find(|key| *key.name == *name);
        found.ok_or_else(|| unknown(name))
    }

    /// Creates a key with a random secret. If a key of this name exists already and was created from an equal spec,
    /// nothing changes, and that is no error.
    pub async fn create(&self, spec: KeySpec) -> Result<CreatedKey, KeyError> {
        let admin = self.clone();
        self.complete(async move { admin.create_now(spec).await }).await
    }

    async fn create_now(&self, spec: KeySpec) -> Result<CreatedKey, KeyError> {
        let Some(name) = spec.name.clone() else {
            return Err(BadField::new("name", "is missing; sessions and pins of the key belong to it").into());
        };
        let mut current = self.0.digester.lock().await;
        if self.is_configured(&name) {
            return Err(KeyError::NameOfConfig(name));
        }
        let asked = spec.to_json();
        match self.stored(&name).await? {
            Some(old) if old.asked == asked => return Ok(CreatedKey { name, secret: None }),
            Some(_) => return Err(KeyError::NameTaken(name)),
            None => {}
        }
        let digester = match &*current {
            Some(digester) => digester.clone(),
            None => self.make_digester()?,
        };
        let (secret, now) = (random_secret(), self.0.parts.state.now());
        let digest = digester.digest(secret.expose().as_bytes());
        let expires = spec.ttl.map(|HumanDuration(ttl)| now.after(ttl));
        let key = store::Key { name: name.clone(), digest, asked, created: now, expires };
        self.commit(vec![Write::PutKey(key.clone())]).await?;
        *current = Some(digester.clone());
        self.publish(digester, &key, now).await?;
        self.tell(&name, KeyChange::Created);
        Ok(CreatedKey { name, secret: Some(secret) })
    }

    /// Changes a key by a JSON merge patch of the body that created it. The secret and what was used stay. Open
    /// connections stay, and the new settings hold for the next request. If `versions` is given and does not contain
    /// the present version of the key, nothing is changed.
    pub async fn change(
        &self,
        name: &str,
        patch: Map<String, Value>,
        versions: Option<Vec<String>>,
    ) -> Result<(), KeyError> {
        let (admin, name) = (self.clone(), name.to_owned());
        self.complete(async move { admin.change_now(&name, &patch, versions.as_deref()).await }).await
    }

    async fn change_now(
        &self,
        name: &str,
        patch: &Map<String, Value>,
        versions: Option<&[String]>,
    ) -> Result<(), KeyError> {
        let current = self.0.digester.lock().await;
        let old = self.own(name).await?;
        let spec = KeySpec::patched(&old.asked, patch)?; // a wrong patch is wrong for every version
        self.expect(name, versions)?;
        let now = self.0.parts.state.now();
        let expires = match (patch.contains_key("ttl"), spec.ttl) {
            (false, _) => old.expires,
            (true, ttl) => ttl.map(|HumanDuration(ttl)| now.after(ttl)),
        };
        let key = store::Key { asked: spec.to_json(), expires, ..old };
        self.commit(vec![Write::PutKey(key.clone())]).await?;
        if let Some(digester) = &*current {
            self.publish(digester.clone(), &key, now).await?;
        }
        self.tell(name, KeyChange::Changed);
        Ok(())
    }

    /// Deletes a key. The next connection with its secret is refused. Open connections continue, unless `cut` is true.
    /// The last key is deleted only if `open` is true, because the gateway needs no key after that. `versions` is as in
    /// [`Self::change`].
    pub async fn delete(
        &self,
        name: &str,
        cut: bool,
        open: bool,
        versions: Option<Vec<String>>,
    ) -> Result<(), KeyError> {
        let (admin, name) = (self.clone(), name.to_owned());
        self.complete(async move { admin.delete_now(&name, cut, open, versions.as_deref()).await }).await
    }

    async fn delete_now(&self, name: &str, cut: bool, open: bool, versions: Option<&[String]>) -> Result<(), KeyError> {
        let _one_at_a_time = self.0.digester.lock().await;
        let created = self.own(name).await?.created;
        self.expect(name, versions)?;
        if self.0.parts.limits.keys().len() == 1 && !open {
            return Err(KeyError::LastKey(name.to_owned()));
        }
        self.commit(vec![Write::DropKey(name.to_owned())]).await?;
        self.0.parts.limits.drop_api_key(name);
        self.0.parts.store.note(Write::DropKeyUsage(name.to_owned(), created));
        self.refresh_ports().await;
        if cut {
            self.cut(name);
        }
        self.tell(name, KeyChange::Deleted);
        Ok(())
    }

    /// Runs `work` as a task of its own and returns its result. So `work` reaches its end even if the HTTP client
    /// disconnects, which drops the future of the caller: a key that was deleted in the store is deleted here too.
    async fn complete<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, KeyError>> + Send + 'static,
    ) -> Result<T, KeyError> {
        let (answer, result) = oneshot::channel();
        self.0.tasks.spawn("change of a key", async move { drop(answer.send(work.await)) });
        result.await.unwrap_or(Err(KeyError::Internal)) // no answer if the task has panicked, which is logged
    }

    /// Stores twice a second what keys have used, and never returns. Called while the gateway drains: the worker has
    /// ended then, and open connections continue.
    pub async fn keep_saving(&self) {
        worker::keep_saving(self).await;
    }

    /// Stores what keys have used until now. Called at the end of the gateway.
    pub fn save(&self) {
        worker::save(self);
    }

    fn is_configured(&self, name: &str) -> bool {
        self.0.parts.limits.keys().iter().any(|key| key.created.is_none() && *key.name == *name)
    }

    /// Returns the stored key with this name. A key that the API did not create is an error.
    async fn own(&self, name: &str) -> Result<store::Key, KeyError> {
        match self.stored(name).await? {
            Some(key) => Ok(key),
            None if self.is_configured(name) => Err(KeyError::ReadOnly(name.to_owned())),
            None => Err(unknown(name)),
        }
    }

    /// Returns an error if `versions` is given and does not contain the present version of the key. The caller holds the
    /// lock of changes.
    fn expect(&self, name: &str, versions: Option<&[String]>) -> Result<(), KeyError> {
        let Some(versions) = versions else { return Ok(()) };
        let version = version(&*self.one(name)?);
        if versions.contains(&version) {
            return Ok(());
        }
        Err(KeyError::Stale { name: name.to_owned(), version })
    }

    async fn stored(&self, name: &str) -> Result<Option<store::Key>, KeyError> {
        self.0.parts.store.key(name).await.map_err(failed)
    }

    fn make_digester(&self) -> Result<Arc<Digester>, KeyError> {
        match (self.0.parts.key_file)() {
            Ok(secret) => Ok(Arc::new(Digester::new(&secret))),
            Err(error) => {
                tracing::error!(error, "the key file cannot be made, so no key can be created");
                Err(KeyError::Internal)
            }
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), KeyError> {
        self.0.parts.store.commit(writes).await.map_err(failed)
    }

    /// Makes a stored key valid.
    async fn publish(&self, digester: Arc<Digester>, key: &store::Key, now: Moment) -> Result<(), KeyError> {
        self.0.parts.limits.put_api_key(digester, api_key(key, now)?);
        self.refresh_ports().await;
        Ok(())
    }

    /// Tells the ports whether clients need a key, if this has changed.
    async fn refresh_ports(&self) {
        self.0.parts.listeners.lock().await.refresh_keys();
    }

    /// Cuts the open connections of a key.
    fn cut(&self, name: &str) {
        for connection in self.0.parts.connections.list() {
            if connection.state().key.as_deref() == Some(name) {
                connection.cut();
            }
        }
    }

    fn tell(&self, key: &str, what: KeyChange) {
        let _ = self.0.events.send(KeyEvent { key: key.into(), what }); // fails if nobody listens
    }
}

fn failed(error: StoreError) -> KeyError {
    if error == StoreError::Refused(Fault::Hung) {
        return KeyError::DiskHangs; // the store has logged it
    }
    tracing::error!(%error, "a key could not be stored or read");
    KeyError::Internal
}

fn unknown(name: &str) -> KeyError {
    KeyError::Unknown(name.chars().take(64).collect())
}

fn random_secret() -> Secret {
    let mut rng = rand::rng();
    let random = (0..LENGTH).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    Secret::new(PREFIX.chars().chain(random).collect::<String>())
}

#[cfg(test)]
mod tests;
