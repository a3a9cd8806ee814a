//! Faults of exits, which the fake web plays.
//!
//! A real tor exit cannot be told to lie. But a site can misbehave for one exit alone, which it recognizes by its source address. A gateway cannot
//! tell the difference: on real circuits of real tor, it sees what a lying exit would show.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What happens to requests from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitFault {
    /// Echoes without TLS answer with this address.
    Lies(Ipv4Addr),
    /// Pages without TLS are replaced by another one. Echoes are not, because a careful tamperer leaves them alone.
    Tampers,
    /// HTTPS has a certificate of a CA that nobody trusts.
    BreaksTls,
    /// Every answer is late by this much.
    Slow(Duration),
    /// This host sees another address, as of an exit that leaves from several.
    Seen(&'static str, Ipv4Addr),
}

/// The faults by source address.
#[derive(Debug, Default)]
pub(super) struct ExitFaults(Mutex<HashMap<IpAddr, ExitFault>>);

impl ExitFaults {
    pub(super) fn put(&self, source: IpAddr, fault: Option<ExitFault>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => faults.insert(source, fault),
            None => faults.remove(&source),
        };
    }

    pub(super) fn of(&self, source: IpAddr) -> Option<ExitFault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source).cloned()
    }
}

impl ExitFault {
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
    fn the_seen_address_depends_on_the_fault() {
        let (source, other) = (IpAddr::from([127, 0, 0, 1]), Ipv4Addr::new(127, 0, 0, 2));
        let seen = |fault: ExitFault, host, tls| ExitFault::seen(Some(&fault), source, host, tls) != source;
        assert!(seen(ExitFault::Lies(other), "a", false) && !seen(ExitFault::Lies(other), "a", true));
        assert!(seen(ExitFault::Seen("a", other), "a", true) && !seen(ExitFault::Seen("a", other), "b", true));
        assert_eq!(ExitFault::seen(None, source, "a", false), source);
        let faults = ExitFaults::default();
        faults.put(source, Some(ExitFault::Tampers));
        assert_eq!(faults.of(source), Some(ExitFault::Tampers));
        faults.put(source, None);
        assert_eq!(faults.of(source), None);
    }
}
