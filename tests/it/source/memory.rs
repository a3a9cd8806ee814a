//! A document three times the size of the real one, made while it is sent, so that whoever holds it is us.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use exitgate::exit::country::GeoIp;
use exitgate::exit::{Catalog, Moment};
use exitgate::source::Parse;
use exitgate::source::fetch::{Limits, Validators};
use exitgate::source::merge::{RelayMerge, SourceData};
use exitgate::source::onionoo::Details;

use super::client;

/// As many relays as the network has, each with six kilobytes of what nobody reads: 60 MB.
const RELAYS: u32 = 9500;

/// Half of the document: holding it shows, and so does a copy of anything of its size. The exits take about 1 MB.
const MOST: u64 = 30 << 20;

/// One answer to one question.
fn serve(listener: &TcpListener) -> std::io::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut head = BufReader::new(&stream).lines();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut out = std::io::BufWriter::new(&stream);
    write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{{\"version\":\"8.0\",\n\"relays\":[\n")?;
    let padding = "x".repeat(6200);
    for n in 0..RELAYS {
        let comma = if n > 0 { ",\n" } else { "" };
        let policy = if n % 5 == 0 { r#"{"accept":["80","443"]}"# } else { r#"{"reject":["1-65535"]}"# };
        write!(out, r#"{comma}{{"fingerprint":"{n:040X}","exit_policy_summary":{policy},"contact":"{padding}"}}"#)?;
    }
    write!(out, "\n]}}\n")?;
    out.flush()
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_document_of_any_size_is_read_in_little_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/details", listener.local_addr().unwrap()).parse().unwrap();
    let server = std::thread::spawn(move || serve(&listener));
    let before = peak();
    let mut details = Details::default();
    let mut sink = |bytes: &[u8]| details.feed(bytes);
    let limits = Limits { total: Duration::from_secs(300), ..Limits::default() };
    client().get(&url, &Validators::default(), limits, &mut sink).await.unwrap();
    let parsed = details.finish().unwrap();
    assert_eq!((parsed.records, parsed.skipped), (RELAYS / 5, 0));
    let grown = peak() - before;
    assert!(grown < MOST, "{} MiB for 60 MB", grown >> 20);
    let mut merge = RelayMerge::new(Arc::new(GeoIp::default()), Vec::new());
    merge.take(SourceData::Onionoo(parsed.value));
    let mut edit = Catalog::default().edit();
    for listing in merge.changed(Moment(1)).unwrap() {
        edit.list(listing);
    }
    assert_eq!(edit.finish().len(), (RELAYS / 5) as usize);
    let grown = peak() - before;
    assert!(grown < 64 << 20, "{} MiB with the merge and the index", grown >> 20);
    server.join().unwrap().unwrap();
}
