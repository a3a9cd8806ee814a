//! Every metric's name, kind and meaning, on one page.
//!
//! Nothing else in the tree spells a metric's name, so that a dashboard can be checked against this page and a rename
//! is one line. Labels are `listener`, `protocol`, `route`, `source`, `country`, `engine`, `outcome`, `reason`: words
//! with few values. Never a host, a user, an address, or an id that a client can invent: each new value would be a new
//! series for ever.

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

macro_rules! names {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident = $text:literal;)*) => {
        $($(#[doc = $help])+ pub const $name: &str = $text;)*
        /// Everything on this page: name, kind, meaning.
        pub const ALL: &[(&str, Kind, &str)] = &[$(($text, Kind::$kind, concat!($($help),+))),*];
    };
}

/// Buckets of every `_seconds` histogram: a factor of about 2 from 0.5 ms (a direct dial on a LAN) to 60 s (a caller's
/// longest deadline), so that p50 and p99 of both are read with the same error.
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

names! {
    /// Log lines dropped because a writer could not keep up.
    Counter LOG_LINES_LOST = "exitgate_log_lines_lost_total";
    /// Tasks that panicked: each one is a bug.
    Counter PANICS = "exitgate_task_panics_total";
    /// Tasks at work now.
    Gauge TASKS = "exitgate_tasks";
    /// 1, with the version as a label.
    Gauge BUILD_INFO = "exitgate_build_info";
}

/// Tells the recorder what each name means, for the `# HELP` lines.
pub fn describe() {
    for &(name, kind, help) in ALL {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, help.trim()),
            Kind::Gauge => ::metrics::describe_gauge!(name, help.trim()),
            Kind::Histogram => ::metrics::describe_histogram!(name, help.trim()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_prometheus_habits() {
        let mut seen = BTreeSet::new();
        for &(name, kind, help) in ALL {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("exitgate_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}: _total is for counters");
            assert!(
                help.trim().ends_with('.') || help.contains('.') || help.contains(':'),
                "{name}: say what it means"
            );
        }
    }
}
