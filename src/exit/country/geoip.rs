//! Finds the country of an address. The data come from the two files `geoip` and `geoip6` that Tor publishes.
//!
//! The files list ranges of addresses. The tables in this module keep only the addresses at which the country changes.
//! So neighbouring ranges of one country take no extra memory, and a look-up is one binary search.
//!
//! The IPv6 addresses are divided into two tables. Of 277,000 IPv6 ranges, fewer than 8,000 begin or end inside a /64
//! network. So a large table holds only the upper 64 bits of addresses, and a small table holds the changes inside a
//! /64 network. The two tables take half of the memory of one table with whole addresses.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Country;

/// The country tables from `geoip` and `geoip6`. With empty tables, which are the default, every address is in
/// [`Country::UNKNOWN`].
#[derive(Clone, Debug, Default)]
pub struct GeoIp {
    v4: Table<u32>,
    /// Changes of the country at the start of a /64 network, by the upper 64 bits of the address.
    v6: Table<u64>,
    /// Changes of the country inside a /64 network.
    fine: Table<u128>,
    /// Finds the country of an address that the tables do not know. `None`: such an address is in no known country.
    fallback: Option<Arc<dyn CountrySource>>,
}

/// Another table of countries by address.
pub trait CountrySource: fmt::Debug + Send + Sync {
    /// Returns the country of an address. `None` if the table does not know the address.
    fn country_of(&self, ip: IpAddr) -> Option<Country>;
}

/// The addresses at which the country changes. Each country is valid until the next such address.
#[derive(Clone, Debug)]
struct Table<K> {
    starts: Box<[K]>,
    countries: Box<[Country]>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { starts: Box::default(), countries: Box::default() }
    }
}

impl<K: Ord + Copy> Table<K> {
    fn new(points: Vec<(K, Country)>) -> Self {
        let (starts, countries): (Vec<K>, Vec<Country>) = points.into_iter().unzip();
        Self { starts: starts.into(), countries: countries.into() }
    }

    /// Returns the last change at or before `key`.
    fn at(&self, key: K) -> Option<(K, Country)> {
        let index = self.starts.partition_point(|start| *start <= key).checked_sub(1)?;
        Some((self.starts[index], self.countries[index]))
    }
}

/// A range of IPv4 or IPv6 addresses as numbers. Both ends belong to the range.
struct Range {
    low: u128,
    high: u128,
    country: Country,
}

impl GeoIp {
    /// Reads the texts of tor's files `geoip` and `geoip6`. Either text may be empty. A line is `low,high,CC`. `low`
    /// and `high` are addresses, or integers for IPv4. A `#` begins a comment. Other lines are skipped. If ranges
    /// overlap, the range with the lower first address wins.
    pub fn parse(v4: &str, v6: &str) -> Self {
        Self::read(v4, v6).0
    }

    /// As [`Self::parse`], but also returns the number of lines that were skipped.
    fn read(v4: &str, v6: &str) -> (Self, usize) {
        let (mut ranges4, mut ranges6, mut skipped) = (Vec::new(), Vec::new(), 0);
        for line in v4.lines().chain(v6.lines()).map(str::trim) {
            match range(line) {
                _ if line.is_empty() || line.starts_with('#') => {}
                Some((IpAddr::V4(_), range)) => ranges4.push(range),
                Some((IpAddr::V6(_), range)) => ranges6.push(range),
                None => skipped += 1,
            }
        }
        let fits = |(start, country)| u32::try_from(start).ok().map(|start| (start, country));
        let v4 = Table::new(changes(ranges4).into_iter().filter_map(fits).collect());
        let (v6, fine) = halves(changes(ranges6));
        (Self { v4, v6: Table::new(v6), fine: Table::new(fine), fallback: None }, skipped)
    }

    /// Asks `fallback` for the addresses that the tables do not know.
    pub fn with_fallback(self, fallback: Arc<dyn CountrySource>) -> Self {
        Self { fallback: Some(fallback), ..self }
    }

    /// Returns the country of an address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn country(&self, ip: IpAddr) -> Country {
        let found = match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.at(ip.to_bits()).map(|(_, country)| country),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                let half = (bits >> 64) as u64;
                let inside = self.fine.at(bits).filter(|(start, _)| (start >> 64) as u64 == half);
                inside.map(|(_, country)| country).or_else(|| self.v6.at(half).map(|(_, country)| country))
            }
        };
        let found = found.filter(|country| country.is_known());
        let other = || self.fallback.as_ref().and_then(|other| other.country_of(ip));
        found.or_else(other).unwrap_or(Country::UNKNOWN)
    }
}

fn range(line: &str) -> Option<(IpAddr, Range)> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let (low, high, country) = (address(fields.next()?)?, address(fields.next()?)?, fields.next()?);
    // Old files have codes such as A1 ("anonymous") that are not countries. The country of such a range is unknown.
    let country = match country.len() {
        2 => Country::parse(country).unwrap_or(Country::UNKNOWN),
        _ => return None,
    };
    let bits = |ip| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let same_family = low.is_ipv4() == high.is_ipv4();
    let range = Range { low: bits(low), high: bits(high), country };
    (same_family && range.low <= range.high).then_some((low, range))
}

fn address(field: &str) -> Option<IpAddr> {
    match field.parse::<u32>() {
        Ok(number) => Some(IpAddr::V4(number.into())),
        Err(_) => field.parse().ok(),
    }
}

/// Returns the addresses at which the country changes, lowest first.
fn changes(mut ranges: Vec<Range>) -> Vec<(u128, Country)> {
    ranges.sort_by_key(|range| range.low);
    let mut points: Vec<(u128, Country)> = Vec::with_capacity(ranges.len());
    let mut change = |start, country| {
        if points.last().is_none_or(|(_, last)| *last != country) {
            points.push((start, country));
        }
    };
    // The first address that no range has covered so far. `None` means that even the last possible address is covered.
    let mut next = Some(0);
    for range in ranges {
        let Some(from) = next.filter(|from| *from <= range.high) else { continue };
        if from < range.low {
            change(from, Country::UNKNOWN);
        }
        change(from.max(range.low), range.country);
        next = range.high.checked_add(1);
    }
    if let Some(from) = next {
        change(from, Country::UNKNOWN);
    }
    points
}

type Points<K> = Vec<(K, Country)>;

/// Splits the IPv6 changes into those at the start of a /64 network and those inside one.
fn halves(points: Points<u128>) -> (Points<u64>, Points<u128>) {
    let (mut coarse, mut fine): (Points<u64>, Points<u128>) = (Vec::new(), Vec::new());
    let mut points = points.into_iter().peekable();
    while let Some((start, country)) = points.next() {
        let half = (start >> 64) as u64;
        if start as u64 == 0 {
            coarse.push((half, country));
            continue;
        }
        fine.push((start, country));
        // The country at the end of this /64 network is also the country at the start of the next /64 network, unless
        // the country changes exactly at the start of the next one.
        let next_half = half.checked_add(1);
        let taken_over = points.peek().is_some_and(|(next, _)| Some((next >> 64) as u64) == Some(half))
            || points.peek().map(|(next, _)| *next) == next_half.map(|half| u128::from(half) << 64);
        if let Some(next_half) = next_half.filter(|_| !taken_over) {
            coarse.push((next_half, country));
        }
    }
    (coarse, fine)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn at(geoip: &GeoIp, ip: &str) -> String {
        geoip.country(ip.parse().unwrap()).to_string()
    }

    #[test]
    fn finds_both_families_gaps_and_edges() {
        let v4 = "# a comment\n\n16777216,16777471,AU\n16777472,16778239,CN\n1.0.8.0,1.0.15.255,au\n\"16785408\",\"16793599\",\"A1\"\n";
        let v6 = "2001:200::,2001:200:134:ffff:ffff:ffff:ffff:ffff,JP\n2a00::,2a00::7,DE\n2a00::8,2a00::f,FR\n";
        let (geoip, skipped) = GeoIp::read(v4, v6);
        assert_eq!(skipped, 0);
        for (ip, want) in [
            ("0.0.0.0", "??"),
            ("0.255.255.255", "??"),
            ("1.0.0.0", "AU"),
            ("1.0.0.255", "AU"),
            ("1.0.1.0", "CN"),
            ("1.0.3.255", "CN"),
            ("1.0.4.0", "??"),
            ("1.0.8.0", "AU"),
            ("1.0.16.0", "??"),
            ("1.0.32.1", "??"),
            ("255.255.255.255", "??"),
            ("::ffff:1.0.1.1", "CN"),
            ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "??"),
            ("2001:200::1", "JP"),
            ("2001:200:135::", "??"),
            ("2a00::7", "DE"),
            ("2a00::8", "FR"),
            ("2a00::10", "??"),
            ("2a00:0:0:1::", "??"),
            ("ffff::", "??"),
        ] {
            assert_eq!(at(&geoip, ip), want, "{ip}");
        }
        assert_eq!(at(&GeoIp::default(), "8.8.8.8"), "??");
    }

    #[test]
    fn lines_that_are_no_range_are_skipped() {
        let (geoip, skipped) =
            GeoIp::read("5,4,US\n1,2\nx,y,US\n1,::2,US\n1,2,USA\n4294967296,4294967297,US\n4,9,US", "");
        assert_eq!((skipped, at(&geoip, "0.0.0.4")), (6, "US".to_owned()));
    }

    #[test]
    fn covers_the_last_address_of_each_family() {
        let geoip = GeoIp::parse(
            "4294967040,4294967295,US",
            "ffff:ffff:ffff:ffff:ffff::,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,FR\n::,::,DE",
        );
        assert_eq!(at(&geoip, "255.255.255.255"), "US");
        assert_eq!(at(&geoip, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "FR");
        assert_eq!(at(&geoip, "ffff:ffff:ffff:ffff::"), "??");
        assert_eq!((at(&geoip, "::"), at(&geoip, "::1")), ("DE".to_owned(), "??".to_owned()));
    }

    /// Returns the beginning of a file that the package tor-geoipdb installs, or an empty text if the package is not
    /// installed. With an empty text the test below checks nothing.
    fn installed(name: &str) -> String {
        let text = std::fs::read_to_string(format!("/usr/share/tor/{name}")).unwrap_or_default();
        text.split_inclusive('\n').take(30_000).collect()
    }

    #[test]
    fn reads_the_files_that_tor_publishes() {
        let (v4, v6) = (installed("geoip"), installed("geoip6"));
        let (geoip, skipped) = GeoIp::read(&v4, &v6);
        assert_eq!(skipped, 0);
        for line in v4.lines().chain(v6.lines()).filter(|line| !line.starts_with('#')).step_by(7) {
            let [low, high, country] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
            for ip in
                [low, high].map(|ip| ip.parse().map_or_else(|_| ip.parse().unwrap(), |n: u32| IpAddr::V4(n.into())))
            {
                assert_eq!(geoip.country(ip).as_str(), country, "{line}");
            }
        }
    }

    /// Generates addresses that are close together, so that ranges meet, overlap and share a /64.
    fn close_together() -> impl Strategy<Value = u128> {
        (0u128..4, 0u128..12).prop_map(|(half, low)| half << 64 | low)
    }

    #[derive(Debug)]
    struct Everywhere(&'static str);

    impl CountrySource for Everywhere {
        fn country_of(&self, ip: IpAddr) -> Option<Country> {
            ip.is_ipv4().then(|| self.0.parse().unwrap())
        }
    }

    #[test]
    fn the_fallback_is_asked_only_for_unknown_addresses() {
        let geoip = GeoIp::parse("192.0.2.0,192.0.2.255,DE", "").with_fallback(Arc::new(Everywhere("FR")));
        assert_eq!(at(&geoip, "192.0.2.1"), "DE");
        assert_eq!((at(&geoip, "192.0.3.1"), at(&geoip, "2001:db8::1")), ("FR".into(), "??".into()));
        let alone = GeoIp::default().with_fallback(Arc::new(Everywhere("US")));
        assert_eq!(at(&alone, "192.0.2.1"), "US");
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_list(
            ranges in prop::collection::vec((close_together(), close_together(), "[A-C]{2}"), 0..12),
            probes in prop::collection::vec(close_together(), 1..20),
        ) {
            let mut ranges: Vec<_> = ranges.into_iter().map(|(a, b, cc)| (a.min(b), a.max(b), cc)).collect();
            let lines: Vec<_> = ranges.iter().map(|(low, high, cc)| {
                format!("{},{},{cc}", Ipv6Addr::from_bits(*low), Ipv6Addr::from_bits(*high))
            }).collect();
            let geoip = GeoIp::parse("", &lines.join("\n"));
            ranges.sort_by_key(|(low, ..)| *low);
            for probe in probes {
                let slow = ranges.iter().find(|(low, high, _)| (*low..=*high).contains(&probe));
                let want = slow.map_or("??", |(.., cc)| cc);
                prop_assert_eq!(at(&geoip, &Ipv6Addr::from_bits(probe).to_string()), want, "{:x}", probe);
            }
        }

        #[test]
        fn the_ipv4_table_agrees_with_the_list(
            ranges in prop::collection::vec((0u32..60, 0u32..20, "[A-C]{2}"), 0..12),
            probe in 0u32..90,
        ) {
            let mut ranges: Vec<_> = ranges.into_iter().map(|(low, more, cc)| (low, low + more, cc)).collect();
            let lines: Vec<_> = ranges.iter().map(|(low, high, cc)| format!("{low},{high},{cc}")).collect();
            let geoip = GeoIp::parse(&lines.join("\n"), "");
            ranges.sort_by_key(|(low, ..)| *low);
            let slow = ranges.iter().find(|(low, high, _)| (*low..=*high).contains(&probe));
            prop_assert_eq!(at(&geoip, &Ipv4Addr::from_bits(probe).to_string()), slow.map_or("??", |(.., cc)| cc));
        }

        #[test]
        fn no_text_panics(v4 in "(.{0,30}\n|[0-9]{1,11},[0-9]{1,11},[A-Z]{2}\n){0,8}", v6 in "([0-9a-f:]{0,20},[0-9a-f:]{0,20},US\n){0,8}") {
            let _ = GeoIp::parse(&v4, &v6).country("2001:db8::1".parse().unwrap());
        }
    }
}
