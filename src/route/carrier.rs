//! Chooses the Tor exit that carries the traffic to a public proxy, if the proxy must not learn this machine's address
//! (`through = "tor"`).
//!
//! Only a few Tor exits carry the traffic to all these proxies, so thousands of proxies do not need thousands of
//! circuits. Each proxy is always reached through the same one of these exits (by rendezvous hashing), so a client's
//! connection takes the same path as the test of the proxy.

use rand::Rng;
use rand::seq::IteratorRandom as _;

use super::balance::{first, seed};
use crate::exit::catalog::Filter;
use crate::exit::country::CountrySet;
use crate::exit::{Catalog, ExitId, Fingerprint, PublicId, Source};

/// The number of Tor exits that carry the traffic to proxies. Not tuned: with 8, the death of one exit affects few
/// proxies, and there are few enough exits to keep circuits ready.
const CARRIERS: usize = 8;

/// Returns the Tor exit for this proxy. `None` while no usable exit allows the proxy's port.
pub fn carrier(catalog: &Catalog, proxy: &PublicId) -> Option<Fingerprint> {
    let filter = Filter { sources: &[Source::Tor], countries: &CountrySet::ALL, asn: None, not_asn: &[], check: None };
    let v6 = proxy.addr.is_ipv6();
    let usable = catalog.matching(&filter).and(catalog.usable());
    let few = catalog.first(&usable.and(&catalog.allowing(proxy.addr.port(), v6)), 0, CARRIERS);
    let few = few.into_iter().filter_map(|(_, slot)| catalog.at(slot));
    match first(seed(proxy.addr.to_string()), few)?.id() {
        ExitId::Tor(fingerprint) => Some(*fingerprint),
        _ => None,
    }
}

/// Returns a random usable Tor exit that allows this port over IPv4, for the gateway's own requests. `None` if there is
/// no such exit now.
pub fn any_carrier(catalog: &Catalog, port: u16, rng: &mut impl Rng) -> Option<Fingerprint> {
    let filter = Filter { sources: &[Source::Tor], countries: &CountrySet::ALL, asn: None, not_asn: &[], check: None };
    let usable = catalog.matching(&filter).and(catalog.usable());
    let all = usable.iter().filter_map(|slot| catalog.at(slot)).filter(|exit| exit.allows(port, false));
    match all.choose(rng)?.id() {
        ExitId::Tor(fingerprint) => Some(*fingerprint),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fixture::{World, id};
    use super::*;
    use crate::exit::Protocol;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    fn proxy(n: u8) -> PublicId {
        PublicId { protocol: Protocol::Http, addr: ([192, 0, 2, n], 80).into() }
    }

    #[test]
    fn a_few_exits_carry_all_proxies_and_each_proxy_keeps_its_exit() {
        let mut world = World::new(&["US"; 40]);
        let carriers = |world: &World| (0..200).map(|n| carrier(&world.catalog, &proxy(n))).collect::<Vec<_>>();
        let before = carriers(&world);
        let few: BTreeSet<_> = before.iter().flatten().collect();
        assert_eq!(few.len(), CARRIERS);
        let dead = *before[0].as_ref().unwrap();
        let number = (0..40).find(|n| id(*n) == ExitId::Tor(dead)).unwrap();
        world.kill(number);
        let after = carriers(&world);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().count() < 120, "proxies with another carrier keep it, but for the share of the new one");
        assert!(after.iter().all(|carrier| *carrier != Some(dead)));
        assert_eq!(carrier(&Catalog::default(), &proxy(1)), None);
    }

    #[test]
    fn requests_of_our_own_take_any_exit_that_is_up() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut world = World::new(&["US"; 4]);
        world.kill(2);
        let seen: BTreeSet<_> = (0..100).filter_map(|_| any_carrier(&world.catalog, 443, &mut rng)).collect();
        let up: BTreeSet<_> = [0, 1, 3].into_iter().map(id).collect();
        assert_eq!(seen.into_iter().map(ExitId::Tor).collect::<BTreeSet<_>>(), up);
        assert_eq!(any_carrier(&Catalog::default(), 443, &mut rng), None);
    }
}
