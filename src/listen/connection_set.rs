//! The connections of one listener that are alive: counted, waited for, and cut.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::lifecycle::Cut;

/// The connections of one listener.
#[derive(Debug, Default)]
pub(super) struct ConnectionSet {
    places: Mutex<Places>,
    alive: AtomicUsize,
    left: Notify,
    accept_errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    cuts: Vec<Option<Cut>>,
    free: Vec<usize>,
    /// Set by [`ConnectionSet::cut`]: who comes in late is cut on entering.
    all_cut: bool,
}

/// One connection's place; dropping it leaves.
#[derive(Debug)]
pub(super) struct Member {
    connections: Arc<ConnectionSet>,
    place: usize,
}

impl ConnectionSet {
    /// Takes a place for a connection that `cut` ends.
    pub(super) fn enter(self: &Arc<Self>, cut: Cut) -> Member {
        let mut places = self.places();
        if places.all_cut {
            cut.cut();
        }
        let place = places.free.pop().unwrap_or(places.cuts.len());
        if place == places.cuts.len() {
            places.cuts.push(None);
        }
        places.cuts[place] = Some(cut);
        self.alive.fetch_add(1, Ordering::Relaxed);
        Member { connections: self.clone(), place }
    }

    /// Connections alive now.
    pub(super) fn len(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Cuts all and says how many there were.
    pub(super) fn cut(&self) -> usize {
        let cuts: Vec<Cut> = {
            let mut places = self.places();
            places.all_cut = true;
            places.cuts.iter().flatten().cloned().collect()
        };
        cuts.iter().for_each(Cut::cut); // outside the lock: a woken task may leave at once
        cuts.len()
    }

    /// Resolves when nobody is left.
    pub(super) async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable(); // before the look, or the last one's leaving could fall between look and wait
            if self.len() == 0 {
                return;
            }
            left.await;
        }
    }

    /// One more accept failed.
    pub(super) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Accepts that failed.
    pub(super) fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut places = self.connections.places();
        places.cuts[self.place] = None;
        places.free.push(self.place);
        if self.connections.alive.fetch_sub(1, Ordering::Relaxed) == 1 {
            // A burst of connections is over: give its room back.
            *places = Places { all_cut: places.all_cut, ..Places::default() };
            drop(places);
            self.connections.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_used_again_and_cuts_reach_those_who_are_there() {
        let connections = Arc::new(ConnectionSet::default());
        let cuts: Vec<Cut> = (0..3).map(|_| Cut::new()).collect();
        let mut members: Vec<Member> = cuts.iter().map(|cut| connections.enter(cut.clone())).collect();
        members.remove(1);
        let late = Cut::new();
        members.push(connections.enter(late.clone()));
        assert_eq!((connections.len(), connections.places().cuts.len()), (3, 3));

        assert_eq!(connections.cut(), 3);
        assert_eq!(cuts.iter().map(Cut::is_cut).collect::<Vec<_>>(), [true, false, true]);
        assert!(late.is_cut());
        let after = Cut::new();
        members.push(connections.enter(after.clone()));
        assert!(after.is_cut(), "who enters a crowd that was cut is cut");
    }

    #[tokio::test]
    async fn emptied_waits_for_the_last_one() {
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
        assert_eq!((connections.len(), connections.places().cuts.capacity()), (0, 0));
    }
}
