//! A source that is fed every kind of rubbish: the last good list stands, and what was wrong is in the source's record
//! (which `/sources` shows), in a metric and in the log.

use std::io;
use std::sync::{Arc, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// A whole document around these records.
fn document(published: &str, records: &[String]) -> &'static str {
    let text = format!(
        "{{\"version\":\"8.0\",\n\"relays_published\":\"{published}\",\n\"relays\":[\n{}\n]}}\n",
        records.join(",\n")
    );
    Box::leak(text.into_boxed_str())
}

fn record(n: u32, more: &str) -> String {
    format!("{{\"fingerprint\":\"{n:040X}\",\"running\":true,\"exit_policy_summary\":{{\"accept\":[\"443\"]}}{more}}}")
}

fn records(count: u32, more: &str) -> Vec<String> {
    (0..count).map(|n| record(n, more)).collect()
}

#[tokio::test]
async fn whatever_it_is_fed_the_last_good_list_stands_and_the_reason_is_told() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _counted = metrics::set_default_local_recorder(&recorder);

    let mut bench = Bench::new(2000, None).await;
    bench.run_listed(ONIONOO, "fresh").await;
    let revision = bench.state.load().revision;
    let huge: &'static str = Box::leak(" ".repeat(1 << 20).into_boxed_str());
    let endless = Limits { body: 1 << 19, ..Limits::default() };
    for (what, says, limits, outcome, why) in [
        (
            "a list that halved",
            document("2091-01-01 00:00:00", &records(400, "")),
            Limits::default(),
            "garbage",
            "less than half",
        ),
        (
            "fields of wrong types",
            document("2001-01-01 00:00:00", &records(1000, ",\"running\":\"yes\"")),
            Limits::default(),
            "garbage",
            "contains no exit",
        ),
        ("empty", "", Limits::default(), "garbage", "the answer is empty"),
        ("no object", "null", Limits::default(), "garbage", "not a JSON object"),
        ("no relays", "{}", Limits::default(), "garbage", "has no `relays`"),
        ("relays of a wrong type", "{\"relays\":{}}", Limits::default(), "garbage", "`relays` is not an array"),
        ("records of a wrong type", "{\"relays\":[7]}", Limits::default(), "garbage", "not an object"),
        ("cut in the middle", "{\"relays\":[{\"fingerprint\":", Limits::default(), "garbage", "incomplete"),
        ("an empty list", "{\"relays\":[]}", Limits::default(), "garbage", "contains no exit"),
        (
            "a clock that went back",
            document("2001-01-01 00:00:00", &records(1000, "")),
            Limits::default(),
            "garbage",
            "older than the answer before",
        ),
        ("huge", huge, endless, "too_long", "bytes"),
    ] {
        bench.onionoo.behave(Behaviour::Says(says));
        bench.limits = limits;
        log.take();
        let fared = bench.run(ONIONOO, |_| true).await;
        assert_eq!((fared.outcome.as_str(), fared.records), (outcome, 1000), "{what}: {}", fared.why);
        assert!(fared.why.contains(why), "{what}: {}", fared.why);
        assert_eq!((alive(&bench.state.load().catalog), bench.state.load().revision), (1000, revision), "{what}");
        let counted = metrics.render();
        let line = format!("exitgate_source_requests_total{{source=\"onionoo\",outcome=\"{outcome}\"}}");
        assert!(counted.contains(&line), "{what}: {counted}");
        let logged = log.take();
        assert!(
            logged.contains(&*fared.why) && logged.contains("onionoo"),
            "{what}: {:?} is not in {logged}",
            fared.why
        );
    }
}

#[tokio::test]
async fn what_is_odd_but_whole_is_believed() {
    let long = format!(",\"contact\":\"{}\"", "x".repeat(1 << 20));
    let twice = [records(900, ""), records(900, ",\"nickname\":\"again\"")].concat();
    let mut with_long = records(900, ",\"new_field\":{\"deep\":[1,{\"x\":[]}]}");
    with_long.push(record(5000, &long));
    for (what, published, records, alive_now, skipped) in [
        ("fingerprints twice, unknown fields", "2091-01-01 00:00:00", twice, 900, 0),
        ("unknown fields and a line of a megabyte", "2091-01-01 01:00:00", with_long, 900, 1),
    ] {
        let mut bench = Bench::new(2000, None).await;
        bench.run_listed(ONIONOO, "fresh").await;
        bench.onionoo.behave(Behaviour::Says(document(published, &records)));
        let fared = bench.run_listed(ONIONOO, "fresh").await;
        assert_eq!((fared.records, fared.skipped), (900, skipped), "{what}: {}", fared.why);
        assert!(fared.why.contains("from the future"), "{what}: a clock that is ahead is said: {:?}", fared.why);
        assert_eq!(alive(&bench.state.load().catalog), alive_now, "{what}");
    }
}
