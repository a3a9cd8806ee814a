//! The sources of Tor relays at work: each is asked or watched for itself, and one desk hears them all.
//!
//! The desk is where their words become one list and one change of the state. It is alone in that, so that two sources
//! that speak at once cannot overtake one another, and it writes down how a source fares only after the exits that the
//! source named: the marks that make the next request conditional must not outlive what they stand for.
//!
//! Next: `source/merge.rs` decides who is right; [`crate::state`] takes the list.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::sleep;

use super::consensus;
use super::exit_list::{ExitList, Sighting};
use super::fetch::{Client, Connect, Limits};
use super::handle::{Handle, Sources, report};
use super::merge::{Merge, Word};
use super::onionoo::{self, Details};
use super::poll::{self, Clock, Feed, Update};
use crate::config;
use crate::exit::country::GeoIp;
use crate::exit::{self, Listing, Moment};
use crate::lifecycle::Tasks;
use crate::state::{Change, State};
use crate::store::{self, Store, Write};
use crate::tor::netdir::Netdir;

/// Onionoo's name in `/sources`, metrics and the log.
pub const ONIONOO: &str = "onionoo";

/// The exit list's.
pub const EXIT_ADDRESSES: &str = "exit-addresses";

/// Age at which data are called old: a document is made every hour, two may be missed.
const STALE_AFTER: Duration = Duration::from_secs(3 * 3600);

/// What the sources of Tor relays need.
pub struct Relays<C> {
    /// Onionoo, if it is asked.
    pub onionoo: Option<Feed>,
    /// The exit list, if it is asked.
    pub exit_addresses: Option<Feed>,
    /// Who asks.
    pub client: Client<C>,
    /// The engines' directory.
    pub directory: watch::Receiver<Option<Arc<Netdir>>>,
    /// Where addresses are.
    pub geoip: Arc<GeoIp>,
    /// How the sources fared in the last run.
    pub known: Vec<store::Source>,
    /// Where the list goes. The exits that are in it at the start are what the sources said in the last run.
    pub state: State,
    /// Where it is written how sources fare.
    pub store: Option<Store>,
}

impl Feed {
    /// What the configuration says of Onionoo; `None` if it is off.
    pub fn onionoo(config: &config::Onionoo) -> Option<Self> {
        let url = format!("{}?{}", config.url, onionoo::QUERY).parse().ok();
        let url = url.filter(|_| config.enabled)?;
        let limits = Limits { total: config.timeout, ..Limits::default() };
        Some(Self { name: ONIONOO.into(), url, every: config.every, stale_after: STALE_AFTER, limits })
    }

    /// What the configuration says of the exit list; `None` if it is off.
    pub fn exit_addresses(config: &config::ExitAddresses) -> Option<Self> {
        let (name, url) = (EXIT_ADDRESSES.into(), config.url.clone());
        let limits = Limits::default();
        config.enabled.then_some(Self { name, url, every: config.every, stale_after: STALE_AFTER, limits })
    }
}

impl<C: Connect> Relays<C> {
    /// Starts them all, until shutdown.
    pub fn start(self, tasks: &Tasks) -> Sources {
        let Self { onionoo, exit_addresses, client, directory, geoip, known, state, store } = self;
        let stood = remembered(&state);
        let clock: Clock = {
            let state = state.clone();
            Arc::new(move || state.now())
        };
        let of = |name: &str| known.iter().find(|source| source.name == name).cloned();
        let (tell_onionoo, hear_onionoo) = mpsc::channel(1);
        let (tell_list, hear_list) = mpsc::channel(1);
        let onionoo = onionoo.map(|feed| {
            let known = of(ONIONOO).map(|known| if stood.is_empty() { unmarked(known) } else { known });
            poll::start::<Details, C>(feed, client.clone(), known, clock.clone(), tasks, tell_onionoo)
        });
        let exit_addresses = exit_addresses.map(|feed| {
            // Sightings are not kept from run to run.
            poll::start::<ExitList, C>(feed, client, of(EXIT_ADDRESSES).map(unmarked), clock, tasks, tell_list)
        });
        let (consensus, status) = Handle::new(consensus::NAME, of(consensus::NAME).map(unmarked));
        let merge = Merge::new(geoip, stood);
        let again = consensus.refresh.clone();
        let inputs = Inputs { onionoo: hear_onionoo, list: hear_list, directory, again };
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

/// What is still here of the last run.
fn remembered(state: &State) -> Vec<Listing> {
    let snapshot = state.snapshot();
    let relays = snapshot.catalog.iter().filter(|exit| exit.id().source() == exit::Source::Tor);
    relays.filter(|exit| !exit.known().marks.draining).map(|exit| (**exit.listing()).clone()).collect()
}

/// A source as if it had never been asked, as far as asking goes.
fn unmarked(known: store::Source) -> store::Source {
    store::Source { etag: None, last_modified: None, next: None, ..known }
}

/// Where words come in.
struct Inputs {
    onionoo: mpsc::Receiver<Update<Vec<Listing>>>,
    list: mpsc::Receiver<Update<Vec<Sighting>>>,
    directory: watch::Receiver<Option<Arc<Netdir>>>,
    /// Somebody wants the directory to be looked at.
    again: Arc<Notify>,
}

/// Where they are put together. It survives a panic of the worker that sits at it.
struct RelayMerger {
    inputs: Inputs,
    merge: Merge,
    /// How the directory fares.
    status: watch::Sender<store::Source>,
    state: State,
    store: Option<Store>,
}

impl RelayMerger {
    async fn run(&mut self) {
        self.inputs.directory.mark_changed();
        loop {
            let expiry = self.expiry();
            let Inputs { onionoo, list, directory, again } = &mut self.inputs;
            tokio::select! {
                Some(Update { status, news }) = onionoo.recv() => self.hear(news.map(Word::Onionoo), status).await,
                Some(Update { status, news }) = list.recv() => self.hear(news.map(Word::Sightings), status).await,
                Ok(()) = directory.changed() => self.look().await,
                () = again.notified() => self.look().await,
                () = expiry => self.look().await,
            }
        }
    }

    /// The moment from which the directory no longer holds; never, if that is past and told.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let until = self.inputs.directory.borrow().as_ref().and_then(|directory| directory.valid_until());
        let told = self.status.borrow().outcome == "stale";
        let now = self.state.now();
        async move {
            match until.filter(|_| !told) {
                // Just behind it, so that it is past by any rounding.
                Some(until) => sleep(Moment::from(until).since(now) + Duration::from_secs(1)).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Looks at the directory.
    async fn look(&mut self) {
        let Some(directory) = self.inputs.directory.borrow_and_update().clone() else { return };
        let before = self.status.borrow().clone();
        let status = consensus::status(&directory, &before, self.state.now());
        report(&before, &status);
        self.status.send_replace(status.clone());
        self.hear(Some(Word::Directory(directory)), status).await;
    }

    /// Hears a source, and passes on what that changes.
    async fn hear(&mut self, word: Option<Word>, status: store::Source) {
        if let Some(word) = word {
            self.merge.hear(word);
            if !self.pass_on().await {
                return;
            }
        }
        if let Some(store) = &self.store {
            store.note(Write::PutSource(status));
        }
    }

    /// False if the state would not have it.
    async fn pass_on(&mut self) -> bool {
        let Some(exits) = self.merge.news(self.state.now()) else { return true };
        match self.state.apply(Change::Listed(exit::Source::Tor, exits.clone())).await {
            Ok(()) => {
                tracing::info!(exits = exits.len(), "the list of Tor exits has changed");
                self.merge.stands(exits);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the list of Tor exits could not be taken over");
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
    fn what_is_asked_is_what_the_configuration_says() {
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

        assert!(Feed::exit_addresses(&sources.exit_addresses).is_none(), "off unless it is wanted");
        let list = Feed::exit_addresses(&config::ExitAddresses { enabled: true, ..sources.exit_addresses }).unwrap();
        assert_eq!(list.url, "https://check.torproject.org/exit-addresses");
    }

    #[test]
    fn a_source_without_marks_is_asked_at_once_and_unconditionally() {
        let known = store::Source {
            name: "x".to_owned(),
            etag: Some("1".to_owned()),
            last_modified: Some("2".to_owned()),
            next: Some(Moment(9)),
            records: 7,
            ..store::Source::default()
        };
        let want = store::Source { name: "x".to_owned(), records: 7, ..store::Source::default() };
        assert_eq!(unmarked(known), want);
    }
}
