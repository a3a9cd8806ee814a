//! One exit: what its source says about the exit ([`Listing`]), what checks found ([`Known`]), and what follows from
//! both.
//!
//! [`Listing`] and [`Known`] change at different times, so they are stored apart. A new directory replaces the
//! [`Listing`] and cannot lose a check result. A check changes [`Known`] and cannot revive an exit that left the
//! directory. A choice needs facts that follow from both, such as the country, the IP and whether the exit is usable.
//! These facts are computed once for each edition of the exit, not for each connection.
//!
//! Next: `exit/catalog.rs` holds all exits.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::capacity;
use super::country::{Country, GeoIp};
use super::policy::PortPolicy;
use super::public::{Abilities, Offer};
use super::upstream::UpstreamProxy;
use super::{ExitId, Load, Moment, PublicId, Slot, Source};

/// How long an observed address of an exit counts as an address that sites may see again. `exit_addresses` of Onionoo
/// covers the same time.
pub const OBSERVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// What a source says about an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub id: ExitId,
    /// The name that the operator of the exit chose. Empty if there is none.
    pub nickname: Box<str>,
    /// The addresses that the exit or its source announces. The first is the address that traffic most likely leaves
    /// from.
    pub announced: Vec<IpAddr>,
    /// The country of the first announced address.
    pub country: Country,
    /// The number of the autonomous system of the first announced address. `None` if the number is unknown.
    pub asn: Option<u32>,
    pub as_name: Option<Arc<str>>,
    /// The ports that the exit allows for IPv4 targets.
    pub policy: PortPolicy,
    /// The ports that the exit allows for IPv6 targets.
    pub policy_v6: PortPolicy,
    pub flags: Flags,
    /// The consensus weight of a Tor exit, which is about its bandwidth in kB/s. Exits of other sources have no such
    /// weight, and this value is not used for them. The choice of an exit uses [`Exit::capacity`].
    pub weight: u32,
    /// Since when the source has not listed the exit. `None` while the source lists the exit. An unlisted exit is
    /// chosen for no new session, pin or pool, but sessions, pins and pools that have this exit keep it. The reason:
    /// most exits that are missing in one consensus are listed again one or two hours later.
    pub unlisted: Option<Moment>,
    /// How the gateway reaches a public proxy. `None` for other exits.
    pub public: Option<Arc<Offer>>,
    /// How the gateway reaches a proxy of one's own. `None` for other exits, and for a proxy of the last run that its
    /// source has not listed since the start.
    pub upstream: Option<Arc<UpstreamProxy>>,
}

impl Listing {
    /// The listing of an exit that is up and of which nothing else is known. Its country is unknown, and it allows
    /// every port to IPv4 targets.
    pub fn new(id: ExitId) -> Self {
        Self {
            id,
            nickname: Box::default(),
            announced: Vec::new(),
            country: Country::UNKNOWN,
            asn: None,
            as_name: None,
            policy: PortPolicy::accept_all(),
            policy_v6: PortPolicy::reject_all(),
            flags: Flags { running: true, ..Flags::default() },
            weight: 1,
            unlisted: None,
            public: None,
            upstream: None,
        }
    }
}

impl Offer {
    /// Returns the listing of a public proxy. Until a check observes the address from which the proxy's traffic leaves,
    /// the country is that of the proxy's own address. The two addresses are different for many proxies.
    pub fn listing(self, id: PublicId, geoip: &GeoIp) -> Listing {
        let ip = id.addr.ip();
        Listing {
            announced: vec![ip],
            country: geoip.country(ip),
            public: Some(Arc::new(self)),
            ..Listing::new(ExitId::Public(Arc::new(id)))
        }
    }
}

/// Flags that a source assigns to an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The exit is up.
    pub running: bool,
    /// The exit is rarely down, and fit for long connections.
    pub stable: bool,
    /// The exit has much bandwidth.
    pub fast: bool,
    /// The directory authorities advise against the use of the exit.
    pub bad_exit: bool,
}

/// What checks found out about an exit. `Default` means that nothing was checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The addresses of the exit that were observed within [`OBSERVED_FOR`]. The newest observation is the last.
    pub observed: Vec<Observed>,
    pub verdict: Verdict,
    /// Why the exit is bad, as text. `None` if the exit is not bad.
    pub why: Option<Arc<str>>,
    /// When the last check of the exit ended. `None` before the first check.
    pub checked: Option<Moment>,
    /// When the exit last passed a check. `None` if the exit never passed a check.
    pub good: Option<Moment>,
    /// How long checks needed to open a stream through the exit. `None` if no check measured this time.
    pub latency: Option<Duration>,
    /// The names of the check targets that the exit passes.
    pub passed: BTreeSet<Arc<str>>,
    pub marks: Marks,
    /// What a public proxy can do. `None` for other exits, and for a proxy that has never passed a check.
    pub public: Option<Abilities>,
}

/// An address from which connections through an exit reached an echo server (a site that returns the client's address).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    pub ip: IpAddr,
    pub country: Country,
    /// When a connection from this address last reached an echo server.
    pub at: Moment,
}

/// The result of an exit's last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No check was made yet, or the last check is too old.
    #[default]
    Untested,
    Good,
    Bad,
}

/// Properties that restrict the use of an exit, whatever the result of its last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The exit connects to sites from several addresses. Strict routes cannot use such an exit.
    pub several_ips: bool,
    /// The exit tampered with traffic: it is condemned, and nobody uses it.
    pub bad_for_good: bool,
    /// The source has not listed the exit for so long that the exit is given up. Open tunnels may finish, and no new
    /// tunnel begins.
    pub draining: bool,
}

impl Known {
    /// Records that a check observed the address `ip` of the exit at the time `at`. Addresses that no check has
    /// observed for [`OBSERVED_FOR`] are removed. If two IPv4 addresses or two IPv6 addresses remain, the exit is
    /// marked as one with several IPs.
    pub fn saw(&mut self, ip: IpAddr, country: Country, at: Moment) {
        self.observed.retain(|seen| seen.ip != ip && at.since(seen.at) < OBSERVED_FOR);
        self.observed.push(Observed { ip, country, at });
        let count = |v4| self.observed.iter().filter(|seen| seen.ip.is_ipv4() == v4).count();
        self.marks.several_ips = count(true) > 1 || count(false) > 1;
    }
}

/// One edition of an exit. An edition is immutable. When a fact about the exit changes, a new edition replaces the old
/// one.
#[derive(Clone, Debug)]
pub struct Exit {
    slot: Slot,
    listing: Arc<Listing>,
    known: Known,
    load: Arc<Load>,
    country: Country,
    ip: Option<IpAddr>,
    pinnable: Option<IpAddr>,
    seed: u64,
    capacity: u32,
}

impl Exit {
    pub(super) fn new(slot: Slot, listing: Arc<Listing>, known: Known, load: Arc<Load>) -> Self {
        load.set_baseline(known.latency);
        let newest = |v4| known.observed.iter().rev().find(|seen| seen.ip.is_ipv4() == v4).map(|seen| seen.ip);
        let ip = newest(true).or_else(|| newest(false));
        let pinnable = ip.filter(|ip| ip.is_ipv4() || matches!(listing.id, ExitId::Own(_)));
        let mut hasher = DefaultHasher::new();
        listing.id.hash(&mut hasher);
        let (seed, capacity, country) =
            (hasher.finish(), capacity::of(listing.id.source(), listing.weight), country(&listing, &known));
        Self { slot, country, ip, pinnable, seed, capacity, listing, known, load }
    }

    /// The slot of the exit in the catalog: its place in the catalog's sets of exits.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    pub fn id(&self) -> &ExitId {
        &self.listing.id
    }

    pub fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The load of the exit. All editions of the exit share one object.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// The country of the address that sites see. If the observed addresses are in different countries, the country is
    /// unknown. If no address was observed, the country is that of the announced address.
    pub fn country(&self) -> Country {
        self.country
    }

    /// The address that sites see. `None` before the first check.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The address that a pin to this exit promises: the IPv4 address that sites see. For an own address of this machine,
    /// it may be an IPv6 address, because such an exit has no other address. `None` if no site has seen such an address.
    pub fn pinnable(&self) -> Option<IpAddr> {
        self.pinnable
    }

    /// Returns true if the exit is up: listed, running, without the flag `BadExit`, not draining, and not condemned for
    /// tampering. The result of its last check does not matter.
    pub fn alive(&self) -> bool {
        self.listing.unlisted.is_none() && self.is_kept()
    }

    /// Returns true if sessions, pins and pools that use the exit keep it: the exit is up, or would be up if its source
    /// listed the exit at the moment.
    pub fn is_kept(&self) -> bool {
        let (flags, marks) = (self.listing.flags, self.known.marks);
        flags.running && !flags.bad_exit && !marks.draining && !marks.bad_for_good
    }

    /// Returns true if the exit is rarely down and therefore suits a pin that lasts for weeks. A relay is stable if it
    /// has the flag Stable. All other exits count as stable, because no source reports how often they are down.
    pub fn is_stable(&self) -> bool {
        self.listing.flags.stable || self.listing.id.source() != Source::Tor
    }

    /// Returns true if the exit may carry connections: the exit is up and passed its last check.
    pub fn usable(&self) -> bool {
        self.alive() && self.known.verdict == Verdict::Good
    }

    /// Returns true if checks have observed exactly one address that a pin can promise. Only such an exit can be pinned.
    pub fn distinct(&self) -> bool {
        self.pinnable.is_some() && !self.known.marks.several_ips
    }

    /// Returns true if the exit allows connections to this port. `v6` is true for IPv6 targets, and false for IPv4
    /// targets and names.
    pub fn allows(&self, port: u16, v6: bool) -> bool {
        if v6 { self.listing.policy_v6.allows(port) } else { self.listing.policy.allows(port) }
    }

    /// Returns true if the exit opens streams to targets, and false if the exit only forwards plain HTTP requests.
    pub fn tunnels(&self) -> bool {
        self.known.public.is_none_or(|able| able.tunnels)
    }

    /// Returns the rank of the exit for the holder of `seed`, for example a session or a route. The exit with the
    /// smallest rank is the first.
    pub fn rank(&self, seed: u64) -> f64 {
        capacity::rank(seed, (self.seed, self.capacity))
    }

    /// How much the exit can carry: an exit of twice the capacity is chosen twice as often. Never 0.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A hash of the exit's id. Rendezvous hashing combines this hash with the hash of a route or session.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

/// Computes the country that sites see. If two observed addresses are in different countries, the next site may see
/// either address, so the country is unknown. If the geo data do not know the observed address, the country from the
/// listing counts only if the announced and the observed address are the same.
fn country(listing: &Listing, known: &Known) -> Country {
    let v4 = known.observed.iter().any(|seen| seen.ip.is_ipv4());
    let mut seen = known.observed.iter().filter(|seen| seen.ip.is_ipv4() == v4);
    let Some(first) = seen.next() else { return listing.country };
    if seen.any(|other| other.country != first.country) {
        return Country::UNKNOWN;
    }
    let announced = listing.announced.first() == Some(&first.ip);
    if first.country.is_known() || !announced { first.country } else { listing.country }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let announced = vec!["192.0.2.1".parse().unwrap()];
        Listing { announced, country: Country::parse("DE").unwrap(), ..Listing::new(ExitId::Direct) }
    }

    fn exit(known: Known) -> Exit {
        Exit::new(Slot(0), Arc::new(listing()), known, Arc::default())
    }

    #[test]
    fn the_observed_country_comes_first() {
        for (seen, want) in [
            (&[][..], "DE"),
            (&[("198.51.100.1", "US")], "US"),
            (&[("192.0.2.1", "??")], "DE"),
            (&[("198.51.100.1", "??")], "??"),
            (&[("198.51.100.1", "US"), ("198.51.100.2", "US")], "US"),
            (&[("198.51.100.1", "US"), ("198.51.100.2", "FR")], "??"),
            (&[("198.51.100.1", "US"), ("2001:db8::1", "FR")], "US"),
            (&[("2001:db8::1", "FR")], "FR"),
        ] {
            let mut known = Known::default();
            for (ip, country) in seen {
                known.saw(ip.parse().unwrap(), Country::parse(country).unwrap(), Moment(1));
            }
            assert_eq!(exit(known).country().as_str(), want, "{seen:?}");
        }
    }

    #[test]
    fn an_exit_has_several_ips_only_while_they_are_recent() {
        let us = Country::parse("US").unwrap();
        let mut known = Known::default();
        let (a, b) = ("198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap());
        known.saw(a, us, Moment(0));
        known.saw("2001:db8::1".parse().unwrap(), us, Moment(0));
        assert!(!known.marks.several_ips, "one of each family is one exit with two protocols");
        known.saw(b, us, Moment(0).after(OBSERVED_FOR / 2));
        assert!(known.marks.several_ips && !exit(known.clone()).distinct());
        known.saw(b, us, Moment(0).after(OBSERVED_FOR));
        assert!(!known.marks.several_ips);
        assert_eq!(exit(known).ip(), Some(b));
    }

    #[test]
    fn only_an_own_address_is_pinned_by_ipv6() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let mut known = Known::default();
        known.saw(v6, Country::UNKNOWN, Moment(1));
        let of = |id| Exit::new(Slot(0), Arc::new(Listing::new(id)), known.clone(), Arc::default());
        assert!(of(ExitId::Own(v6)).distinct() && of(ExitId::Own(v6)).pinnable() == Some(v6));
        assert!(!of(ExitId::Tor(crate::exit::Fingerprint([1; 20]))).distinct());
    }

    #[test]
    fn relays_need_the_flag_to_count_as_stable() {
        let of = |id, stable| {
            let flags = Flags { stable, ..Flags::default() };
            Exit::new(Slot(0), Arc::new(Listing { flags, ..Listing::new(id) }), Known::default(), Arc::default())
        };
        let relay = || ExitId::Tor(crate::exit::Fingerprint([1; 20]));
        assert!(of(relay(), true).is_stable() && !of(relay(), false).is_stable());
        assert!(of(ExitId::Direct, false).is_stable());
    }

    #[test]
    fn only_an_exit_that_is_up_and_good_is_usable() {
        let good = Known { verdict: Verdict::Good, ..Known::default() };
        assert!(exit(good.clone()).usable() && !exit(Known::default()).usable());
        for spoil in [|m: &mut Marks| m.draining = true, |m: &mut Marks| m.bad_for_good = true] {
            let mut known = good.clone();
            spoil(&mut known.marks);
            assert!(!exit(known.clone()).alive() && !exit(known).is_kept());
        }
        let unlisted = Listing { unlisted: Some(Moment(1)), ..listing() };
        let unlisted = Exit::new(Slot(0), Arc::new(unlisted), good.clone(), Arc::default());
        assert!(!unlisted.alive() && !unlisted.usable() && unlisted.is_kept(), "what uses it stays, nothing new comes");
        for spoil in [|f: &mut Flags| f.running = false, |f: &mut Flags| f.bad_exit = true] {
            let mut listing = listing();
            spoil(&mut listing.flags);
            assert!(!Exit::new(Slot(0), Arc::new(listing), good.clone(), Arc::default()).usable());
        }
    }
}
