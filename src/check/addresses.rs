//! Decides which of the addresses that echo servers returned belong to an exit. Pure.
//!
//! An echo server (a server that answers with the address it sees) may return a wrong address, and its certificate does
//! not prevent that. So an address counts only if a second source confirms the address: the exit announces the address,
//! a check observed the address lately, or another echo server returns the address. An address that nothing confirms
//! never replaces a confirmed address.
//!
//! There are two exceptions for an echo server that is right for nearly all exits. First, such a server confirms an
//! address by returning the same address again in a later check, because some exits have several addresses. Second, if
//! nothing confirms any address of an exit, the answer of such a server counts, because some exits announce another
//! address than they use.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::exit::ExitId;

/// How many unconfirmed addresses are remembered for one exit. Not tuned: an exit with more addresses is of no use.
const REMEMBERED: usize = 8;

/// How many of the addresses that an echo server returned were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The server returned wrong addresses for most exits.
    Wrong,
    /// The server has not returned enough addresses to judge the server.
    Unknown,
    /// The server returned right addresses for nearly all exits.
    Right,
}

/// The address that one echo server returned in one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The echo server, by its index in the settings.
    pub echo: usize,
    pub ip: IpAddr,
    /// How reliable the server is, according to its answers for other exits.
    pub record: Record,
}

/// Exit → the addresses that a server returned for the exit and that nothing has confirmed yet. Each address is stored
/// with the index of its server.
#[derive(Debug, Default)]
pub struct Unconfirmed(HashMap<ExitId, Vec<(usize, IpAddr)>>);

/// The addresses of an exit after one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The addresses that belong to the exit. The one that sites most likely see is the last.
    pub ips: Vec<IpAddr>,
    /// For each server that answered: its index, and true if the address that the server returned was confirmed.
    pub confirmed: Vec<(usize, bool)>,
}

impl Unconfirmed {
    /// Decides which addresses belong to the exit. `named` has the address that each echo server returned. `known` lists
    /// the addresses that the exit announces, or that checks observed lately.
    pub fn decide(&mut self, exit: &ExitId, named: &[Named], known: &[IpAddr]) -> Decided {
        let before = self.0.remove(exit).unwrap_or_default();
        let all = || before.iter().copied().chain(named.iter().map(|named| (named.echo, named.ip)));
        let is_confirmed = |ip: IpAddr| {
            let first = all().find(|(_, other)| *other == ip).map(|(echo, _)| echo);
            let again = |named: &Named| named.record == Record::Right && before.contains(&(named.echo, ip));
            known.contains(&ip)
                || named.iter().any(|named| named.ip == ip && again(named))
                || all().any(|(echo, other)| other == ip && Some(echo) != first)
        };
        let confirmed: Vec<_> = named.iter().map(|named| (named.echo, is_confirmed(named.ip))).collect();
        let mut ips: Vec<IpAddr> = Vec::new();
        let mut take = |ip: IpAddr| {
            ips.retain(|other| *other != ip);
            ips.push(ip);
        };
        named.iter().filter(|named| is_confirmed(named.ip)).for_each(|named| take(named.ip));
        if ips.is_empty() {
            named.iter().filter(|named| named.record != Record::Wrong).for_each(|named| ips.push(named.ip));
            ips.dedup();
        }
        let mut left: Vec<_> = all().filter(|(_, ip)| !is_confirmed(*ip)).collect();
        left.sort_unstable();
        left.dedup();
        left.truncate(REMEMBERED);
        if !left.is_empty() {
            self.0.insert(exit.clone(), left);
        }
        Decided { ips, confirmed }
    }

    /// Deletes the unconfirmed addresses of exits for which `is_kept` returns false.
    pub fn keep(&mut self, is_kept: impl Fn(&ExitId) -> bool) {
        self.0.retain(|exit, _| is_kept(exit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    const EXIT: ExitId = ExitId::Tor(Fingerprint([1; 20]));

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    /// Parses a short text. `A1` means that server 0 returned address 1. A small letter means a server that is mostly
    /// wrong.
    fn named(text: &str) -> Vec<Named> {
        let read = |word: &str| {
            let [server, digit] = word.as_bytes() else { panic!("{word}") };
            let echo = usize::from(server.to_ascii_uppercase() - b'A');
            let record = if server.is_ascii_lowercase() { Record::Wrong } else { Record::Unknown };
            Named { echo, ip: ip(digit - b'0'), record }
        };
        text.split_whitespace().map(read).collect()
    }

    #[test]
    fn an_address_needs_a_second_source() {
        for (text, known, want) in [
            ("A1 B1", &[][..], &[1][..]),
            ("A1 B1", &[7], &[1]),
            ("A1 B9", &[1], &[1]),
            ("A9 B1", &[1], &[1]),
            ("A1 B9 A1", &[1], &[1]),
            ("A2 B1 A2", &[1, 2], &[1, 2]),
            ("A1 B2", &[1, 2], &[1, 2]),
            // Server A says address 2, and server B says address 9. No second server confirms one of them. B is mostly
            // wrong, so the answer of A counts.
            ("A2 b9", &[1], &[2]),
            ("A2 B3", &[1], &[2, 3]),
            ("A2 A2", &[1], &[2]),
            ("a9 a9", &[1], &[]),
            ("", &[1], &[]),
        ] {
            let known: Vec<_> = known.iter().map(|n| ip(*n)).collect();
            let decided = Unconfirmed::default().decide(&EXIT, &named(text), &known);
            assert_eq!(decided.ips, want.iter().map(|n| ip(*n)).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn each_server_is_told_whether_it_was_right() {
        let decided = Unconfirmed::default().decide(&EXIT, &named("A1 B9"), &[ip(1)]);
        assert_eq!(decided.confirmed, [(0, true), (1, false)]);
        let decided = Unconfirmed::default().decide(&EXIT, &named("A9 A9"), &[ip(1)]);
        assert_eq!(decided.confirmed, [(0, false), (0, false)], "a server does not confirm itself");
    }

    #[test]
    fn two_servers_may_confirm_a_second_address_in_two_checks() {
        let mut all = Unconfirmed::default();
        assert_eq!(all.decide(&EXIT, &named("A1 B2"), &[ip(1)]).ips, [ip(1)]);
        assert_eq!(all.decide(&EXIT, &named("A1 B2"), &[ip(1)]).ips, [ip(1)], "the same server again");
        assert_eq!(all.decide(&EXIT, &named("A2 B1"), &[ip(1)]).ips, [ip(2), ip(1)]);
        all.decide(&EXIT, &named("A1 B3"), &[ip(1)]);
        let right: Vec<_> = named("A1 B3").into_iter().map(|named| Named { record: Record::Right, ..named }).collect();
        assert_eq!(all.decide(&EXIT, &right, &[ip(1)]).ips, [ip(1), ip(3)], "a server with a good record, twice");
        assert_eq!(all.decide(&EXIT, &right, &[ip(1)]).ips, [ip(1)], "once");
        all.keep(|_| false);
        assert_eq!(all.decide(&EXIT, &named("A3 B1"), &[ip(1)]).ips, [ip(1)], "forgotten");
    }
}
