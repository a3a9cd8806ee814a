//! The one writer: a durable copy in the store, a hot copy in a snapshot that readers never lock.
//!
//! A connection reads a [`Snapshot`] and keeps it as long as it likes; a change builds the next one and publishes it.
//! The order inside [`State::apply`] is the point of this room: the new snapshot is built first (it is pure and may
//! refuse), then what a user asked for is made durable, then the snapshot is published. So an invalid state is never
//! durable, and nothing that was acknowledged is lost.
//!
//! What changes with every connection is not here: the loads of exits are atomics inside [`crate::exit`], sessions and
//! pins are in [`Memory`], whose locks are held for nanoseconds. This room writes down what they say, now and then.
//!
//! Next: `state/change.rs` says what can change; [`crate::gateway`] reads, [`crate::source`] and [`crate::check`] write.

mod change;
mod clock;

use std::collections::BTreeSet;
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
use crate::route::{Event, Policy, WantedExits, Words};
use crate::store::{Store, Write};

/// How often expiries are looked for and what memory says is written down. Arbitrary: pins and sessions live for
/// minutes and more, and a crash loses at most this much of a session's last use.
const TICK: Duration = Duration::from_secs(2);

/// How long an answer waits for what it promises to be on the disk. Arbitrary: a client would take more for a hung gateway.
const PROMISE: Duration = Duration::from_secs(1);

/// Events kept for a slow reader before it is told that it missed some. Arbitrary.
const EVENTS: usize = 1024;

/// Exits that live requests wait for, not yet taken by the tester. Arbitrary: more than it tests at once.
const WISHES: usize = 256;

/// Everything that a connection reads to choose its way. Immutable.
#[derive(Clone)]
pub struct Snapshot {
    /// Grows by one with every change.
    pub revision: u64,
    /// The exits.
    pub catalog: Catalog,
    /// The routes and their pools.
    pub routes: RouteTable,
    /// Sites that refuse exits.
    pub bans: Bans,
}

impl Snapshot {
    /// One without exits or routes. `defaults` is the policy of selectors that are no route.
    pub fn new(words: Words, defaults: Policy) -> Self {
        let routes = RouteTable::new(words, defaults);
        Self { revision: 0, catalog: Catalog::default(), routes, bans: Bans::default() }
    }

    /// The part that choosing needs.
    pub fn view(&self) -> View<'_> {
        View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans }
    }
}

/// A handle on the state: cheap to clone.
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
    wanted: watch::Sender<WantedExits>,
    events: broadcast::Sender<Arc<Event>>,
    wishes: mpsc::Sender<ExitId>,
}

impl State {
    /// A state that begins with `snapshot` and writes to `store` where there is one. The receiver yields exits that
    /// live requests wait for: the tester takes them ahead of its backlog.
    pub fn new(
        snapshot: Snapshot,
        memory: Memory,
        clock: Clock,
        store: Option<Store>,
    ) -> (Self, mpsc::Receiver<ExitId>) {
        let (wishes, wished) = mpsc::channel(WISHES);
        let shared = Shared {
            revisions: watch::Sender::new(snapshot.revision),
            current: ArcSwap::from_pointee(snapshot),
            memory,
            clock,
            store,
            writer: Mutex::default(),
            wanted: watch::Sender::default(),
            events: broadcast::Sender::new(EVENTS),
            wishes,
        };
        (Self { shared: Arc::new(shared) }, wished)
    }

    /// The snapshot of this moment. Hold it for one decision, not across an await; [`State::snapshot`] is for longer.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.current.load()
    }

    /// The snapshot of this moment, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Sessions, pins and implicit routes.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The time, as everything that is durable counts it.
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// Ticks with every published snapshot.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revisions.subscribe()
    }

    /// What Tor should keep circuits for.
    pub fn wanted(&self) -> watch::Receiver<WantedExits> {
        self.shared.wanted.subscribe()
    }

    /// What happened, for the log and for people who watch.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// Asks for a check of an exit that a live request waits for. Never waits: a full queue means that the tester is
    /// busy with exactly such exits.
    pub fn wish(&self, exit: ExitId) {
        let _ = self.shared.wishes.try_send(exit);
    }

    /// Tells those who watch.
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

    /// Makes one change: builds the next snapshot, makes durable what a user asked for, publishes.
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

    /// Ends what was promised to users of routes that are gone, and pins of a changed route that are not what it asks
    /// for any more. Whoever asked for that did it in so many words; it is an event all the same.
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
                let wish = snapshot.routes.resolve(scope, None).ok();
                wish.is_some_and(|wish| snapshot.catalog.get(exit).is_none_or(|exit| wish.wants(exit)))
            };
            let gone = |scope: &str, exit: &ExitId| owner(scope) == changed && !wants(scope, exit);
            self.announce(memory.pins().forget(|holder, to| gone(holder.scope, &to.exit), now));
        }
    }

    /// Everything that is used now: members of pools and holders of pins.
    pub fn used(&self) -> BTreeSet<ExitId> {
        self.shared.wanted.borrow().every_exit().map(ExitId::Tor).collect()
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

    /// The worker that lets time pass: expiries, rotation, and what memory has to write down.
    pub async fn run(self, tasks: Tasks) {
        let mut tick = tokio::time::interval(TICK);
        let mut generation = 0;
        while !tasks.is_stopping() {
            tokio::select! {
                () = tasks.stopping() => break,
                _ = tick.tick() => self.tick(&mut generation).await,
            }
        }
        self.write_down();
    }

    async fn tick(&self, generation: &mut u64) {
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
        if std::mem::replace(generation, latest) != latest {
            self.want(&self.load(), now);
        }
        self.write_down();
    }

    /// Tells what was promised to somebody, and returns when it is on the disk: what an answer rests on must outlive us. A
    /// disk that fails or hangs does not hold the answer back for long; the promise then holds as long as we run.
    pub async fn promise(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.announce(events);
        let Some(store) = &self.shared.store else { return };
        // Also if it is nothing: what the tick has just handed over is then in front of it.
        let writes: Vec<Write> = self.shared.memory.changes().into_iter().map(Write::from).collect();
        match tokio::time::timeout(PROMISE, store.commit(writes.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => writes.into_iter().for_each(|write| store.note(write)), // the store has said why
            Err(_) => tracing::warn!("the disk takes its time: a promise may not outlive this process"),
        }
    }

    /// Hands what memory changed to the store.
    fn write_down(&self) {
        let Some(store) = &self.shared.store else { return };
        self.shared.memory.changes().into_iter().for_each(|change| store.note(change.into()));
    }
}

#[cfg(test)]
mod tests;
