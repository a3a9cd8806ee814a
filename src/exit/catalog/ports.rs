//! Who lets a port out: exits by policy, and by port as far as somebody has asked.
//!
//! Thousands of exits publish a few hundred different policies, so exits are filed by policy, and who lets a port out
//! is the union of a few hundred sets: some microseconds. It is worked out when somebody asks for the port and kept
//! until an exit with another policy comes or goes, which a verdict never brings about.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::super::policy::PortPolicy;
use super::{Bits, Slot};

/// Ports whose answer is kept. Arbitrary: more than scrapers use. A stranger who asks for them all pays for each, and
/// pushes out the one that was asked for first.
const KEPT: usize = 64;

/// Exits by what they let out to one family of addresses.
#[derive(Debug, Default)]
pub(super) struct Ports {
    by_policy: HashMap<Arc<PortPolicy>, Arc<Bits>>,
    asked: ArcSwap<Vec<(u16, Arc<Bits>)>>,
}

impl Clone for Ports {
    /// A copy is made to be changed: it has no answers yet.
    fn clone(&self) -> Self {
        Self { by_policy: self.by_policy.clone(), asked: ArcSwap::default() }
    }
}

impl Ports {
    /// Files an exit under another policy; a policy that lets nothing out is none.
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
        // Only a copy of its own is ever changed, but it may have been asked between two changes.
        self.asked = ArcSwap::default();
    }

    /// Every exit that lets the port out.
    pub(super) fn allowing(&self, port: u16) -> Arc<Bits> {
        let kept = self.asked.load();
        if let Some((_, bits)) = kept.iter().find(|(asked, _)| *asked == port) {
            return bits.clone();
        }
        let mut bits = Bits::default();
        self.by_policy.iter().filter(|(policy, _)| policy.allows(port)).for_each(|(_, slots)| bits.add(slots));
        let bits = Arc::new(bits);
        self.asked.rcu(|kept| {
            let others = kept.iter().filter(|(asked, _)| *asked != port);
            let mut kept: Vec<_> = others.skip((kept.len() + 1).saturating_sub(KEPT)).cloned().collect();
            kept.push((port, bits.clone()));
            kept
        });
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_few_and_follow_what_is_filed() {
        let policy = |text: &str| text.parse::<PortPolicy>().unwrap();
        let (web, all) = (policy("accept 80,443"), PortPolicy::accept_all());
        let mut ports = Ports::default();
        ports.file(Slot(1), None, Some(&web));
        ports.file(Slot(2), None, Some(&all));
        ports.file(Slot(3), None, Some(&PortPolicy::reject_all()));
        let slots = |ports: &Ports, port| ports.allowing(port).iter().map(|slot| slot.0).collect::<Vec<_>>();
        assert_eq!((slots(&ports, 443), slots(&ports, 25)), (vec![1, 2], vec![2]));
        (1..1000).for_each(|port| drop(ports.allowing(port)));
        assert_eq!(ports.asked.load().len(), KEPT);
        assert_eq!(slots(&ports, 443), [1, 2]);
        ports.file(Slot(2), Some(&all), Some(&web));
        ports.file(Slot(1), Some(&web), None);
        assert_eq!((slots(&ports, 443), slots(&ports, 25)), (vec![2], vec![]));
        assert_eq!(ports.by_policy.len(), 1, "a policy that nobody has is dropped");
    }
}
