//! Finds the first rule that matches a host, by look-ups in maps.
//!
//! Each map has a list of rules for a key. The lists are in the order of the rules. A look-up of a name takes one
//! look-up for the whole name and one for each of its suffixes, and a look-up of an address takes one for each prefix
//! length that a rule has. So the time of a look-up does not grow with the number of rules, except for rules with the
//! same host.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{HostPattern, Rule};
use crate::net::Host;

/// The positions of rules in the list of rules, in ascending order.
type Positions = Vec<usize>;

/// Maps from hosts to the rules that match them.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Rules that match every host.
    any: Positions,
    /// Name → rules that match this name.
    names: HashMap<Box<str>, Positions>,
    /// Name → rules that match all names below this name.
    below: HashMap<Box<str>, Positions>,
    /// The largest number of labels of a name in `below`.
    most_labels: usize,
    /// Network → rules that match all addresses of this network.
    nets: HashMap<IpNet, Positions>,
    /// The prefix lengths of the IPv4 networks in `nets`, and those of the IPv6 networks. No length stands twice.
    prefixes: [Vec<u8>; 2],
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            if rule.hosts.is_empty() {
                index.any.push(at);
            }
            rule.hosts.iter().for_each(|host| index.add(host, at));
        }
        index
    }

    fn add(&mut self, host: &HostPattern, at: usize) {
        let mut below = |name: &str| {
            self.below.entry(name.into()).or_default().push(at);
            self.most_labels = self.most_labels.max(name.split('.').count());
        };
        match host {
            HostPattern::Any => self.any.push(at),
            HostPattern::Name(name) => self.names.entry(name.clone()).or_default().push(at),
            HostPattern::Below(name) => below(name),
            HostPattern::Within(name) => {
                below(name);
                self.names.entry(name.clone()).or_default().push(at);
            }
            HostPattern::Net(net) => {
                let prefixes = &mut self.prefixes[usize::from(net.addr().is_ipv6())];
                if !prefixes.contains(&net.prefix_len()) {
                    prefixes.push(net.prefix_len());
                }
                self.nets.entry(*net).or_default().push(at);
            }
        }
    }

    /// Returns the position of the first rule that matches the host and for which `takes` returns true.
    pub(super) fn first(&self, host: &Host, takes: impl Fn(usize) -> bool) -> Option<usize> {
        let mut first = None;
        let mut look = |found: Option<&Positions>| {
            let earlier = |at: &usize| first.is_none_or(|first| *at < first);
            let mut earlier = found.into_iter().flatten().copied().take_while(earlier);
            if let Some(at) = earlier.find(|at| takes(*at)) {
                first = Some(at);
            }
        };
        look(Some(&self.any));
        match host {
            Host::Name(name) => {
                look(self.names.get(name));
                let suffixes = name.rmatch_indices('.').take(self.most_labels);
                suffixes.for_each(|(dot, _)| look(self.below.get(&name[dot + 1..])));
            }
            Host::Ip(ip) => {
                for prefix in &self.prefixes[usize::from(ip.is_ipv6())] {
                    look(network(*ip, *prefix).and_then(|net| self.nets.get(&net)));
                }
            }
        }
        first
    }
}

/// Returns the network with this prefix length that contains the address.
fn network(ip: IpAddr, prefix: u8) -> Option<IpNet> {
    IpNet::new(ip, prefix).ok().map(|net| net.trunc())
}
