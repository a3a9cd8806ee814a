//! Tests of what a record counts, and of the content of its access line.

use std::sync::Arc;

use super::*;
use crate::gateway::failure::{ClientFault, Failure, NoExit};
use crate::gateway::meters::RequestCounters;
use crate::gateway::testing::{self, observed};

fn facts(meters: &Arc<RouteMeters>) -> ExitFacts {
    ExitFacts {
        exit: ExitId::Direct,
        ip: Some([192, 0, 2, 7].into()),
        country: None,
        checked: None,
        moved: None,
        route: "us-session-a".into(),
        rule: None,
        meters: meters.clone(),
    }
}

fn record(log_targets: bool) -> Record {
    let listener = Arc::new(ListenerConfig { log_targets, ..testing::listener() });
    Record::begin(listener, "198.51.100.1:5000".parse().unwrap(), &Cut::new())
}

const FIELDS: [&str; 9] = ["listener", "protocol", "client", "username", "to", "route", "exit", "outcome", "requests"];

#[test]
fn a_tunnel_writes_one_line_and_counts_once() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("implicit"));
        let mut record = record(false);
        record.protocol_known(Protocol::Socks5);
        record.asked("us-session-a", Some(&"a.test:80".parse().unwrap()));
        record.opened(&facts(&route));
        record.byte_meter().moved(Direction::Up, 3);
        record.byte_meter().moved(Direction::Down, 5);
        record.ended(Outcome::Ended(Reason::Finished));
    });
    let line = ["shared", "socks5", "198.51.100.1", "null", "null", "us-session-a", "direct", "finished", "1"];
    assert_eq!(seen.access(&FIELDS), [line]);
    assert_eq!(seen.access(&["up", "down", "tls", "ip"]), [["3", "5", "null", "192.0.2.7"]]);
    assert_eq!(
        seen.samples("exitgate_connections"),
        [
            "exitgate_connections_open{listener=\"shared\"} 0",
            "exitgate_connections_total{listener=\"shared\",protocol=\"socks5\"} 1",
        ]
    );
    assert_eq!(
        seen.samples("exitgate_requests_total"),
        ["exitgate_requests_total{route=\"implicit\",protocol=\"socks5\",outcome=\"finished\"} 1",]
    );
    assert_eq!(seen.samples("exitgate_streams_open"), ["exitgate_streams_open{route=\"implicit\"} 0"]);
    assert_eq!(
        seen.samples("exitgate_relayed_bytes_total"),
        [
            "exitgate_relayed_bytes_total{route=\"implicit\",way=\"down\"} 5",
            "exitgate_relayed_bytes_total{route=\"implicit\",way=\"up\"} 3",
        ]
    );
    assert_eq!(
        seen.samples("exitgate_open_seconds_count"),
        ["exitgate_open_seconds_count{source=\"direct\",country=\"??\"} 1",]
    );
}

#[test]
fn the_line_has_the_connections_id_and_the_name_of_its_key() {
    let (id, seen) = observed(async || {
        let anonymous = record(false);
        anonymous.key_known(None);
        let record = record(false);
        record.key_known(Some(&"team-a".into()));
        record.id().to_string()
    });
    let lines = seen.access(&["key", "id"]);
    assert_eq!(lines[0], ["team-a".to_owned(), id.clone()]);
    assert_eq!(lines[1][0], "null");
    assert_ne!(lines[1][1], id, "each connection has an id of its own");
}

#[test]
fn the_line_names_the_rule_that_matched() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("shop"));
        let mut record = record(false);
        record.asked("shop", None);
        record.opened(&ExitFacts { route: "shop:us".into(), rule: Some("shop#2".into()), ..facts(&route) });
        record.ended(Outcome::Answered);
    });
    assert_eq!(seen.access(&["route", "rule"]), [["shop:us", "shop#2"]]);
}

#[test]
fn the_first_byte_of_an_answer_is_timed_once_a_stream() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("us"));
        let mut record = record(false);
        for _ in 0..2 {
            record.asked("us", None);
            record.opened(&ExitFacts { country: Some(*b"US"), ..facts(&route) });
            record.byte_meter().moved(Direction::Up, 3);
            (0..3).for_each(|_| record.byte_meter().moved(Direction::Down, 5));
            record.ended(Outcome::Answered);
        }
    });
    let handshakes = seen.samples("exitgate_handshake_seconds_count");
    assert_eq!(handshakes, ["exitgate_handshake_seconds_count 1"], "once a connection");
    let want = ["exitgate_first_byte_seconds_count{source=\"direct\",country=\"US\"} 2"];
    assert_eq!(seen.samples("exitgate_first_byte_seconds_count"), want);
}

#[test]
fn ten_thousand_sessions_are_one_label() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("implicit"));
        for n in 0..10_000 {
            let mut record = record(false);
            record.protocol_known(Protocol::Socks5);
            record.asked(&format!("us-session-s{n}"), None);
            record.opened(&ExitFacts { route: format!("us-session-s{n}").into(), ..facts(&route) });
            record.ended(Outcome::Ended(Reason::Finished));
        }
    });
    assert_eq!(seen.samples("exitgate_requests_total").len(), 1);
    let other: Vec<_> = seen.samples("exitgate_").into_iter().filter(|sample| !sample.contains("_seconds")).collect();
    assert!(other.len() < 12 && other.iter().all(|sample| !sample.contains("session")), "{other:?}");
}

#[test]
fn targets_and_usernames_are_logged_only_where_allowed() {
    let ((), seen) = observed(async || {
        let mut record = record(true);
        record.protocol_known(Protocol::Connect);
        record.asked("us", Some(&"a.test:443".parse().unwrap()));
        record.refused(&Failure::NoExit(NoExit::NoneMatch).into());
    });
    let line = ["shared", "connect", "198.51.100.1", "us", "a.test:443", "null", "null", "no_exit_match", "1"];
    assert_eq!(seen.access(&FIELDS), [line]);
}

#[test]
fn a_connection_without_a_protocol_has_a_line_too() {
    let ((), seen) = observed(async || {
        let mut record = record(false);
        record.refused(&Failure::Client(ClientFault::Slow).into());
    });
    assert_eq!(seen.access(&["protocol", "outcome"]), [["null", "client_slow"]]);
    assert_eq!(
        seen.samples("exitgate_connections_total"),
        ["exitgate_connections_total{listener=\"shared\",protocol=\"none\"} 1",]
    );
    assert_eq!(
        seen.samples("exitgate_requests_total"),
        ["exitgate_requests_total{route=\"none\",protocol=\"none\",outcome=\"client_slow\"} 1",]
    );
}

#[test]
fn a_cut_request_is_counted_as_cut_and_no_stream_stays_open() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("us"));
        let mut record = record(false);
        record.protocol_known(Protocol::Http);
        record.asked("us", None);
        record.opened(&facts(&route));
    });
    assert_eq!(seen.access(&["outcome"]), [["cut"]]);
    assert_eq!(seen.samples("exitgate_streams_open"), ["exitgate_streams_open{route=\"us\"} 0"]);
    assert_eq!(seen.samples("exitgate_connections_open"), ["exitgate_connections_open{listener=\"shared\"} 0"]);
}

#[test]
fn each_request_counts_for_the_route_that_served_it() {
    let ((), seen) = observed(async || {
        let (us, de) = (Arc::new(RouteMeters::new("us")), Arc::new(RouteMeters::new("de")));
        let mut record = record(false);
        record.protocol_known(Protocol::Http);
        for route in [&us, &de, &us] {
            record.asked("", None);
            record.opened(&facts(route));
            record.ended(Outcome::Answered);
        }
        record.asked("", None);
        record.ended(Outcome::Local);
        record.refused(&Refusal { meters: Some(de.clone()), ..Failure::Draining.into() });
    });
    assert_eq!(
        seen.samples("exitgate_requests_total"),
        [
            "exitgate_requests_total{route=\"de\",protocol=\"http\",outcome=\"answered\"} 1",
            "exitgate_requests_total{route=\"de\",protocol=\"http\",outcome=\"draining\"} 1",
            "exitgate_requests_total{route=\"none\",protocol=\"http\",outcome=\"here\"} 1",
            "exitgate_requests_total{route=\"us\",protocol=\"http\",outcome=\"answered\"} 2",
        ]
    );
    assert_eq!(seen.access(&["requests", "outcome"]), [["5", "draining"]]);
}

#[test]
fn outcomes_beyond_the_fast_ones_are_counted_too() {
    let ((), seen) = observed(async || {
        let requests = RequestCounters::new("us");
        const LABELS: &str = "abcdefghijklmnopqrstuvwxyz";
        for protocol in ["socks4", "socks5", "connect"] {
            for i in 0..LABELS.len() {
                requests.count(protocol, &LABELS[i..=i]);
                requests.count(protocol, &LABELS[i..=i]);
            }
        }
    });
    let samples = seen.samples("exitgate_requests_total");
    assert_eq!(samples.len(), 3 * 26);
    assert!(samples.iter().all(|sample| sample.ends_with(" 2")), "{samples:?}");
}
