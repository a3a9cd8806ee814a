//! Tests with lines that tor 0.4.9.11 really sent, and property tests with lines that tor never sends.

use proptest::prelude::*;

use super::super::reply::Line;
use super::*;

const G: &str = "F5C688BE508553C516E3A1AE96955F380AC31EDF";
const M: &str = "CC44CED42ABBFC56CF7B9773D74E50049435839C";

fn read(text: &str) -> Event {
    Event::read(&Reply::new(vec![Line { code: 650, text: text.into(), data: None }]).unwrap())
}

#[test]
fn reads_the_life_of_a_circuit() {
    let time = "PURPOSE=CONTROLLER TIME_CREATED=2026-11-21T12:04:51.463273";
    for (text, status, hops, reason) in [
        (format!("CIRC 3 LAUNCHED {time}"), CircStatus::Launched, 0, None),
        (format!("CIRC 3 EXTENDED ${G}~guard1 {time}"), CircStatus::Extended, 1, None),
        (format!("CIRC 3 BUILT ${G}~guard1,${M}~guard2 {time}"), CircStatus::Built, 2, None),
        (format!("CIRC 3 BUILT ${G}=guard1,${M} BUILD_FLAGS=NEED_CAPACITY {time}"), CircStatus::Built, 2, None),
        (
            format!("CIRC 3 FAILED ${G}~guard1 {time} REASON=DESTROYED REMOTE_REASON=CHANNEL_CLOSED"),
            CircStatus::Failed,
            1,
            Some(CircReason::Destroyed),
        ),
        (format!("CIRC 3 NEW_WORD {time} REASON=NEW_REASON"), CircStatus::Other, 0, Some(CircReason::Other)),
    ] {
        let Event::Circ(circ) = read(&text) else { panic!("{text}") };
        assert_eq!(
            (circ.id, circ.status, circ.path.len(), circ.reason),
            (CircuitId(3), status, hops, reason),
            "{text}"
        );
        assert!(circ.ours, "{text}");
        assert!(circ.path.first().is_none_or(|relay| relay.to_string() == G));
    }
}

#[test]
fn reads_a_stream_whatever_the_order_of_its_fields() {
    for text in [
        r#"STREAM 14 NEW 0 host:80 SOURCE_ADDR=/run/socks:0 PURPOSE=USER SOCKS_USERNAME="b4" SOCKS_PASSWORD="a\"b" ISO_FIELDS=X"#,
        r#"STREAM 14 NEW 0 host:80 SOCKS_PASSWORD="SOCKS_USERNAME=x" LATER="a b" SOCKS_USERNAME="b4" PURPOSE=USER"#,
    ] {
        let Event::Stream(stream) = read(text) else { panic!("{text}") };
        assert_eq!((stream.id, stream.status, stream.circuit), (StreamId(14), StreamStatus::New, None));
        assert_eq!((stream.username.as_deref(), &*stream.target), (Some("b4"), "host:80"));
        assert!(stream.from_client);
    }
    let Event::Stream(own) = read("STREAM 2 NEW 0 $F5C6.exit:9001 PURPOSE=DIR_FETCH") else { panic!() };
    assert!(!own.from_client && own.username.is_none());
}

#[test]
fn a_streams_cause_is_the_exits_word_if_there_is_one() {
    for (text, status, cause) in [
        ("STREAM 21 DETACHED 8 1.2.3.4:25 REASON=END REMOTE_REASON=MISC", StreamStatus::Detached, EndReason::Misc),
        ("STREAM 21 CLOSED 8 1.2.3.4:25 REASON=DESTROY", StreamStatus::Closed, EndReason::Destroy),
        ("STREAM 21 FAILED 0 1.2.3.4:25 REASON=CONNECTREFUSED", StreamStatus::Failed, EndReason::ConnectRefused),
        ("STREAM 21 CLOSED 0 1.2.3.4:25 REASON=NEVER_HEARD_OF", StreamStatus::Closed, EndReason::Other),
    ] {
        let Event::Stream(stream) = read(text) else { panic!("{text}") };
        assert_eq!((stream.status, stream.cause()), (status, Some(cause)), "{text}");
    }
}

#[test]
fn reads_the_smaller_events() {
    let relay: Fingerprint = G.parse().unwrap();
    let bandwidth = CircBw { id: CircuitId(81), read: 509, written: 1018, window: Some(124) };
    for (text, want) in [
        ("BW 570 1140 DIR=0,0", Event::Bw { read: 570, written: 1140 }),
        ("CIRC_BW ID=81 READ=509 WRITTEN=1018 TIME=x DELIVERED_READ=0 SS=1 CWND=124 RTT=3", Event::CircBw(bandwidth)),
        ("NETWORK_LIVENESS DOWN", Event::Liveness(false)),
        ("STATUS_CLIENT NOTICE ENOUGH_DIR_INFO", Event::DirInfo(true)),
        ("STATUS_CLIENT NOTICE CONSENSUS_ARRIVED", Event::ConsensusArrived),
        ("STATUS_CLIENT WARN CLOCK_SKEW SKEW=1", Event::Other("STATUS_CLIENT".into())),
        ("NEWCONSENSUS", Event::NewConsensus),
        (
            &format!("ORCONN ${G}~guard1 CLOSED REASON=IOERROR NCIRCS=2 ID=14"),
            Event::OrConn(OrConn { relay: Some(relay), status: OrStatus::Closed, reason: Some("IOERROR".into()) }),
        ),
        (
            "ORCONN 127.0.0.1:9001 LAUNCHED ID=14",
            Event::OrConn(OrConn { relay: None, status: OrStatus::Launched, reason: None }),
        ),
        (&format!("GUARD ENTRY ${G}~guard1 DOWN"), Event::Guard { relay, status: "DOWN".into() }),
        ("CONF_CHANGED", Event::Other("CONF_CHANGED".into())),
        ("CIRC x BUILT", Event::Other("CIRC".into())),
    ] {
        assert_eq!(read(text), want, "{text}");
    }
}

#[test]
fn reads_bootstrap_with_what_is_in_the_way() {
    let text = r#"STATUS_CLIENT WARN BOOTSTRAP PROGRESS=10 TAG=conn_done SUMMARY="Connected to a relay" WARNING="No route" REASON=NOROUTE"#;
    let Event::Bootstrap(got) = read(text) else { panic!() };
    let want = Bootstrap {
        percent: 10,
        tag: "conn_done".into(),
        summary: "Connected to a relay".into(),
        warning: Some("No route".into()),
    };
    assert_eq!(got, want);
}

#[test]
fn what_bootstrap_says_commands_no_terminal() {
    let Event::Bootstrap(got) = read("STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=5 SUMMARY=\"\x1b]0;evil\x07\"") else {
        panic!()
    };
    assert_eq!(&*got.summary, "\\u{1b}]0;evil\\u{7}");
}

proptest! {
    #[test]
    fn no_event_panics(kind in "CIRC|STREAM|CIRC_BW|BW|STATUS_CLIENT|NETWORK_LIVENESS|ORCONN|GUARD|[A-Z]{1,9}",
                       rest in "\\PC{0,80}|[A-Z0-9$~,= \"\\\\]{0,80}|[0-9]{1,30} [A-Z]{1,9} [0-9]{1,30} \\PC{0,20}") {
        let _ = read(&format!("{kind} {rest}"));
    }
}

#[test]
fn the_end_of_a_circuit_shows_how_far_it_came() {
    const GUARD: &str = "$F5C688BE508553C516E3A1AE96955F380AC31EDF~guard1";
    const MIDDLE: &str = "$8D79B493B6C951E79E5D5F429C5688A9368E0DB4~middle";
    for (text, reached, answered, refused) in [
        ("7 FAILED REASON=TIMEOUT".to_owned(), 0, false, false),
        ("7 FAILED REASON=CHANNEL_CLOSED".to_owned(), 0, false, false),
        ("7 FAILED REASON=DESTROYED REMOTE_REASON=INTERNAL".to_owned(), 0, true, false),
        ("7 FAILED REASON=DESTROYED REMOTE_REASON=RESOURCELIMIT".to_owned(), 0, true, true),
        (format!("7 FAILED {GUARD} REASON=DESTROYED REMOTE_REASON=HIBERNATING"), 1, true, true),
        (format!("7 FAILED {GUARD},{MIDDLE} REASON=TIMEOUT"), 2, true, false),
        // The connection between tor and the guard closed. This does not show that the relays after the guard are at
        // fault.
        (format!("7 FAILED {GUARD},{MIDDLE} REASON=CHANNEL_CLOSED"), 0, true, false),
        (format!("7 FAILED {GUARD} REASON=DESTROYED REMOTE_REASON=CHANNEL_CLOSED"), 1, true, false),
    ] {
        let circ = circ(&text).unwrap();
        assert_eq!((circ.reached(), circ.is_answered(), circ.is_refused()), (reached, answered, refused), "{text}");
    }
}

#[test]
fn a_refused_connection_shows_that_the_network_works() {
    for (reason, answered) in [
        (" REASON=CONNECTREFUSED", true),
        (" REASON=CONNECTRESET", true),
        (" REASON=IDENTITY", true),
        (" REASON=TIMEOUT", false),
        (" REASON=NOROUTE", false),
        (" REASON=DONE", false),
        ("", false),
    ] {
        let conn = or_conn(&format!("$F5C688BE508553C516E3A1AE96955F380AC31EDF~guard1 FAILED{reason} ID=3"));
        assert_eq!(conn.was_answered(), answered, "{reason}");
    }
}
