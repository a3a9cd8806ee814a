//! The exits that allow connections to a port.
//!
//! Thousands of exits publish only a few hundred different policies. So exits are indexed by policy, and the exits that
//! allow a port are the union of a few hundred sets. The union takes some microseconds. The first connection to a port
//! computes the union, and the result is cached until the policy of any exit changes. Check results never change a
//! policy.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::super::Slot;
use super::super::policy::PortPolicy;
use super::Bits;

/// The number of ports whose set of exits is cached. If there are more ports, the oldest cached set is dropped. Not
/// tuned: scrapers use fewer ports.
const CACHED: usize = 64;

/// Exits by allowed port. There is one such index for IPv4 targets and one for IPv6 targets.
#[derive(Debug, Default)]
pub(super) struct Ports {
    by_policy: HashMap<Arc<PortPolicy>, Arc<Bits>>,
    by_port: ArcSwap<Vec<(u16, Arc<Bits>)>>,
}

impl Clone for Ports {
    /// Copies everything but the cached sets, because a copy is made only to be changed, and a change makes the cached
    /// sets wrong.
    fn clone(&self) -> Self {
        Self { by_policy: self.by_policy.clone(), by_port: ArcSwap::default() }
    }
}

impl Ports {
    /// Moves an exit in the index from the policy `old` to the policy `new`. `None`, and a policy that allows no port,
    /// mean that the exit has no place in the index.
    pub(super) fn file(&mut self, slot: Slot, old: Option<&PortPolicy>, new: Option<&PortPolicy>) {
        if let Some(old) = old.filter(|old| !old.is_reject_all())
            && let Some(bits) = self.by_policy.get_mut(old)
        {
            Arc::make_mut(bits).set(slot, false);
            if bits.is_empty() {
                self.by_policy.remove(old);
            }
        }
        if let Some(new) = new.filter(|new| !new.is_reject_all()) {
            match self.by_policy.get_mut(new) {
                Some(bits) => Arc::make_mut(bits).set(slot, true),
                None => _ = self.by_policy.insert(Arc::new(new.clone()), Arc::new([slot].into_iter().collect())),
            }
        }
        // A look-up before this change may have cached the sets of exits by port, and this change makes the cached sets
        // wrong. So the cache is emptied.
        self.by_port = ArcSwap::default();
    }

    /// Returns the exits that allow connections to the port.
    pub(super) fn allowing(&self, port: u16) -> Arc<Bits> {
        let cached = self.by_port.load();
        if let Some((_, bits)) = cached.iter().find(|(cached, _)| *cached == port) {
            return bits.clone();
        }
        let mut bits = Bits::default();
        self.by_policy.iter().filter(|(policy, _)| policy.allows(port)).for_each(|(_, slots)| bits.add(slots));
        let bits = Arc::new(bits);
        self.by_port.rcu(|cached| {
            let others = cached.iter().filter(|(other, _)| *other != port);
            let mut next: Vec<_> = others.skip((cached.len() + 1).saturating_sub(CACHED)).cloned().collect();
            next.push((port, bits.clone()));
            next
        });
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_sets_are_bounded_and_follow_changes() {
        let policy = |text: &str| text.parse::<PortPolicy>().unwrap();
        let (web, all) = (policy("accept 80,443"), PortPolicy::accept_all());
        let mut ports = Ports::default();
        ports.file(Slot(1), None, Some(&web));
        ports.file(Slot(2), None, Some(&all));
        ports.file(Slot(3), None, Some(&PortPolicy::reject_all()));
        let slots = |ports: &Ports, port| ports.allowing(port).iter().map(|slot| slot.0).collect::<Vec<_>>();
        assert_eq!((slots(&ports, 443), slots(&ports, 25)), (vec![1, 2], vec![2]));
        (1..1000).for_each(|port| drop(ports.allowing(port)));
        assert_eq!(ports.by_port.load().len(), CACHED);
        assert_eq!(slots(&ports, 443), [1, 2]);
        ports.file(Slot(2), Some(&all), Some(&web));
        ports.file(Slot(1), Some(&web), None);
        assert_eq!((slots(&ports, 443), slots(&ports, 25)), (vec![2], vec![]));
        assert_eq!(ports.by_policy.len(), 1, "a policy without exits is removed");
    }
}
