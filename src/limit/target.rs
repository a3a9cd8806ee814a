//! The rules that decide which targets are allowed: by port, by address range and by name. The gateway itself is never
//! allowed as a target.
//!
//! Without these rules, clients could reach the gateway's own network through the gateway (SSRF). A check of the name
//! in a request is not enough: the owner of a name can let the name point to 169.254.169.254, and a second later to
//! another address. Therefore a target is checked two times. First, the target is checked in the form in which the
//! client sent it. Second, if the gateway itself resolves the name, [`crate::dial`] checks each address of the name
//! just before it connects.
//!
//! Next: `limit/target/scope.rs` classifies addresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::net::{Host, Target};

mod scope;

pub use scope::{Scope, scope};

/// Top-level names that exist only inside a private network or on one machine.
const INNER_NAMES: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "ip6-localhost",
    "ip6-loopback",
];

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    #[error("the port is not allowed")]
    Port,
    #[error("the address is {0}, not on the public internet")]
    Range(Scope),
    #[error("the name belongs to an inner network")]
    Name,
    #[error("the target is this gateway itself")]
    Ourselves,
}

/// The ports that targets may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The allowed ports. An empty list allows all ports.
    pub allow: Vec<RangeInclusive<u16>>,
    /// The forbidden ports. A port in both lists is forbidden.
    pub deny: Vec<RangeInclusive<u16>>,
}

impl Ports {
    pub fn allows(&self, port: u16) -> bool {
        let within = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&port));
        (self.allow.is_empty() || within(&self.allow)) && !within(&self.deny)
    }
}

/// The addresses on which this gateway listens now. Clones of this value share the same list.
#[derive(Clone, Debug, Default)]
pub struct Own {
    listeners: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// The networks of `sources.direct.bind`. All their addresses may be addresses of this machine.
    networks: Arc<ArcSwap<Vec<IpNet>>>,
}

impl Own {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `addr`. Called when the gateway starts to listen on this address.
    pub fn insert(&self, addr: SocketAddr) {
        self.listeners.rcu(|list| list.iter().copied().chain([addr]).collect::<Vec<_>>());
    }

    /// Removes `addr`. Called when the gateway stops listening on this address. An address that was inserted twice must
    /// be removed twice.
    pub fn remove(&self, addr: SocketAddr) {
        self.listeners.rcu(|list| {
            let mut list = Vec::clone(list);
            if let Some(at) = list.iter().position(|own| *own == addr) {
                list.swap_remove(at);
            }
            list
        });
    }

    /// Replaces the networks whose addresses count as addresses of this machine. The kernel does not list the addresses of
    /// a network that is routed to this machine as a whole.
    pub fn set_networks(&self, networks: Vec<IpNet>) {
        self.networks.store(Arc::new(networks));
    }

    /// Returns true if a connection from this machine to `addr` would reach one of the gateway's listeners.
    pub fn includes(&self, addr: SocketAddr) -> bool {
        self.reached_by(addr, |ip| self.networks.load().iter().any(|own| own.contains(&ip)) || is_of_this_machine(ip))
    }

    fn reached_by(&self, addr: SocketAddr, is_here: impl Fn(IpAddr) -> bool) -> bool {
        let ip = addr.ip().to_canonical();
        self.listeners.load().iter().filter(|own| own.port() == addr.port()).any(|own| {
            let own = own.ip().to_canonical();
            // On most kernels, a connection to the target 0.0.0.0 reaches this machine.
            own == ip || ip.is_unspecified() || own.is_unspecified() && (ip.is_loopback() || is_here(ip))
        })
    }
}

/// Returns true if the address belongs to this machine. The test is to bind the address, because only an address of
/// this machine can be bound. Called only for targets whose port is the port of a listener.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether exitgate itself connects to nothing but Tor. This is true while bridges are used. Clones share the value.
/// Clients whose route has the source `direct` still get direct connections, because the configuration allows these.
#[derive(Clone, Debug, Default)]
pub struct OnlyTor(Arc<AtomicBool>);

impl OnlyTor {
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The rules for targets. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    ports: Arc<Ports>,
    allow_private: bool,
    own: Own,
    only_tor: OnlyTor,
}

impl Rules {
    /// Makes the rules. If `allow_private` is true, all addresses except the gateway's own listeners are allowed. This
    /// setting is for tests, and for gateways that must reach a private network.
    pub fn new(ports: Ports, allow_private: bool, own: Own) -> Self {
        Self { ports: Arc::new(ports), allow_private, own, only_tor: OnlyTor::default() }
    }

    /// Returns the same rules with this value of [`OnlyTor`].
    pub fn with_only_tor(self, only_tor: OnlyTor) -> Self {
        Self { only_tor, ..self }
    }

    /// Returns the same rules, with private addresses allowed.
    pub fn with_private(self) -> Self {
        Self { allow_private: true, ..self }
    }

    /// Returns true if the gateway must reach lists and public proxies through Tor.
    pub fn only_tor(&self) -> bool {
        self.only_tor.is_on()
    }

    /// Checks a target in the form in which the client sent it, before the target is resolved or dialed. Called for
    /// every kind of exit.
    pub fn target(&self, target: &Target) -> Result<(), Forbidden> {
        match &target.host {
            Host::Ip(ip) => self.address(SocketAddr::new(*ip, target.port)),
            Host::Name(name) if !self.allow_private && is_inner(name) => Err(Forbidden::Name),
            Host::Name(_) => self.port(target.port),
        }
    }

    /// Checks a resolved address of a target just before the connect.
    pub fn address(&self, addr: SocketAddr) -> Result<(), Forbidden> {
        self.port(addr.port())?;
        self.peer(addr)
    }

    /// Checks the address of a public proxy. The address may have any port, but it must not be in a private network and
    /// must not be a listener of the gateway.
    pub fn peer(&self, addr: SocketAddr) -> Result<(), Forbidden> {
        let scope = scope(addr.ip());
        if !self.allow_private && scope != Scope::Public {
            return Err(Forbidden::Range(scope));
        }
        if self.own.includes(addr) { Err(Forbidden::Ourselves) } else { Ok(()) }
    }

    /// Returns true if private addresses are allowed as targets.
    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    fn port(&self, port: u16) -> Result<(), Forbidden> {
        if self.ports.allows(port) { Ok(()) } else { Err(Forbidden::Port) }
    }
}

/// Returns true if the name is, or ends in, one of [`INNER_NAMES`].
fn is_inner(name: &str) -> bool {
    INNER_NAMES
        .iter()
        .any(|inner| name.strip_suffix(inner).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow_private: bool) -> Rules {
        let own = Own::new();
        own.insert("127.0.0.1:1080".parse().unwrap());
        own.insert("[::]:8080".parse().unwrap());
        Rules::new(Ports { allow: Vec::new(), deny: vec![25..=25] }, allow_private, own)
    }

    #[test]
    fn a_target_is_checked_as_the_client_asked_for_it() {
        use Forbidden::*;
        for (target, want, when_private_is_allowed) in [
            ("93.184.216.34:443", Ok(()), Ok(())),
            ("example.com:443", Ok(()), Ok(())),
            ("example.com:25", Err(Port), Err(Port)),
            ("93.184.216.34:25", Err(Port), Err(Port)),
            ("10.0.0.1:80", Err(Range(Scope::Private)), Ok(())),
            ("169.254.169.254:80", Err(Range(Scope::Metadata)), Ok(())),
            ("[::ffff:127.0.0.1]:80", Err(Range(Scope::Loopback)), Ok(())),
            ("localhost:80", Err(Name), Ok(())),
            ("a.LOCALHOST.:80", Err(Name), Ok(())),
            ("metadata.google.internal:80", Err(Name), Ok(())),
            ("notlocalhost:80", Ok(()), Ok(())),
            ("local.example.com:80", Ok(()), Ok(())),
            ("127.0.0.1:1080", Err(Range(Scope::Loopback)), Err(Ourselves)),
            ("127.0.0.1:1081", Err(Range(Scope::Loopback)), Ok(())),
            ("0.0.0.0:1080", Err(Range(Scope::Unspecified)), Err(Ourselves)),
            ("[::1]:8080", Err(Range(Scope::Loopback)), Err(Ourselves)),
            ("127.9.9.9:8080", Err(Range(Scope::Loopback)), Err(Ourselves)),
            ("127.9.9.9:1080", Err(Range(Scope::Loopback)), Ok(())),
        ] {
            let target: Target = target.parse().unwrap();
            assert_eq!(rules(false).target(&target), want, "{target}");
            assert_eq!(rules(true).target(&target), when_private_is_allowed, "{target}, private allowed");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_each_address_of_the_machine() {
        let own = Own::new();
        own.insert("0.0.0.0:1080".parse().unwrap());
        let here = |ip: IpAddr| ip == IpAddr::from([203, 0, 113, 7]);
        assert!(own.reached_by("203.0.113.7:1080".parse().unwrap(), here));
        assert!(own.reached_by("[::ffff:203.0.113.7]:1080".parse().unwrap(), here));
        assert!(!own.reached_by("203.0.113.7:1081".parse().unwrap(), here));
        assert!(!own.reached_by("203.0.113.8:1080".parse().unwrap(), here));
        own.remove("0.0.0.0:1080".parse().unwrap());
        assert!(!own.reached_by("203.0.113.7:1080".parse().unwrap(), here));
    }

    #[test]
    fn a_network_that_is_routed_to_this_machine_reaches_listeners_too() {
        let own = Own::new();
        own.insert("[::]:8080".parse().unwrap());
        let routed = "[2001:db8:1::5]:8080".parse().unwrap();
        assert!(!own.includes(routed));
        own.set_networks(vec!["2001:db8:1::/48".parse().unwrap()]);
        assert!(own.includes(routed) && own.clone().includes(routed));
        assert!(!own.includes("[2001:db8:1::5]:8081".parse().unwrap()));
        assert!(!own.includes("[2001:db8:2::5]:8080".parse().unwrap()));
    }

    #[test]
    fn an_address_is_ours_if_it_can_be_bound() {
        assert!(is_of_this_machine([127, 0, 0, 1].into()));
        assert!(!is_of_this_machine([192, 0, 2, 1].into()), "a documentation address on a test machine?");
    }

    #[test]
    fn denied_ports_are_refused_also_where_they_are_allowed() {
        let web = Ports { allow: vec![80..=80, 443..=443, 8000..=8999], deny: vec![8080..=8080] };
        let allowed = |ports: &Ports| {
            [25, 80, 443, 8000, 8080, 8999, 9000].into_iter().filter(|port| ports.allows(*port)).collect::<Vec<_>>()
        };
        assert_eq!(allowed(&web), [80, 443, 8000, 8999]);
        assert_eq!(allowed(&Ports::default()).len(), 7);
    }
}
