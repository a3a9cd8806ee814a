//! How long it takes to read a whole directory, to merge it with other sources, and to index it.
//!
//! The document has the size of the public network's (9,500 relays of which 2,000 are exits) and its fields. `tests/it/source/memory.rs`
//! checks the bound on memory; this bench only prints the memory.

#![expect(clippy::print_stderr, reason = "the figures are this program's output")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use exitgate::exit::country::GeoIp;
use exitgate::exit::{Catalog, Moment};
use exitgate::source::Parse as _;
use exitgate::source::merge::{RelayMerge, SourceData};
use exitgate::source::onionoo::Details;

const RELAYS: u32 = 9_500;
const EXITS: u32 = 2_000;
const NOW: Moment = Moment(1_788_500_000_000_000);

/// Bytes that arrive at once: a TLS record.
const CHUNK: usize = 16 << 10;

fn document() -> String {
    let mut text = String::from("{\"version\":\"8.0\",\n\"relays_published\":\"2026-09-04 03:00:00\",\n\"relays\":[\n");
    // About two kilobytes for each relay. In a real record, most of it is contact, family and policy.
    let padding = "family ".repeat(200);
    for n in 0..RELAYS {
        let policy = if n * EXITS / RELAYS != (n + 1) * EXITS / RELAYS {
            r#"{"accept":["53","80","443","1194-1293"]}"#
        } else {
            r#"{"reject":["1-65535"]}"#
        };
        let (a, b, c) = (n >> 16 & 255, n >> 8 & 255, n & 255);
        let comma = if n > 0 { ",\n" } else { "" };
        let _ = write!(
            text,
            "{comma}{{\"nickname\":\"relay{n}\",\"fingerprint\":\"{:08X}{n:032X}\",\"or_addresses\":[\"11.{a}.{b}.{c}:9001\"],\
             \"exit_addresses\":[\"12.{a}.{b}.{c}\"],\"last_seen\":\"2026-09-04 03:00:00\",\"running\":true,\
             \"flags\":[\"Exit\",\"Fast\",\"Running\",\"Stable\",\"Valid\"],\"country\":\"us\",\"as\":\"AS{}\",\
             \"as_name\":\"Network {}\",\"consensus_weight\":{n},\"exit_policy_summary\":{policy},\"contact\":\"{padding}\"}}",
            n.wrapping_mul(2_654_435_761),
            64_500 + n % 300,
            n % 300,
        );
    }
    text + "\n]}\n"
}

/// Builds a catalog from the bytes of the document.
fn whole(document: &str, geoip: &Arc<GeoIp>) -> Catalog {
    let mut details = Details::default();
    document.as_bytes().chunks(CHUNK).for_each(|chunk| details.feed(chunk).expect("a whole document"));
    let parsed = details.finish().expect("a whole document");
    let mut merge = RelayMerge::new(geoip.clone(), Vec::new());
    merge.take(SourceData::Onionoo(parsed.value));
    let mut edit = Catalog::default().edit();
    for listing in merge.changed(NOW).expect("exits") {
        edit.list(listing);
    }
    edit.finish()
}

/// The highest resident memory of this process so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn main() {
    let (document, geoip) = (document(), Arc::new(GeoIp::default()));
    let (begun, before) = (Instant::now(), peak());
    assert_eq!(whole(&document, &geoip).len(), EXITS as usize);
    let (took, grown) = (begun.elapsed().as_secs_f64() * 1e3, (peak() - before) >> 10);
    eprintln!("{} MB, the first time: {took:.1} ms, {grown} MiB more at the peak", document.len() >> 20);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("directory");
    group.sample_size(20).measurement_time(Duration::from_secs(5)).throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("parse, merge and index", |bench| bench.iter(|| black_box(whole(&document, &geoip))));
    group.finish();
    criterion.final_summary();
}
