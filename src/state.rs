//! The gateway's state: exits, routes and bans. All changes of the state are made here, one after another.
//!
//! Readers use a [`Snapshot`], which is immutable and needs no lock. [`State::apply`] makes a change in three steps.
//! First, it builds the new snapshot, which fails if the change is not allowed. Second, it stores the change if a user
//! asked for it. Third, it publishes the new snapshot. So an invalid state is never stored, and no change that was
//! acknowledged is lost.
//!
//! Data that changes with every connection is kept elsewhere. The loads of exits are atomics in [`crate::exit`].
//! Sessions and pins are in [`Memory`], whose locks are held for nanoseconds only. This module stores the changes of
//! sessions and pins every few seconds.
//!
//! Next: `state/change.rs` contains all changes. [`crate::gateway`] reads the state. [`crate::source`] and
//! [`crate::check`] change the state.

mod change;
mod clock;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Mutex, broadcast, mpsc, watch};

use change::Effects;
pub use change::{CONFIG_PORTS, Change, ExitUpdate, Refused};
pub use clock::Clock;

use crate::exit::{Catalog, ExitId, Moment};
use crate::lifecycle::Tasks;
use crate::route::View;
use crate::route::ban::Bans;
use crate::route::memory::Memory;
use crate::route::selector::RouteName;
use crate::route::table::RouteTable;
use crate::route::wanted::wanted;
use crate::route::{CircuitDemand, Event, Policy, Words};
use crate::store::{Fault, Store, StoreError, Write};

/// The time between two runs of the tick, which removes expired things and stores changes of sessions. Sessions live
/// for minutes or longer. A crash loses only the changes of their last use within this time. Not tuned.
const TICK: Duration = Duration::from_secs(2);

/// The circuits that Tor should keep ready are computed again after at most this time, because exits are used in the
/// meantime. Not tuned: most clients that use an exit again do so more than ten seconds after the first use.
const WANT_EVERY: Duration = Duration::from_secs(10);

/// How long an answer to a client waits at most until a new pin or session of the client is on the disk. Not tuned.
const DURABLE_WITHIN: Duration = Duration::from_secs(1);

/// How many events are kept for a slow reader before the reader misses some. Not tuned.
const EVENTS: usize = 1024;

/// How many exits may wait in the queue to the tester because a live request needs a check of them. Not tuned: this is
/// more than the tester checks at the same time.
const URGENT_CHECKS: usize = 256;

/// All data that a connection reads to choose an exit. Immutable.
#[derive(Clone)]
pub struct Snapshot {
    /// A number that grows by one with every change.
    pub revision: u64,
    pub catalog: Catalog,
    /// The routes, each with its pool of exits.
    pub routes: RouteTable,
    /// The bans: which site refuses which exit.
    pub bans: Bans,
}

impl Snapshot {
    /// Returns a snapshot without exits or routes. `defaults` is the policy of selectors that do not belong to a route.
    pub fn new(words: Words, defaults: Policy) -> Self {
        let routes = RouteTable::new(words, defaults);
        Self { revision: 0, catalog: Catalog::default(), routes, bans: Bans::default() }
    }

    /// Returns the part of the snapshot that is needed to choose an exit.
    pub fn view(&self) -> View<'_> {
        View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans }
    }
}

/// A handle on the state. Cheap to clone.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Snapshot>,
    memory: Memory,
    clock: Clock,
    store: Option<Store>,
    writer: Mutex<()>,
    revisions: watch::Sender<u64>,
    wanted: watch::Sender<CircuitDemand>,
    events: broadcast::Sender<Arc<Event>>,
    urgent: mpsc::Sender<ExitId>,
}

impl State {
    /// Returns a state that begins with `snapshot` and writes to `store`, if there is a store. The receiver yields the
    /// exits for which live requests wait: the tester checks these exits first.
    pub fn new(
        snapshot: Snapshot,
        memory: Memory,
        clock: Clock,
        store: Option<Store>,
    ) -> (Self, mpsc::Receiver<ExitId>) {
        let (urgent, urgent_checks) = mpsc::channel(URGENT_CHECKS);
        let shared = Shared {
            revisions: watch::Sender::new(snapshot.revision),
            current: ArcSwap::from_pointee(snapshot),
            memory,
            clock,
            store,
            writer: Mutex::default(),
            wanted: watch::Sender::default(),
            events: broadcast::Sender::new(EVENTS),
            urgent,
        };
        (Self { shared: Arc::new(shared) }, urgent_checks)
    }

    /// Returns the current snapshot for one decision. Do not hold the returned guard across an await. For longer use,
    /// call [`State::snapshot`].
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.current.load()
    }

    /// Returns the current snapshot, for use over a longer time.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Returns the sessions, the pins and the implicit routes.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Returns the time of the clock that is used for all stored times.
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// Returns a receiver of the snapshot's revision, which changes when a snapshot is published.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revisions.subscribe()
    }

    /// Returns a receiver of the exits for which Tor should keep circuits ready.
    pub fn wanted(&self) -> watch::Receiver<CircuitDemand> {
        self.shared.wanted.subscribe()
    }

    /// Returns a receiver of all events, which the API path `/events` shows.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// Requests a check of an exit for which a live request waits, or through which a live request failed. This call
    /// never blocks. If the queue is full, the request is dropped, because the tester is then busy with exits of this
    /// kind.
    pub fn request_check(&self, exit: ExitId) {
        let _ = self.shared.urgent.try_send(exit);
    }

    /// Logs the events, and sends them to the readers of `/events`.
    pub fn announce(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if event.is_grave() {
                tracing::warn!(target: "exitgate::event", "{event}");
            } else {
                tracing::info!(target: "exitgate::event", "{event}");
            }
            let _ = self.shared.events.send(Arc::new(event));
        }
    }

    /// Makes one change: builds the next snapshot, stores the data that a user asked to change, and publishes the
    /// snapshot.
    pub async fn apply(&self, change: Change) -> Result<(), Refused> {
        let _writer = self.shared.writer.lock().await;
        let before = self.snapshot();
        let mut next = (*before).clone();
        let Effects { commit, note, released, changed, events } = change.make(&mut next, self.now())?;
        next.revision += 1;
        if let Some(store) = &self.shared.store {
            if !commit.is_empty() {
                store.commit(commit).await.map_err(Refused::Store)?;
            }
            note.into_iter().for_each(|write| store.note(write));
        }
        self.publish(next);
        self.release(&before, &released, changed.as_ref());
        change::count(&events);
        self.announce(events);
        Ok(())
    }

    /// Ends all sessions and pins of the routes in `released`, which were deleted. Of the route `changed`, ends the
    /// pins that its new selector does not allow.
    fn release(&self, before: &Snapshot, released: &[RouteName], changed: Option<&RouteName>) {
        let (memory, now) = (&self.shared.memory, self.now());
        let owner = |scope: &str| before.routes.owner(scope);
        if !released.is_empty() {
            let gone = |scope: &str| owner(scope).is_some_and(|name| released.contains(name));
            memory.sessions().forget(|holder| gone(holder.scope));
            self.announce(memory.pins().forget(|holder, _| gone(holder.scope), now));
        }
        if changed.is_some() {
            let snapshot = self.snapshot();
            let wants = |scope: &str, exit: &ExitId| {
                let wish = snapshot.routes.resolve_scope(scope);
                wish.is_some_and(|wish| snapshot.catalog.get(exit).is_none_or(|exit| wish.wants(exit)))
            };
            let gone = |scope: &str, exit: &ExitId| owner(scope) == changed && !wants(scope, exit);
            self.announce(memory.pins().forget(|holder, to| gone(holder.scope, &to.exit), now));
        }
    }

    fn publish(&self, mut next: Snapshot) {
        let now = self.now();
        next.routes = next.routes.refreshed(&next.catalog, now);
        let next = Arc::new(next);
        let events = self.shared.memory.tidy(next.view(), now);
        self.shared.current.store(next.clone());
        self.shared.revisions.send_replace(next.revision);
        self.want(&next, now);
        self.announce(events);
    }

    fn want(&self, snapshot: &Snapshot, now: Moment) {
        let wanted = wanted(snapshot.view(), &self.shared.memory, now);
        self.shared.wanted.send_if_modified(|held| {
            let changed = *held != wanted;
            *held = wanted;
            changed
        });
    }

    /// Runs the worker for all work that depends on time: expiry, rotation, and the storing of sessions and pins.
    pub async fn run(self, tasks: Tasks) {
        let mut tick = tokio::time::interval(TICK);
        let (mut generation, mut computed) = (0, self.now());
        while !tasks.is_stopping() {
            tokio::select! {
                () = tasks.stopping() => break,
                _ = tick.tick() => self.tick(&mut generation, &mut computed).await,
            }
        }
        self.store_memory();
    }

    /// Does the work of one tick. `generation` and `computed` are the generation of the memory and the time at which
    /// the wanted circuits were last computed.
    async fn tick(&self, generation: &mut u64, computed: &mut Moment) {
        let now = self.now();
        {
            let _writer = self.shared.writer.lock().await;
            let current = self.snapshot();
            let bans = current.bans.swept(now);
            let routes = current.routes.refreshed(&current.catalog, now);
            if bans.is_some() || !routes.has_pools_of(&current.routes) {
                let bans = bans.unwrap_or_else(|| current.bans.clone());
                let catalog = current.catalog.clone();
                self.publish(Snapshot { revision: current.revision + 1, catalog, routes, bans });
            } else {
                let events = self.shared.memory.tidy(current.view(), now);
                self.announce(events);
            }
        }
        let latest = self.shared.memory.generation();
        // The generation of the memory shows that the wanted circuits may have changed. But the use of an exit does not
        // change the generation. So the wanted circuits are also computed again after the time [`WANT_EVERY`].
        let due = now.since(*computed) >= WANT_EVERY;
        if std::mem::replace(generation, latest) != latest || due {
            *computed = now;
            self.want(&self.load(), now);
        }
        self.store_memory();
    }

    /// Announces new pins and sessions, and returns when they are on the disk. The reason: after a client has got an
    /// answer, a restart must not lose its pin. If the disk fails or hangs, this function returns after a short time,
    /// and the pin is kept only as long as this process lives.
    pub async fn make_durable(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.announce(events);
        let Some(store) = &self.shared.store else { return };
        // This commit is made even if there are no changes. The reason: the tick may have passed the changes to the
        // store a moment ago. The store writes in the order of the calls, so when this commit is on the disk, those
        // changes are too.
        let changes = || self.shared.memory.changes().into_iter().map(Write::from).collect();
        // Any other error was logged by the store, which writes the changes as soon as it can.
        if let Err(StoreError::Refused(Fault::Hung)) = store.commit_or_note(DURABLE_WITHIN, changes).await {
            tracing::warn!("the disk is slow: a new pin or session may be lost if the gateway stops now");
        }
    }

    /// Passes the changes of sessions and pins to the store.
    fn store_memory(&self) {
        let Some(store) = &self.shared.store else { return };
        store.look_at_disk();
        if !store.has_room() {
            return; // the changes stay in memory until the store has room for them
        }
        self.shared.memory.changes().into_iter().for_each(|change| store.note(change.into()));
    }
}

#[cfg(test)]
mod tests;
