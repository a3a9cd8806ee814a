//! The lists of public proxies at work: each is asked for itself, and one desk puts them together.
//!
//! A proxy that several lists name is one exit; a proxy that no list names any more drains away. What the judge gives
//! up after failures in a row is left out here for a while, or it would come back with every list: the desk alone says
//! what is listed, so that two lists that change at once cannot overtake one another.
//!
//! Next: `source/proxifly.rs` and `source/list.rs` ask; [`crate::state`] takes the list; [`crate::check`] judges.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

use super::fetch::{Client, Connect, Limits};
use super::handle::Sources;
use super::list::reader::Read;
use super::list::{Bounds, List};
use super::poll::{self, Clock, Feed, Update};
use super::proxifly::{self, Proxifly};
use crate::config;
use crate::exit::country::GeoIp;
use crate::exit::{ExitId, Listing, Login, Moment, Offer, PublicId, Source, Through};
use crate::lifecycle::Tasks;
use crate::state::{Change, State};
use crate::store::{self, Store, Write};

/// Age at which a list's data are called old. Arbitrary: free proxies live for an hour or so.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// How long what the judge gives up is gathered before the list is made anew: it comes by the hundred.
const GATHER: Duration = Duration::from_secs(5);

/// Given-up proxies that wait to be heard. Arbitrary: more than one batch of the judge holds.
pub const GIVEN_UP: usize = 4096;

/// What the lists of public proxies need.
pub struct Publics<C> {
    /// ProxiFly and the others.
    pub sources: config::Sources,
    /// How many proxies there may be, and where.
    pub bounds: Bounds,
    /// How long a proxy is left out that the judge gave up.
    pub removed_for: Duration,
    /// Who asks.
    pub client: Client<C>,
    /// Where addresses are.
    pub geoip: Arc<GeoIp>,
    /// How the lists fared in the last run.
    pub known: Vec<store::Source>,
    /// Where the proxies go.
    pub state: State,
    /// Where it is written how lists fare.
    pub store: Option<Store>,
    /// Proxies that the judge gives up.
    pub given_up: mpsc::Receiver<ExitId>,
}

impl<C: Connect> Publics<C> {
    /// Starts them all, until shutdown.
    pub fn start(self, tasks: &Tasks) -> Sources {
        let Self { sources, bounds, removed_for, client, geoip, known, state, store, given_up } = self;
        let clock: Clock = {
            let state = state.clone();
            Arc::new(move || state.now())
        };
        let of = |name: &str| known.iter().find(|source| source.name == name).cloned().map(afresh);
        let (tell, updates) = mpsc::channel(1);
        let mut lists: Vec<Named> = Vec::new();
        let mut handles = Vec::new();
        if sources.proxifly.enabled {
            let feed = feed(proxifly::NAME, sources.proxifly.every);
            let ask = Proxifly::new(&sources.proxifly, bounds, client.clone(), clock.clone());
            handles.push(poll::start_asking(feed, ask, of(proxifly::NAME), clock.clone(), tasks, tell.clone()));
            lists.push(Named::new(proxifly::NAME, sources.proxifly.through.into()));
        }
        for list in &sources.lists {
            let feed = Feed { url: list.url.clone(), ..feed(&list.name, list.every) };
            let ask = List {
                name: list.name.clone(),
                url: list.url.clone(),
                format: list.format,
                protocol: list.protocol,
                bounds,
                limits: Limits::default(),
                client: client.clone(),
            };
            handles.push(poll::start_asking(feed, ask, of(&list.name), clock.clone(), tasks, tell.clone()));
            lists.push(Named::new(&list.name, list.through.into()));
        }
        let (gone, most) = (HashMap::new(), bounds.most);
        let merge = Merge { lists, gone, removed_for, most, geoip };
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
    let url = http::Uri::default(); // who asks knows where
    Feed { name: name.into(), url, every, stale_after: STALE_AFTER, limits: Limits::default() }
}

/// A list as if it had never been asked: proxies that do not work are not kept from run to run.
fn afresh(known: store::Source) -> store::Source {
    store::Source { etag: None, last_modified: None, next: None, published: None, ..known }
}

/// One list and what it says.
struct Named {
    name: Arc<str>,
    through: Through,
    proxies: HashMap<PublicId, Option<Login>>,
    /// It has spoken since the start.
    heard: bool,
}

impl Named {
    fn new(name: &str, through: Through) -> Self {
        Self { name: name.into(), through, proxies: HashMap::new(), heard: false }
    }
}

/// What the lists say together.
struct Merge {
    lists: Vec<Named>,
    /// What the judge gave up, and until when it stays out.
    gone: HashMap<PublicId, Moment>,
    removed_for: Duration,
    most: usize,
    geoip: Arc<GeoIp>,
}

impl Merge {
    fn hear(&mut self, name: &str, read: Read) {
        if let Some(list) = self.lists.iter_mut().find(|list| *list.name == *name) {
            (list.proxies, list.heard) = (read.proxies, true);
        }
    }

    fn give_up(&mut self, id: PublicId, now: Moment) {
        self.gone.insert(id, now.after(self.removed_for));
    }

    /// Everything that is listed now. What stood at the start stays until every list was heard: `stood` says what that
    /// is.
    fn listings(&mut self, stood: impl Iterator<Item = Listing>, now: Moment) -> Vec<Listing> {
        let named: usize = self.lists.iter().map(|list| list.proxies.len()).sum();
        self.gone.retain(|_, until| *until > now);
        let mut offers: HashMap<&PublicId, Offer> = HashMap::with_capacity(named.min(self.most));
        for list in &self.lists {
            for (id, login) in list.proxies.iter().filter(|(id, _)| !self.gone.contains_key(*id)) {
                let full = offers.len() >= self.most;
                let new = || Offer { list: list.name.clone(), login: None, through: list.through };
                let offer = match offers.entry(id) {
                    std::collections::hash_map::Entry::Vacant(_) if full => continue,
                    entry => entry.or_insert_with(new),
                };
                offer.login = offer.login.take().or_else(|| login.clone());
                // Whoever wants to stay unseen by one list's proxies is not shown to them by another.
                if list.through == Through::Tor {
                    offer.through = Through::Tor;
                }
            }
        }
        let still = self.lists.iter().any(|list| !list.heard);
        let kept = stood.filter(|listing| match &listing.id {
            ExitId::Public(id) => still && !offers.contains_key(&**id) && !self.gone.contains_key(&**id),
            _ => false,
        });
        let kept: Vec<_> = kept.collect();
        let mut listings: Vec<_> =
            offers.into_iter().map(|(id, offer)| offer.listing(id.clone(), &self.geoip)).collect();
        listings.extend(kept);
        listings
    }
}

/// Where lists are put together. It survives a panic of the worker that sits at it.
struct ListMerger {
    merge: Merge,
    state: State,
    store: Option<Store>,
    updates: mpsc::Receiver<Update<Read>>,
    given_up: mpsc::Receiver<ExitId>,
    /// When the list is made anew without anybody speaking.
    again: Option<Instant>,
}

impl ListMerger {
    async fn run(&mut self) {
        loop {
            let again = self.again;
            tokio::select! {
                Some(Update { status, news }) = self.updates.recv() => {
                    if let Some(read) = news {
                        self.merge.hear(&status.name, read);
                        self.pass_on().await;
                    }
                    if let Some(store) = &self.store {
                        store.note(Write::PutSource(status));
                    }
                }
                Some(exit) = self.given_up.recv() => {
                    if let ExitId::Public(id) = exit {
                        self.merge.give_up((*id).clone(), self.state.now());
                        self.again.get_or_insert(Instant::now() + GATHER);
                    }
                }
                () = async { sleep_until(again.unwrap_or_else(Instant::now)).await }, if again.is_some() => {
                    self.pass_on().await;
                }
                else => return,
            }
        }
    }

    /// Makes the list anew. What left it drains, and is forgotten by the next one: so there is one more if need be.
    async fn pass_on(&mut self) {
        let snapshot = self.state.snapshot();
        let public = snapshot.catalog.iter().filter(|exit| exit.id().source() == Source::Public);
        let stood = public.filter(|exit| !exit.known().marks.draining).map(|exit| (**exit.listing()).clone());
        let listings = self.merge.listings(stood, self.state.now());
        let count = listings.len();
        drop(snapshot);
        if let Err(error) = self.state.apply(Change::Listed(Source::Public, listings)).await {
            tracing::error!(%error, "the list of public proxies could not be taken over");
            return;
        }
        tracing::debug!(proxies = count, "the list of public proxies has changed");
        let draining = self.state.load().catalog.iter().any(|exit| {
            let marks = exit.known().marks;
            exit.id().source() == Source::Public && marks.draining && !marks.bad_for_good
        });
        self.again = draining.then(|| Instant::now() + GATHER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PublicId {
        PublicId { protocol: crate::exit::Protocol::Http, addr: ([192, 0, 2, n], 80).into() }
    }

    fn read(ids: &[u8], login: Option<&str>) -> Read {
        let login = login.map(|user| Login { user: user.into(), password: crate::net::Secret::new("x") });
        Read { proxies: ids.iter().map(|n| (id(*n), login.clone())).collect(), ..Read::default() }
    }

    fn merge(most: usize) -> Merge {
        let lists = vec![Named::new("a", Through::Direct), Named::new("b", Through::Tor)];
        let (gone, geoip) = (HashMap::new(), Arc::default());
        Merge { lists, gone, removed_for: Duration::from_secs(60), most, geoip }
    }

    /// `1a` is proxy 1 by list a; `T` says that it is reached through Tor, `L` that it has a login.
    fn shown(merge: &mut Merge, stood: &[u8], now: Moment) -> Vec<String> {
        let offer = || Offer { list: "old".into(), login: None, through: Through::Direct };
        let geoip = GeoIp::default();
        let stood = stood.iter().map(|n| offer().listing(id(*n), &geoip));
        let word = |listing: Listing| {
            let (ExitId::Public(id), Some(offer)) = (listing.id, listing.public) else { panic!("not public") };
            let std::net::IpAddr::V4(ip) = id.addr.ip() else { panic!("not v4") };
            let tor = if offer.through == Through::Tor { "T" } else { "" };
            format!("{}{}{tor}{}", ip.octets()[3], offer.list, if offer.login.is_some() { "L" } else { "" })
        };
        let mut all: Vec<_> = merge.listings(stood, now).into_iter().map(word).collect();
        all.sort();
        all
    }

    #[test]
    fn lists_are_put_together_and_the_last_run_stands_until_all_were_heard() {
        let mut merge = merge(100);
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1old", "7old"]);
        merge.hear("a", read(&[1, 2], None));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1a", "2a", "7old"]);
        merge.hear("b", read(&[2, 3], Some("user")));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["1a", "2aTL", "3bTL"]);
        merge.hear("a", read(&[], None));
        assert_eq!(shown(&mut merge, &[1, 7], Moment(0)), ["2bTL", "3bTL"]);
    }

    #[test]
    fn what_was_given_up_stays_out_for_its_time() {
        let mut merge = merge(100);
        merge.hear("a", read(&[1, 2], None));
        merge.give_up(id(2), Moment(0));
        merge.give_up(id(7), Moment(0));
        assert_eq!(shown(&mut merge, &[7, 8], Moment(1)), ["1a", "8old"]);
        assert_eq!(shown(&mut merge, &[], Moment(60_000_000)), ["1a", "2a"]);
    }

    #[test]
    fn there_is_a_limit_for_all_lists_together() {
        let mut merge = merge(3);
        merge.hear("a", read(&[1, 2], None));
        merge.hear("b", read(&[3, 4, 5], None));
        assert_eq!(shown(&mut merge, &[], Moment(0)).len(), 3);
    }
}
