//! Runs the sources of Tor relays: each source has a worker of its own, and one merger receives the updates of all
//! sources.
//!
//! Only the merger makes the list of all Tor exits and applies the list to the state, so updates that arrive at the
//! same time are applied in order. The merger stores the exits that a source listed first, and the status of that
//! source afterwards, because the status contains the validators of the next request. Validators without the data to
//! which they belong would be wrong after a crash.
//!
//! Next: `source/merge.rs` decides which source is used for which field. [`crate::state`] receives the list.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::sleep;

use super::consensus;
use super::exit_list::{ExitList, Sighting};
use super::fetch::{Client, Connect, Limits};
use super::handle::{Handle, Sources, report};
use super::merge::{RelayMerge, SourceData};
use super::onionoo::{self, Details};
use super::poll::{self, Clock, Feed, Update};
use crate::config;
use crate::exit::country::GeoIp;
use crate::exit::{self, Listing, Moment};
use crate::lifecycle::{Tasks, memory};
use crate::state::{Change, State};
use crate::store::{self, Store, Write};
use crate::tor::netdir::Netdir;

/// The name of Onionoo in the API path `/sources`, in metrics and in the log.
pub const ONIONOO: &str = "onionoo";

/// The name of the Tor project's exit list in the API path `/sources`, in metrics and in the log.
pub const EXIT_ADDRESSES: &str = "exit-addresses";

/// The age at which the data of a source is stale. A source makes a new document every hour, and two documents may be
/// missed.
const STALE_AFTER: Duration = Duration::from_secs(3 * 3600);

/// What the sources of Tor relays need.
pub struct Relays<C> {
    /// What to request from Onionoo; `None` if this source is disabled.
    pub onionoo: Option<Feed>,
    /// What to request as the exit list; `None` if this source is disabled.
    pub exit_addresses: Option<Feed>,
    pub client: Client<C>,
    /// Yields the latest directory of the Tor engines.
    pub directory: watch::Receiver<Option<Arc<Netdir>>>,
    pub geoip: Arc<GeoIp>,
    /// The status of each source at the end of the last run.
    pub known: Vec<store::Source>,
    /// Receives the merged list. At the start, the state contains the exits of the last run.
    pub state: State,
    /// Stores the status of the sources.
    pub store: Option<Store>,
}

impl Feed {
    /// Returns Onionoo as configured, or `None` if Onionoo is disabled.
    pub fn onionoo(config: &config::Onionoo) -> Option<Self> {
        let url = format!("{}?{}", config.url, onionoo::QUERY).parse().ok();
        let url = url.filter(|_| config.enabled)?;
        let limits = Limits { total: config.timeout, ..Limits::default() };
        Some(Self { name: ONIONOO.into(), url, every: config.every, stale_after: STALE_AFTER, limits })
    }

    /// Returns the exit list as configured, or `None` if the exit list is disabled.
    pub fn exit_addresses(config: &config::ExitAddresses) -> Option<Self> {
        let (name, url) = (EXIT_ADDRESSES.into(), config.url.clone());
        let limits = Limits::default();
        config.enabled.then_some(Self { name, url, every: config.every, stale_after: STALE_AFTER, limits })
    }
}

impl<C: Connect> Relays<C> {
    /// Starts the workers of all sources and the merger, which run until shutdown.
    pub fn start(self, tasks: &Tasks) -> Sources {
        let Self { onionoo, exit_addresses, client, directory, geoip, known, state, store } = self;
        let current = remembered(&state);
        let clock: Clock = {
            let state = state.clone();
            Arc::new(move || state.now())
        };
        let of = |name: &str| known.iter().find(|source| source.name == name).cloned();
        let (onionoo_sender, onionoo_updates) = mpsc::channel(1);
        let (list_sender, list_updates) = mpsc::channel(1);
        let onionoo = onionoo.map(|feed| {
            let known = of(ONIONOO).map(|known| if current.is_empty() { without_validators(known) } else { known });
            poll::start::<Details, C>(feed, client.clone(), known, clock.clone(), tasks, onionoo_sender)
        });
        let exit_addresses = exit_addresses.map(|feed| {
            // The data of the exit list is not stored between two runs, so the first request must not be conditional.
            let known = of(EXIT_ADDRESSES).map(without_validators);
            poll::start::<ExitList, C>(feed, client, known, clock, tasks, list_sender)
        });
        let (consensus, status) = Handle::new(consensus::NAME, of(consensus::NAME).map(without_validators));
        let merge = RelayMerge::new(geoip, current);
        let refresh = consensus.refresh.clone();
        let inputs = Inputs { onionoo: onionoo_updates, list: list_updates, directory, refresh };
        let merger = Arc::new(Mutex::new(RelayMerger { merge, status, state, store, inputs }));
        let stopping = tasks.clone();
        tasks.supervise("relays", move || {
            let (merger, stopping) = (merger.clone(), stopping.clone());
            async move {
                let mut merger = merger.lock().await;
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = merger.run() => {}
                }
            }
        });
        onionoo.into_iter().chain(exit_addresses).chain([consensus]).collect()
    }
}

/// Returns the Tor exits of the last run, which the state contains at the start.
fn remembered(state: &State) -> Vec<Listing> {
    let snapshot = state.snapshot();
    let relays = snapshot.catalog.iter().filter(|exit| exit.id().source() == exit::Source::Tor);
    relays.filter(|exit| !exit.known().marks.draining).map(|exit| (**exit.listing()).clone()).collect()
}

/// Returns the status of a source so that its next request is made immediately and is not conditional.
fn without_validators(known: store::Source) -> store::Source {
    store::Source { etag: None, last_modified: None, next: None, ..known }
}

struct Inputs {
    onionoo: mpsc::Receiver<Update<Vec<Listing>>>,
    list: mpsc::Receiver<Update<Vec<Sighting>>>,
    directory: watch::Receiver<Option<Arc<Netdir>>>,
    /// Notified when a person wants the directory to be read immediately.
    refresh: Arc<Notify>,
}

/// Receives the updates of all sources and applies the merged list. This value survives a panic of its worker, and the
/// next worker continues to use it.
struct RelayMerger {
    inputs: Inputs,
    merge: RelayMerge,
    /// The status of the directory as a source.
    status: watch::Sender<store::Source>,
    state: State,
    store: Option<Store>,
}

impl RelayMerger {
    async fn run(&mut self) {
        self.inputs.directory.mark_changed();
        loop {
            let expiry = self.expiry();
            let Inputs { onionoo, list, directory, refresh } = &mut self.inputs;
            tokio::select! {
                Some(Update { status, value }) = onionoo.recv() => {
                    self.take(value.map(SourceData::Onionoo), status).await;
                }
                Some(Update { status, value }) = list.recv() => {
                    self.take(value.map(SourceData::Sightings), status).await;
                }
                Ok(()) = directory.changed() => self.read_directory().await,
                () = refresh.notified() => self.read_directory().await,
                () = expiry => self.read_directory().await,
            }
        }
    }

    /// Waits until the directory expires. Waits forever if the directory is already reported as stale.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let until = self.inputs.directory.borrow().as_ref().and_then(|directory| directory.valid_until());
        let is_reported = self.status.borrow().outcome == "stale";
        let now = self.state.now();
        async move {
            match until.filter(|_| !is_reported) {
                // Waits one second longer, because the time `until` may have been rounded down.
                Some(until) => sleep(Moment::from(until).since(now) + Duration::from_secs(1)).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn read_directory(&mut self) {
        let Some(directory) = self.inputs.directory.borrow_and_update().clone() else { return };
        let before = self.status.borrow().clone();
        let status = consensus::status(&directory, &before, self.state.now());
        report(&before, &status);
        self.status.send_replace(status.clone());
        self.take(Some(SourceData::Directory(directory)), status).await;
        // The old directory, the old list and all that was needed to read the new ones are free now.
        if let Err(error) = tokio::task::spawn_blocking(memory::release).await {
            tracing::warn!(%error, "free memory could not be returned to the system");
        }
    }

    /// Receives new data of a source, applies the list that results from the data, and stores the status of the source.
    async fn take(&mut self, data: Option<SourceData>, status: store::Source) {
        if let Some(data) = data {
            self.merge.take(data);
            if !self.apply().await {
                return;
            }
        }
        if let Some(store) = &self.store {
            store.note(Write::PutSource(status));
        }
    }

    /// Applies the merged list if the list has changed. Returns false if that failed.
    async fn apply(&mut self) -> bool {
        let Some(exits) = self.merge.changed(self.state.now()) else { return true };
        match self.state.apply(Change::Listed(exit::Source::Tor, exits.clone())).await {
            Ok(()) => {
                tracing::info!(exits = exits.len(), "the list of Tor exits has changed");
                self.merge.applied(exits);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the list of Tor exits could not be applied");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn requests_are_made_as_configured() {
        let sources = Config::default().sources;
        let onionoo = Feed::onionoo(&sources.onionoo).unwrap();
        let (host, path) = (onionoo.url.host().unwrap(), onionoo.url.path_and_query().unwrap().as_str());
        assert_eq!(host, "onionoo.torproject.org");
        assert!(
            path.starts_with("/details?type=relay&running=true&flag=Exit&fields=") && !path.contains(' '),
            "{path}"
        );
        assert_eq!((onionoo.every, onionoo.limits.total), (Duration::from_secs(3600), sources.onionoo.timeout));
        assert!(Feed::onionoo(&config::Onionoo { enabled: false, ..sources.onionoo }).is_none());

        assert!(Feed::exit_addresses(&sources.exit_addresses).is_none(), "off by default");
        let list = Feed::exit_addresses(&config::ExitAddresses { enabled: true, ..sources.exit_addresses }).unwrap();
        assert_eq!(list.url, "https://check.torproject.org/exit-addresses");
    }

    #[test]
    fn without_validators_the_next_request_is_made_at_once() {
        let known = store::Source {
            name: "x".to_owned(),
            etag: Some("1".to_owned()),
            last_modified: Some("2".to_owned()),
            next: Some(Moment(9)),
            records: 7,
            ..store::Source::default()
        };
        let want = store::Source { name: "x".to_owned(), records: 7, ..store::Source::default() };
        assert_eq!(without_validators(known), want);
    }
}
