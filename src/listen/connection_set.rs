//! The open connections of one listener: counts them, waits until all have ended, and cuts them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::lifecycle::Cut;

#[derive(Debug, Default)]
pub(super) struct ConnectionSet {
    slots: Mutex<Slots>,
    open: AtomicUsize,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    cuts: Vec<Option<Cut>>,
    free: Vec<usize>,
    /// True after a call of [`ConnectionSet::cut`]. A connection that enters the set later is cut immediately.
    all_cut: bool,
}

/// Keeps a connection in the set. Dropping this value removes the connection.
#[derive(Debug)]
pub(super) struct Member {
    connections: Arc<ConnectionSet>,
    slot: usize,
}

impl ConnectionSet {
    /// Adds a connection to the set. `cut` is the switch that ends this connection.
    pub(super) fn enter(self: &Arc<Self>, cut: Cut) -> Member {
        let mut slots = self.slots();
        if slots.all_cut {
            cut.cut();
        }
        let slot = slots.free.pop().unwrap_or(slots.cuts.len());
        if slot == slots.cuts.len() {
            slots.cuts.push(None);
        }
        slots.cuts[slot] = Some(cut);
        self.open.fetch_add(1, Ordering::Relaxed);
        Member { connections: self.clone(), slot }
    }

    /// Returns the number of connections that are open now.
    pub(super) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Cuts all open connections and returns how many connections were cut.
    pub(super) fn cut(&self) -> usize {
        let cuts: Vec<Cut> = {
            let mut slots = self.slots();
            slots.all_cut = true;
            slots.cuts.iter().flatten().cloned().collect()
        };
        cuts.iter().for_each(Cut::cut); // outside the lock, because a woken task may drop its `Member` immediately
        cuts.len()
    }

    /// Waits until no connection is open.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable(); // must be before `len`, or a notification between the two calls would be missed
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut slots = self.connections.slots();
        slots.cuts[self.slot] = None;
        slots.free.push(self.slot);
        if self.connections.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The set is empty now. A new value frees the memory that was needed while many connections were open.
            *slots = Slots { all_cut: slots.all_cut, ..Slots::default() };
            drop(slots);
            self.connections.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slots_are_used_again_and_a_cut_reaches_all_open_connections() {
        let connections = Arc::new(ConnectionSet::default());
        let cuts: Vec<Cut> = (0..3).map(|_| Cut::new()).collect();
        let mut members: Vec<Member> = cuts.iter().map(|cut| connections.enter(cut.clone())).collect();
        members.remove(1);
        let late = Cut::new();
        members.push(connections.enter(late.clone()));
        assert_eq!((connections.len(), connections.slots().cuts.len()), (3, 3));

        assert_eq!(connections.cut(), 3);
        assert_eq!(cuts.iter().map(Cut::is_cut).collect::<Vec<_>>(), [true, false, true]);
        assert!(late.is_cut());
        let after = Cut::new();
        members.push(connections.enter(after.clone()));
        assert!(after.is_cut(), "a connection that enters after the cut is cut");
    }

    #[tokio::test]
    async fn emptied_waits_for_the_last_connection() {
        let connections = Arc::new(ConnectionSet::default());
        connections.emptied().await;
        let (first, second) = (connections.enter(Cut::new()), connections.enter(Cut::new()));
        let leave = async {
            drop(first);
            tokio::task::yield_now().await;
            assert_eq!(connections.len(), 1);
            drop(second);
        };
        tokio::join!(connections.emptied(), leave);
        assert_eq!((connections.len(), connections.slots().cuts.capacity()), (0, 0));
    }
}
