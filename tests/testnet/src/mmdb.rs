//! Writes small city databases in the MaxMind DB format, for tests of what reads them.
//!
//! The format is a binary tree over the bits of an address, then a data section, then metadata
//! (<https://maxmind.github.io/MaxMind-DB/>). Records of the tree have 32 bits here. IPv4 addresses are in the subtree
//! of `::/96`, as in published databases.

use std::net::IpAddr;

/// What a database says about a network.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub country: &'a str,
    pub city: Option<&'a str>,
    pub region: Option<&'a str>,
    pub time_zone: Option<&'a str>,
    /// Latitude and longitude in degrees.
    pub coordinates: Option<(f64, f64)>,
}

/// The writer of databases.
#[derive(Debug)]
pub struct Mmdb;

/// A branch of a node in the tree.
#[derive(Clone, Copy)]
enum Branch {
    Empty,
    Node(usize),
    /// The offset in the data section.
    Data(usize),
}

impl Mmdb {
    /// Returns a database of the type `Test-City`. Networks are written as `192.0.2.0/24`, and must not overlap.
    pub fn cities(places: &[(&str, Place<'_>)]) -> Vec<u8> {
        Self::named("Test-City", places)
    }

    /// The same with another type.
    pub fn named(kind: &str, places: &[(&str, Place<'_>)]) -> Vec<u8> {
        let (mut nodes, mut data) = (vec![[Branch::Empty; 2]], Vec::new());
        for (network, place) in places {
            let offset = data.len();
            write_place(place, &mut data);
            insert(&mut nodes, network, Branch::Data(offset));
        }
        let count = nodes.len();
        let value = |branch| match branch {
            Branch::Empty => count,
            Branch::Node(at) => at,
            Branch::Data(offset) => count + 16 + offset,
        };
        let mut out = Vec::new();
        for branch in nodes.iter().flatten() {
            out.extend(u32::try_from(value(*branch)).expect("a small tree").to_be_bytes());
        }
        out.extend([0; 16]);
        out.extend(data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        write_metadata(kind, count, &mut out);
        out
    }
}

fn insert(nodes: &mut Vec<[Branch; 2]>, network: &str, leaf: Branch) {
    let (address, length) = network.split_once('/').expect("a network with its length");
    let length: usize = length.parse().expect("a length in bits");
    let (bits, length) = match address.parse().expect("an address") {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), length + 96),
        IpAddr::V6(ip) => (ip.to_bits(), length),
    };
    let mut at = 0;
    for depth in 0..length {
        let side = (bits >> (127 - depth) & 1) as usize;
        if depth + 1 == length {
            nodes[at][side] = leaf;
            return;
        }
        at = match nodes[at][side] {
            Branch::Node(next) => next,
            Branch::Empty => {
                nodes.push([Branch::Empty; 2]);
                let next = nodes.len() - 1;
                nodes[at][side] = Branch::Node(next);
                next
            }
            Branch::Data(_) => panic!("{network} is inside another network"),
        };
    }
}

fn write_place(place: &Place<'_>, out: &mut Vec<u8>) {
    let names = |out: &mut Vec<u8>, name: &str| {
        map(out, 1);
        text(out, "names");
        map(out, 1);
        text(out, "en");
        text(out, name);
    };
    let location = usize::from(place.time_zone.is_some()) + 2 * usize::from(place.coordinates.is_some());
    let parts = [place.city.is_some(), place.region.is_some(), location > 0];
    map(out, 1 + parts.iter().filter(|part| **part).count());
    text(out, "country");
    map(out, 1);
    text(out, "iso_code");
    text(out, place.country);
    if let Some(city) = place.city {
        text(out, "city");
        names(out, city);
    }
    if let Some(region) = place.region {
        text(out, "subdivisions");
        out.extend([1, 4]); // an array (extended type 11) of one element
        map(out, 1);
        text(out, "iso_code");
        text(out, region);
    }
    if location > 0 {
        text(out, "location");
        map(out, location);
    }
    if let Some((latitude, longitude)) = place.coordinates {
        for (key, value) in [("latitude", latitude), ("longitude", longitude)] {
            text(out, key);
            out.push(3 << 5 | 8);
            out.extend(value.to_be_bytes());
        }
    }
    if let Some(zone) = place.time_zone {
        text(out, "time_zone");
        text(out, zone);
    }
}

fn write_metadata(kind: &str, nodes: usize, out: &mut Vec<u8>) {
    map(out, 9);
    number(out, "node_count", 6, nodes as u64);
    number(out, "record_size", 5, 32);
    number(out, "ip_version", 5, 6);
    text(out, "database_type");
    text(out, kind);
    text(out, "languages");
    out.extend([1, 4]);
    text(out, "en");
    number(out, "binary_format_major_version", 5, 2);
    number(out, "binary_format_minor_version", 5, 0);
    number(out, "build_epoch", 9, 1_700_000_000);
    text(out, "description");
    map(out, 1);
    text(out, "en");
    text(out, "written by a test");
}

fn map(out: &mut Vec<u8>, entries: usize) {
    out.push(7 << 5 | u8::try_from(entries).expect("a few entries"));
}

fn text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..29 => out.push(2 << 5 | length as u8),
        length => out.extend([2 << 5 | 29, u8::try_from(length - 29).expect("a short text")]),
    }
    out.extend(text.as_bytes());
}

/// Writes a key with an unsigned integer of the type 5 (16 bits), 6 (32 bits) or 9 (64 bits).
fn number(out: &mut Vec<u8>, key: &str, kind: u8, value: u64) {
    text(out, key);
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let length = u8::try_from(bytes.len()).expect("eight bytes");
    if kind > 7 {
        out.extend([length, kind - 7]);
    } else {
        out.push(kind << 5 | length);
    }
    out.extend(bytes);
}
