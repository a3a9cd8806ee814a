//! One exit: what its source says of it, what checks found, and what follows from the two.
//!
//! The two kinds of facts change at different times and by different hands, so they are kept apart: a fresh directory
//! replaces the [`Listing`] and cannot wipe out a verdict, a check writes to [`Known`] and cannot revive an exit that
//! left the directory. What a choice needs of both (country, IP, usable or not) is worked out once, when an edition of
//! the exit is made, and never per connection.
//!
//! Next: `exit/catalog.rs` keeps them all.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::country::Country;
use super::policy::PortPolicy;
use super::public::{Abilities, Offer};
use super::{ExitId, Load, Moment, Slot};

/// How long an address that an exit was seen with counts as one that it may be seen with again. Onionoo's
/// `exit_addresses` look back as far.
pub const OBSERVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// What a source says of an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub id: ExitId,
    /// What its operator calls it; empty if nobody does.
    pub nickname: Box<str>,
    /// The addresses that it says, or its source says, it has: the likeliest to leave from first.
    pub announced: Vec<IpAddr>,
    /// The country of the first of them.
    pub country: Country,
    /// The autonomous system of the first of them.
    pub asn: Option<u32>,
    /// What that is called.
    pub as_name: Option<Arc<str>>,
    /// Ports that it lets through to IPv4 targets.
    pub policy: PortPolicy,
    /// Ports that it lets through to IPv6 targets.
    pub policy_v6: PortPolicy,
    /// What its source vouches for.
    pub flags: Flags,
    /// Its share of the network's capacity, in the source's own unit.
    pub weight: u32,
    /// How a public proxy is reached; none of any other exit.
    pub public: Option<Arc<Offer>>,
}

impl Listing {
    /// An exit of which no more is said than that it is up: nobody knows where, and it lets everything out to IPv4
    /// targets.
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
            public: None,
        }
    }
}

/// What a source vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It is up.
    pub running: bool,
    /// It is rarely down: fit for connections that last.
    pub stable: bool,
    /// It has bandwidth.
    pub fast: bool,
    /// The directory authorities say that it must not be used.
    pub bad_exit: bool,
}

/// What checks found out about an exit. `Default` is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Addresses that sites saw lately, newest last.
    pub observed: Vec<Observed>,
    /// What the last check came to.
    pub verdict: Verdict,
    /// Why it is bad, in words; nothing while it is not.
    pub why: Option<Arc<str>>,
    /// When that was.
    pub checked: Option<Moment>,
    /// When a check last came out well.
    pub good: Option<Moment>,
    /// How long opening a stream through it took, in checks.
    pub latency: Option<Duration>,
    /// The check targets, by name, that it passes.
    pub passed: BTreeSet<Arc<str>>,
    /// What sets it apart.
    pub marks: Marks,
    /// What a public proxy is able to do; none of any other exit, and of one that never passed.
    pub public: Option<Abilities>,
}

/// An address that a site saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The address.
    pub ip: IpAddr,
    /// Its country.
    pub country: Country,
    /// When it was last seen.
    pub at: Moment,
}

/// What an exit's last check came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nobody has checked it.
    #[default]
    Untested,
    /// It works.
    Good,
    /// It does not.
    Bad,
}

/// What sets an exit apart, whatever its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Sites saw it with more than one address at a time: not for strict routes, and not distinct from any other.
    pub several_ips: bool,
    /// It was caught tampering or intercepting: never again.
    pub bad_for_good: bool,
    /// It left its source: tunnels through it may finish, none may begin.
    pub draining: bool,
}

impl Known {
    /// Notes that a site saw the exit with `ip`. Addresses that nobody has seen for [`OBSERVED_FOR`] are forgotten; an
    /// exit that is left with two of one family has several.
    pub fn saw(&mut self, ip: IpAddr, country: Country, at: Moment) {
        self.observed.retain(|seen| seen.ip != ip && at.since(seen.at) < OBSERVED_FOR);
        self.observed.push(Observed { ip, country, at });
        let count = |v4| self.observed.iter().filter(|seen| seen.ip.is_ipv4() == v4).count();
        self.marks.several_ips = count(true) > 1 || count(false) > 1;
    }
}

/// One edition of an exit: immutable, shared, replaced when something about it changes.
#[derive(Clone, Debug)]
pub struct Exit {
    slot: Slot,
    listing: Arc<Listing>,
    known: Known,
    load: Arc<Load>,
    country: Country,
    ip: Option<IpAddr>,
    v4: Option<Ipv4Addr>,
    seed: u64,
}

impl Exit {
    pub(super) fn new(slot: Slot, listing: Arc<Listing>, known: Known, load: Arc<Load>) -> Self {
        load.set_baseline(known.latency);
        let newest = |v4| known.observed.iter().rev().find(|seen| seen.ip.is_ipv4() == v4).map(|seen| seen.ip);
        let ip = newest(true).or_else(|| newest(false));
        let v4 = ip.and_then(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None });
        let mut hasher = DefaultHasher::new();
        listing.id.hash(&mut hasher);
        Self { slot, country: country(&listing, &known), ip, v4, seed: hasher.finish(), listing, known, load }
    }

    /// Its place in the catalog that this edition is from.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Its name.
    pub fn id(&self) -> &ExitId {
        &self.listing.id
    }

    /// What its source says.
    pub fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// What checks found.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// What changes with every connection: the same object in every edition.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// The country that sites see: of the observed addresses if they agree, of the announced one if none was observed.
    pub fn country(&self) -> Country {
        self.country
    }

    /// The address that sites see; `None` if nobody has looked.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The IPv4 address that sites see.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// It is there, and nothing speaks against it but, perhaps, its last check.
    pub fn alive(&self) -> bool {
        let (flags, marks) = (self.listing.flags, self.known.marks);
        flags.running && !flags.bad_exit && !marks.draining && !marks.bad_for_good
    }

    /// It may carry connections.
    pub fn usable(&self) -> bool {
        self.alive() && self.known.verdict == Verdict::Good
    }

    /// Sites see it with one known IPv4 address: the only kind that can be told from others, and pinned.
    pub fn distinct(&self) -> bool {
        self.v4.is_some() && !self.known.marks.several_ips
    }

    /// It lets connections through to this port, of a target that is (or resolves to) IPv4, or of an IPv6 one.
    pub fn allows(&self, port: u16, v6: bool) -> bool {
        if v6 { self.listing.policy_v6.allows(port) } else { self.listing.policy.allows(port) }
    }

    /// It opens streams to targets, rather than only forwarding plain HTTP.
    pub fn tunnels(&self) -> bool {
        self.known.public.is_none_or(|able| able.tunnels)
    }

    /// A number that belongs to its name: the exit's half of rendezvous hashing.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

/// Observed first. Where two observed addresses lie in different countries nobody can say which the next site will
/// see, so the country is unknown; an observed address that the geo data do not know is as good as the announced
/// country only if it *is* the announced address.
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
    fn several_addresses_are_several_only_while_they_are_recent() {
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
    fn only_what_is_up_and_good_is_usable() {
        let good = Known { verdict: Verdict::Good, ..Known::default() };
        assert!(exit(good.clone()).usable() && !exit(Known::default()).usable());
        for spoil in [|m: &mut Marks| m.draining = true, |m: &mut Marks| m.bad_for_good = true] {
            let mut known = good.clone();
            spoil(&mut known.marks);
            assert!(!exit(known).alive());
        }
        for spoil in [|f: &mut Flags| f.running = false, |f: &mut Flags| f.bad_exit = true] {
            let mut listing = listing();
            spoil(&mut listing.flags);
            assert!(!Exit::new(Slot(0), Arc::new(listing), good.clone(), Arc::default()).usable());
        }
    }
}
