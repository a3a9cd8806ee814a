//! Metric series about routes and their ports, which users create and delete.
//!
//! A Prometheus exporter keeps every series for ever. For routes this would be a memory leak: a hundred new routes an
//! hour make hundreds of new series. So series with a label for a route or a port are kept in this module.
//!
//! Such a series exists as long as some code holds its handle (a counter or a gauge). After the last handle is dropped,
//! the last value of the series is shown to one more scrape, and then the series is removed. If no scrape happens, the
//! series is removed after the time [`KEPT`].
//!
//! The number of different names in these labels is limited too. Beyond [`NAMES`] names, all further routes share the
//! name `other`, because ten thousand routes would overload a time series database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, SharedString, Unit};

use super::metrics::Kind;

/// Labels whose value is the name of a route or a port.
const EPHEMERAL_LABELS: [&str; 2] = ["route", "listener"];

/// The most different values of the labels `route` and `listener` at the same time. Each value has about ten series.
/// The default of `gateway.route_ports` has as many ports.
pub const NAMES: usize = 1000;

/// How long the last value of a removed series waits for a scrape: five times one minute, the longest common scrape
/// interval.
const KEPT: Duration = Duration::from_secs(300);

/// The value of the labels `route` and `listener` that all further routes and ports get once there are [`NAMES`]
/// different values.
const OTHER: &str = "other";

/// A metrics recorder that keeps ephemeral series here and passes all other series to `lasting`.
pub struct Recorder<R> {
    lasting: R,
    ephemeral: EphemeralSeries,
}

/// The metric series of routes and ports. All clones share the same series.
#[derive(Clone, Debug, Default)]
pub struct EphemeralSeries(Arc<Mutex<Families>>);

#[derive(Debug, Default)]
struct Families {
    help: HashMap<String, String>,
    all: BTreeMap<String, Family>,
    names: HashSet<String>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    series: BTreeMap<Vec<(String, String)>, Series>,
}

#[derive(Debug, Default)]
struct Series {
    value: Arc<AtomicU64>,
    /// The time when a sweep first found that no code holds a handle of the series. `None` while some code holds one.
    gone: Option<Instant>,
}

impl Series {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.value) > 1
    }
}

impl<R> Recorder<R> {
    /// Returns a recorder that passes permanent series to `lasting`, together with the ephemeral series that this
    /// recorder fills.
    pub fn new(lasting: R) -> (Self, EphemeralSeries) {
        let ephemeral = EphemeralSeries::default();
        (Self { lasting, ephemeral: ephemeral.clone() }, ephemeral)
    }
}

impl EphemeralSeries {
    /// Returns all series in the text format of Prometheus. Removes the series whose handles are all dropped.
    pub fn render(&self) -> String {
        let mut families = self.open();
        let mut text = String::new();
        let Families { help, all, .. } = &mut *families;
        all.retain(|name, family| {
            if let Some(help) = help.get(name) {
                let _ = writeln!(text, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
            }
            let _ = writeln!(text, "# TYPE {name} {}", family.kind.as_str());
            for (labels, series) in &family.series {
                let _ = writeln!(text, "{name}{{{}}} {}", format_labels(labels), family.kind.read(&series.value));
            }
            text.push('\n');
            family.series.retain(|_, series| series.is_held());
            !family.series.is_empty()
        });
        families.count_names();
        text
    }

    /// Removes series that had no handle for the time [`KEPT`], even if no scrape read those series. Call this every
    /// few seconds.
    pub fn sweep(&self, now: Instant) {
        let mut families = self.open();
        families.all.retain(|_, family| {
            family.series.retain(|_, series| {
                series.gone = if series.is_held() { None } else { series.gone.or(Some(now)) };
                series.gone.is_none_or(|since| now.duration_since(since) < KEPT)
            });
            !family.series.is_empty()
        });
        families.count_names();
    }

    fn open(&self) -> MutexGuard<'_, Families> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn series(&self, key: &Key, kind: Kind) -> Option<Arc<AtomicU64>> {
        if !key.labels().any(|label| EPHEMERAL_LABELS.contains(&label.key())) {
            return None;
        }
        let mut families = self.open();
        let labels = key.labels().map(|label| families.bounded(label)).collect();
        let fresh = || Family { kind, series: BTreeMap::new() };
        let family = families.all.entry(key.name().to_owned()).or_insert_with(fresh);
        Some(family.series.entry(labels).or_default().value.clone())
    }

    fn describe(&self, name: &KeyName, help: &SharedString) {
        self.open().help.insert(name.as_str().to_owned(), help.to_string());
    }
}

impl Families {
    fn count_names(&mut self) {
        let Self { all, names, .. } = self;
        let labels = all.values().flat_map(|family| family.series.keys()).flatten();
        let ephemeral = labels.filter(|(label, _)| EPHEMERAL_LABELS.contains(&&**label));
        *names = ephemeral.map(|(_, name)| name.clone()).collect();
    }

    fn bounded(&mut self, label: &Label) -> (String, String) {
        let (key, value) = (label.key(), label.value());
        let known = !EPHEMERAL_LABELS.contains(&key) || self.names.contains(value);
        if !known && self.names.len() >= NAMES {
            return (key.to_owned(), OTHER.to_owned());
        }
        if !known {
            self.names.insert(value.to_owned());
        }
        (key.to_owned(), value.to_owned())
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// Returns the value of a counter or gauge as text. The value of a counter is an integer. The value of a gauge is
    /// stored as the bits of an `f64`.
    fn read(self, value: &AtomicU64) -> String {
        let raw = value.load(Relaxed);
        if self == Self::Counter { raw.to_string() } else { f64::from_bits(raw).to_string() }
    }
}

fn format_labels(labels: &[(String, String)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

impl<R: metrics::Recorder> metrics::Recorder for Recorder<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.ephemeral.describe(&key, &description);
        self.lasting.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.ephemeral.describe(&key, &description);
        self.lasting.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.lasting.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        match self.ephemeral.series(key, Kind::Counter) {
            Some(series) => Counter::from_arc(series),
            None => self.lasting.register_counter(key, metadata),
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        match self.ephemeral.series(key, Kind::Gauge) {
            Some(series) => Gauge::from_arc(series),
            None => self.lasting.register_gauge(key, metadata),
        }
    }

    /// Histograms have no label for a route, because each histogram would be twenty series.
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.lasting.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, gauge, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_series_lives_as_long_as_its_handle_and_is_rendered_once_more() {
        let (recorder, ephemeral) = Recorder::new(PrometheusBuilder::new().build_recorder());
        with_local_recorder(&recorder, || {
            metrics::describe_counter!("x_total", "What \\ is\ncounted.");
            let (a, b) = (counter!("x_total", "route" => "a"), counter!("x_total", "route" => "b\"c"));
            a.increment(2);
            b.increment(1);
            gauge!("y", "listener" => "l").set(1.5);
            counter!("z_total", "source" => "tor").increment(9);
            let want = "# HELP x_total What \\\\ is\\ncounted.\n# TYPE x_total counter\nx_total{route=\"a\"} 2\n\
                        x_total{route=\"b\\\"c\"} 1\n\n# TYPE y gauge\ny{listener=\"l\"} 1.5\n\n";
            assert_eq!(ephemeral.render(), want);
            drop(b);
            a.increment(1);
            assert!(ephemeral.render().contains("x_total{route=\"b\\\"c\"} 1"), "once more");
            let left = ephemeral.render();
            assert!(
                left.contains("x_total{route=\"a\"} 3") && !left.contains("b\\\"c") && !left.contains('y'),
                "{left}"
            );
        });
    }

    #[test]
    fn names_beyond_the_bound_share_one() {
        let (recorder, ephemeral) = Recorder::new(PrometheusBuilder::new().build_recorder());
        with_local_recorder(&recorder, || {
            let handles: Vec<_> = (0..10_000).map(|n| counter!("x_total", "route" => format!("r{n}"))).collect();
            handles.iter().for_each(|handle| handle.increment(1));
            let text = ephemeral.render();
            assert_eq!(text.lines().filter(|line| line.starts_with("x_total{")).count(), NAMES + 1);
            assert!(text.contains("x_total{route=\"other\"} 9000"), "names beyond the bound are counted together");
            drop(handles);
            ephemeral.render();
            assert_eq!(ephemeral.render(), "", "all series are removed");
            let _new = counter!("x_total", "route" => "new");
            assert!(ephemeral.render().contains("route=\"new\""), "a new name fits again");
        });
    }

    #[test]
    fn removed_series_are_swept_where_nobody_scrapes() {
        let (recorder, ephemeral) = Recorder::new(PrometheusBuilder::new().build_recorder());
        with_local_recorder(&recorder, || {
            let kept = counter!("x_total", "route" => "kept");
            kept.increment(1);
            let begun = Instant::now();
            for n in 0..NAMES {
                counter!("x_total", "route" => format!("r{n}")).increment(1);
            }
            ephemeral.sweep(begun);
            counter!("x_total", "route" => "r0").increment(1);
            ephemeral.sweep(begun + KEPT - Duration::from_secs(1));
            assert_eq!(ephemeral.open().all["x_total"].series.len(), NAMES + 1, "a scrape may still come");
            ephemeral.sweep(begun + KEPT);
            let again = counter!("x_total", "route" => "again");
            again.increment(1);
            let text = ephemeral.render();
            assert!(text.contains("route=\"kept\"} 1") && text.contains("route=\"again\"} 1"), "{text}");
            assert_eq!(text.lines().filter(|line| line.starts_with("x_total{")).count(), 2, "{text}");
        });
    }
}
