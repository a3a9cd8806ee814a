//! What an exit does to the traffic that leaves it, played by the web.
//!
//! A real tor exit cannot be made to lie. But whoever stands between an exit and a site can, and the far side cannot tell
//! the two apart: so the web knows each exit by the address that it leaves from, and misbehaves for that one alone. What a
//! gateway sees is then what a lying exit would show, on real circuits of real tor.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What befalls what leaves from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Echoes in the clear name this address: somebody speaks for them.
    Lies(Ipv4Addr),
    /// Pages in the clear are exchanged for another. Echoes are left alone, as a careful tamperer leaves them.
    Tampers,
    /// HTTPS shows certificates of an authority that nobody trusts.
    BreaksTls,
    /// Every answer comes this much later.
    Slow(Duration),
    /// One host sees it with another address: an exit that leaves by several.
    Seen(&'static str, Ipv4Addr),
}

/// Everything that is planted.
#[derive(Debug, Default)]
pub(super) struct Plants(Mutex<HashMap<IpAddr, Plant>>);

impl Plants {
    pub(super) fn put(&self, source: IpAddr, plant: Option<Plant>) {
        let mut plants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match plant {
            Some(plant) => plants.insert(source, plant),
            None => plants.remove(&source),
        };
    }

    pub(super) fn of(&self, source: IpAddr) -> Option<Plant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source).cloned()
    }
}

impl Plant {
    /// The address that an echo at `host` names for `source`.
    pub(super) fn seen(this: Option<&Self>, source: IpAddr, host: &str, tls: bool) -> IpAddr {
        match this {
            Some(Self::Lies(ip)) if !tls => IpAddr::V4(*ip),
            Some(Self::Seen(at, ip)) if *at == host => IpAddr::V4(*ip),
            _ => source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_depends_on_what_was_planted() {
        let (source, other) = (IpAddr::from([127, 0, 0, 1]), Ipv4Addr::new(127, 0, 0, 2));
        let seen = |plant: Plant, host, tls| Plant::seen(Some(&plant), source, host, tls) != source;
        assert!(seen(Plant::Lies(other), "a", false) && !seen(Plant::Lies(other), "a", true));
        assert!(seen(Plant::Seen("a", other), "a", true) && !seen(Plant::Seen("a", other), "b", true));
        assert_eq!(Plant::seen(None, source, "a", false), source);
        let plants = Plants::default();
        plants.put(source, Some(Plant::Tampers));
        assert_eq!(plants.of(source), Some(Plant::Tampers));
        plants.put(source, None);
        assert_eq!(plants.of(source), None);
    }
}
