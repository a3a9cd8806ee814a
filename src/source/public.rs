//! Runs the lists of public proxies: each list has a worker of its own, and one merger makes one list of all of them.
//!
//! A proxy that is in several lists is one exit. A proxy that is no longer in any list drains: it gets no new
//! connections. If the tester gives up a proxy after several failures in a row, the merger leaves that proxy out for a
//! while, because otherwise each update of a list would add the proxy again. Only the merger applies the merged list to
//! the state, so updates that arrive at the same time are applied in order.
//!
//! Next: `source/proxifly.rs` and `source/list.rs` make the requests. [`crate::state`] receives the merged list.
//! [`crate::check`] tests the proxies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

use super::fetch::{Client, Connect, Limits};
use super::handle::Sources;
use super::list::reader::ProxyList;
use super::list::{Bounds, List};
use super::poll::{self, Clock, Feed, Update};
use super::proxifly::{self, Proxifly};
use crate::config;
use crate::exit::country::GeoIp;
use crate::exit::{ExitId, Listing, Login, Moment, Offer, PublicId, Source, Through};
use crate::lifecycle::Tasks;
use crate::state::{Change, State};
use crate::store::{self, Store, Write};

/// The age at which the data of a list is stale: free proxies work for about an hour.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// How long the merger collects the proxies that the tester gave up before it merges the lists again. Hundreds of
/// proxies are given up within a short time.
const COLLECT: Duration = Duration::from_secs(5);

/// How many proxies that the tester gave up may wait for the merger. Not tuned: this is more than the tester publishes
/// at one time.
pub const GIVEN_UP: usize = 4096;

/// What the workers of the lists of public proxies need.
pub struct PublicListInputs<C> {
    /// The settings of ProxiFly and of the other lists.
    pub sources: config::Sources,
    pub bounds: Bounds,
    /// How long a proxy is left out of the merged list after the tester gave it up.
    pub removed_for: Duration,
    pub client: Client<C>,
    pub geoip: Arc<GeoIp>,
    /// The status of each list at the end of the last run.
    pub known: Vec<store::Source>,
    /// Receives the merged list.
    pub state: State,
    /// Stores the status of the lists.
    pub store: Option<Store>,
    /// Yields the proxies that the tester gives up.
    pub given_up: mpsc::Receiver<ExitId>,
}

impl<C: Connect> PublicListInputs<C> {
    /// Starts one worker for each list, and the merger, which makes one list of all of them. The workers and the merger
    /// run until shutdown.
    pub fn start(self, tasks: &Tasks) -> Sources {
        let Self { sources, bounds, removed_for, client, geoip, known, state, store, given_up } = self;
        let clock: Clock = {
            let state = state.clone();
            Arc::new(move || state.now())
        };
        let of = |name: &str| known.iter().find(|source| source.name == name).cloned().map(afresh);
        let (sender, updates) = mpsc::channel(1);
        let mut lists: Vec<NamedList> = Vec::new();
        let mut handles = Vec::new();
        if sources.proxifly.enabled {
            let feed = feed(proxifly::NAME, sources.proxifly.every);
            let request = Proxifly::new(&sources.proxifly, bounds, client.clone(), clock.clone());
            let known = of(proxifly::NAME);
            handles.push(poll::start_requests(feed, request, known, clock.clone(), tasks, sender.clone()));
            lists.push(NamedList::new(proxifly::NAME, sources.proxifly.through.into()));
        }
        for list in &sources.lists {
            let feed = Feed { url: list.url.clone(), ..feed(&list.name, list.every) };
            let request = List {
                name: list.name.clone(),
                url: list.url.clone(),
                format: list.format,
                protocol: list.protocol,
                bounds,
                limits: Limits::default(),
                client: client.clone(),
            };
            handles.push(poll::start_requests(feed, request, of(&list.name), clock.clone(), tasks, sender.clone()));
            lists.push(NamedList::new(&list.name, list.through.into()));
        }
        let (given_up_until, most) = (HashMap::new(), bounds.most);
        let merge = ListMerge { lists, given_up_until, removed_for, most, geoip };
        let merger = Arc::new(Mutex::new(ListMerger { merge, state, store, updates, given_up, again: None }));
        let stopping = tasks.clone();
        tasks.supervise("public lists", move || {
            let (merger, stopping) = (merger.clone(), stopping.clone());
            async move {
                let mut merger = merger.lock().await;
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = merger.run() => {}
                }
            }
        });
        handles.into_iter().collect()
    }
}

fn feed(name: &str, every: Duration) -> Feed {
    let url = http::Uri::default(); // not used: the request has its own URL
    Feed { name: name.into(), url, every, stale_after: STALE_AFTER, limits: Limits::default() }
}

/// Returns the status of a list so that its next request is made immediately and is not conditional. The reason is that
/// most proxies of a list are not stored between two runs.
fn afresh(known: store::Source) -> store::Source {
    store::Source { etag: None, last_modified: None, next: None, published: None, ..known }
}

/// One list and its latest content.
struct NamedList {
    name: Arc<str>,
    through: Through,
    proxies: HashMap<PublicId, Option<Login>>,
    /// True if the list has arrived at least once since the start.
    arrived: bool,
}

impl NamedList {
    fn new(name: &str, through: Through) -> Self {
        Self { name: name.into(), through, proxies: HashMap::new(), arrived: false }
    }
}

/// Merges the lists of public proxies. Does no I/O.
struct ListMerge {
    lists: Vec<NamedList>,
    /// The proxies that the tester gave up, each with the time until which the proxy is left out.
    given_up_until: HashMap<PublicId, Moment>,
    removed_for: Duration,
    most: usize,
    geoip: Arc<GeoIp>,
}

impl ListMerge {
    fn take(&mut self, name: &str, content: ProxyList) {
        if let Some(list) = self.lists.iter_mut().find(|list| *list.name == *name) {
            (list.proxies, list.arrived) = (content.proxies, true);
        }
    }

    fn give_up(&mut self, id: PublicId, now: Moment) {
        self.given_up_until.insert(id, now.after(self.removed_for));
    }

    /// Returns the merged list. Until every list has arrived, the proxies in `current` (the ones in the catalog) stay
    /// in the merged list.
    fn listings(&mut self, current: impl Iterator<Item = Listing>, now: Moment) -> Vec<Listing> {
        let count: usize = self.lists.iter().map(|list| list.proxies.len()).sum();
        self.given_up_until.retain(|_, until| *until > now);
        let mut offers: HashMap<&PublicId, Offer> = HashMap::with_capacity(count.min(self.most));
        for list in &self.lists {
            for (id, login) in list.proxies.iter().filter(|(id, _)| !self.given_up_until.contains_key(*id)) {
                let full = offers.len() >= self.most;
                let new = || Offer { list: list.name.clone(), login: None, through: list.through };
                let offer = match offers.entry(id) {
                    std::collections::hash_map::Entry::Vacant(_) if full => continue,
                    entry => entry.or_insert_with(new),
                };
                offer.login = offer.login.take().or_else(|| login.clone());
                // A proxy may be in several lists. If the proxies of one of these lists must be reached through Tor,
                // the proxy is reached through Tor.
                if list.through == Through::Tor {
                    offer.through = Through::Tor;
                }
            }
        }
        let incomplete = self.lists.iter().any(|list| !list.arrived);
        let kept = current.filter(|listing| match &listing.id {
            ExitId::Public(id) => incomplete && !offers.contains_key(&**id) && !self.given_up_until.contains_key(&**id),
            _ => false,
        });
        let kept: Vec<_> = kept.collect();
        let mut listings: Vec<_> =
            offers.into_iter().map(|(id, offer)| offer.listing(id.clone(), &self.geoip)).collect();
        listings.extend(kept);
        listings
    }
}

/// Receives the updates of all lists and applies the merged list. This value survives a panic of its worker, and the
/// next worker continues to use it.
struct ListMerger {
    merge: ListMerge,
    state: State,
    store: Option<Store>,
    updates: mpsc::Receiver<Update<ProxyList>>,
    given_up: mpsc::Receiver<ExitId>,
    /// When the list is merged again, even if no update arrives. `None` if the merger waits for an update only.
    again: Option<Instant>,
}

impl ListMerger {
    async fn run(&mut self) {
        loop {
            let again = self.again;
            tokio::select! {
                Some(Update { status, value }) = self.updates.recv() => {
                    if let Some(content) = value {
                        self.merge.take(&status.name, content);
                        self.apply().await;
                    }
                    if let Some(store) = &self.store {
                        store.note(Write::PutSource(status));
                    }
                }
                Some(exit) = self.given_up.recv() => {
                    if let ExitId::Public(id) = exit {
                        self.merge.give_up((*id).clone(), self.state.now());
                        self.again.get_or_insert(Instant::now() + COLLECT);
                    }
                }
                () = async { sleep_until(again.unwrap_or_else(Instant::now)).await }, if again.is_some() => {
                    self.apply().await;
                }
                else => return,
            }
        }
    }

    /// Applies the merged list to the state. A proxy that is in no list any more drains (gets no new connections), and
    /// the state removes it when the next merged list is applied. So while proxies drain, the merged list is applied
    /// once more a little later.
    async fn apply(&mut self) {
        let snapshot = self.state.snapshot();
        let public = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public);
        let current = public.filter(|exit| !exit.known().marks.draining).map(|exit| (**exit.listing()).clone());
        let listings = self.merge.listings(current, self.state.now());
        let count = listings.len();
        drop(snapshot);
        if let Err(error) = self.state.apply(Change::Listed(Source::Public, listings)).await {
            tracing::error!(%error, "the list of public proxies could not be applied");
            return;
        }
        tracing::debug!(proxies = count, "the list of public proxies has changed");
        let draining = self.state.load().catalog.iter().any(|exit| {
            let marks = exit.known().marks;
            exit.id().source() == Source::Public && marks.draining && !marks.bad_for_good
        });
        self.again = draining.then(|| Instant::now() + COLLECT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PublicId {
        PublicId { protocol: crate::exit::Protocol::Http, addr: ([192, 0, 2, n], 80).into() }
    }

    fn list(ids: &[u8], login: Option<&str>) -> ProxyList {
        let login = login.map(|user| Login { user: user.into(), password: crate::net::Secret::new("x") });
        ProxyList { proxies: ids.iter().map(|n| (id(*n), login.clone())).collect(), ..ProxyList::default() }
    }

    fn merge(most: usize) -> ListMerge {
        let lists = vec![NamedList::new("a", Through::Direct), NamedList::new("b", Through::Tor)];
        let (given_up_until, geoip) = (HashMap::new(), Arc::default());
        ListMerge { lists, given_up_until, removed_for: Duration::from_secs(60), most, geoip }
    }

    /// Returns the merged list as text. `1a` is proxy 1 of list a, `T` means that the proxy is reached through Tor, and
    /// `L` means that the proxy has a login.
    fn shown(merge: &mut ListMerge, current: &[u8], now: Moment) -> Vec<String> {
        let offer = || Offer { list: "old".into(), login: None, through: Through::Direct };
        let geoip = GeoIp::default();
        let current = current.iter().map(|n| offer().listing(id(*n), &geoip));
        let word = |listing: Listing| {
            let (ExitId::Public(id), Some(offer)) = (listing.id, listing.public) else { panic!("not public") };
            let std::net::IpAddr::V4(ip) = id.addr.ip() else { panic!("not v4") };
            let tor = if offer.through == Through::Tor { "T" } else { "" };
            format!("{}{}{tor}{}", ip.octets()[3], offer.list, if offer.login.is_some() { "L" } else { "" })
        };
        let mut all: Vec<_> = merge.listings(current, now).into_iter().map(word).collect();
        all.sort();
        all
    }

    #[test]
    fn lists_are_merged_and_proxies_of_the_last_run_stay_until_all_lists_have_arrived() {
        let mut merge = merge(100);
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1old", "7old"]);
        merge.take("a", list(&[1, 2], None));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1a", "2a", "7old"]);
        merge.take("b", list(&[2, 3], Some("user")));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1a", "2aTL", "3bTL"]);
        merge.take("a", list(&[], None));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["2bTL", "3bTL"]);
    }

    #[test]
    fn a_given_up_proxy_is_left_out_for_a_while() {
        let mut merge = merge(100);
        merge.take("a", list(&[1, 2], None));
        merge.give_up(id(2), Moment(0));
        merge.give_up(id(7), Moment(0));
        assert_eq!(shown(&mut merge, &[7, 8], Moment(1)), ["1a", "8old"]);
        assert_eq!(shown(&mut merge, &[], Moment(60_000_000)), ["1a", "2a"]);
    }

    #[test]
    fn there_is_a_limit_for_all_lists_together() {
        let mut merge = merge(3);
        merge.take("a", list(&[1, 2], None));
        merge.take("b", list(&[3, 4, 5], None));
        assert_eq!(shown(&mut merge, &[], Moment(0)).len(), 3);
    }
}
