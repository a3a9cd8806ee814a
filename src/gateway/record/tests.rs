//! What is counted, and what the one line says.

use std::sync::Arc;

use super::meters::Requests;
use super::*;
use crate::gateway::failure::{ClientFault, Failure, NoExit};
use crate::gateway::testing::{self, observed};

fn facts(meters: &Arc<RouteMeters>) -> Facts {
    Facts {
        exit: ExitId::Direct,
        ip: Some([192, 0, 2, 7].into()),
        country: None,
        checked: None,
        moved: None,
        route: "us-session-a".into(),
        meters: meters.clone(),
    }
}

fn record(log_targets: bool) -> Record {
    let listener = Arc::new(ListenerConfig { log_targets, ..testing::listener() });
    Record::begin(listener, "198.51.100.1:5000".parse().unwrap(), &Cut::new())
}

const FIELDS: [&str; 9] = ["listener", "protocol", "client", "username", "to", "route", "exit", "outcome", "requests"];

#[test]
fn a_tunnel_leaves_one_line_and_one_of_each_count() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("implicit"));
        let mut record = record(false);
        record.speaks(Protocol::Socks5);
        record.asked("us-session-a", Some(&"a.test:80".parse().unwrap()));
        record.opened(&facts(&route));
        record.flow().moved(Way::Up, 3);
        record.flow().moved(Way::Down, 5);
        record.settle(Outcome::Ended(Reason::Finished));
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
fn the_first_byte_of_an_answer_is_timed_once_a_stream() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("us"));
        let mut record = record(false);
        for _ in 0..2 {
            record.asked("us", None);
            record.opened(&Facts { country: Some(*b"US"), ..facts(&route) });
            record.flow().moved(Way::Up, 3);
            (0..3).for_each(|_| record.flow().moved(Way::Down, 5));
            record.settle(Outcome::Answered);
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
            record.speaks(Protocol::Socks5);
            record.asked(&format!("us-session-s{n}"), None);
            record.opened(&Facts { route: format!("us-session-s{n}").into(), ..facts(&route) });
            record.settle(Outcome::Ended(Reason::Finished));
        }
    });
    assert_eq!(seen.samples("exitgate_requests_total").len(), 1);
    let other: Vec<_> = seen.samples("exitgate_").into_iter().filter(|sample| !sample.contains("_seconds")).collect();
    assert!(other.len() < 12 && other.iter().all(|sample| !sample.contains("session")), "{other:?}");
}

#[test]
fn targets_and_usernames_are_named_only_when_asked_for() {
    let ((), seen) = observed(async || {
        let mut record = record(true);
        record.speaks(Protocol::Connect);
        record.asked("us", Some(&"a.test:443".parse().unwrap()));
        record.refused(&Failure::NoExit(NoExit::NoneMatch).into());
    });
    let line = ["shared", "connect", "198.51.100.1", "us", "a.test:443", "null", "null", "no_exit_match", "1"];
    assert_eq!(seen.access(&FIELDS), [line]);
}

#[test]
fn a_connection_that_never_spoke_is_written_down_too() {
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
fn what_is_cut_short_is_counted_as_cut_and_nothing_stays_open() {
    let ((), seen) = observed(async || {
        let route = Arc::new(RouteMeters::new("us"));
        let mut record = record(false);
        record.speaks(Protocol::Http);
        record.asked("us", None);
        record.opened(&facts(&route));
    });
    assert_eq!(seen.access(&["outcome"]), [["cut"]]);
    assert_eq!(seen.samples("exitgate_streams_open"), ["exitgate_streams_open{route=\"us\"} 0"]);
    assert_eq!(seen.samples("exitgate_connections_open"), ["exitgate_connections_open{listener=\"shared\"} 0"]);
}

#[test]
fn each_request_counts_where_it_was_served() {
    let ((), seen) = observed(async || {
        let (us, de) = (Arc::new(RouteMeters::new("us")), Arc::new(RouteMeters::new("de")));
        let mut record = record(false);
        record.speaks(Protocol::Http);
        for route in [&us, &de, &us] {
            record.asked("", None);
            record.opened(&facts(route));
            record.settle(Outcome::Answered);
        }
        record.asked("", None);
        record.settle(Outcome::Here);
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
fn more_outcomes_than_are_kept_are_counted_all_the_same() {
    let ((), seen) = observed(async || {
        let requests = Requests::new("us");
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
