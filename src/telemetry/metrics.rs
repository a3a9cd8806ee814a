//! Every metric's name, kind and meaning, on one page.
//!
//! Nothing else in the tree spells a metric's name, so that a dashboard can be checked against this page and a rename
//! is one line. Labels are `listener`, `protocol`, `route`, `source`, `country`, `engine`, `check`, `outcome`, `reason`,
//! `way`: words with few values. Never a host, a user, an address, or an id that a client can invent: each new value would be a new
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
    /// Requests to the API, by endpoint (never by URL), method and class of status.
    Counter API_REQUESTS = "exitgate_api_requests_total";
    /// Time that the API took over a request.
    Histogram API_SECONDS = "exitgate_api_seconds";
    /// Log lines dropped because a writer could not keep up.
    Counter LOG_LINES_LOST = "exitgate_log_lines_lost_total";
    /// Tasks that panicked: each one is a bug.
    Counter PANICS = "exitgate_task_panics_total";
    /// Tasks at work now.
    Gauge TASKS = "exitgate_tasks";
    /// 1, with the version as a label.
    Gauge BUILD_INFO = "exitgate_build_info";
    /// Connections accepted, by how they speak (`none`: it was never known).
    Counter CONNECTIONS = "exitgate_connections_total";
    /// Connections open now.
    Gauge CONNECTIONS_OPEN = "exitgate_connections_open";
    /// From accept to the first complete request of a connection: what the client takes, its TLS and its
    /// credentials included. What follows is counted from there.
    Histogram HANDSHAKE_SECONDS = "exitgate_handshake_seconds";
    /// What clients asked for and what it came to: a tunnel, a look-up or one exchange of plain HTTP each count once.
    Counter REQUESTS = "exitgate_requests_total";
    /// Streams to targets open now.
    Gauge STREAMS_OPEN = "exitgate_streams_open";
    /// From a complete request to a stream that is open at its target: choosing, dialling and failing over; by the source
    /// and country of the exit.
    Histogram OPEN_SECONDS = "exitgate_open_seconds";
    /// From a complete request to the first byte of its target, by the source and country of the exit.
    Histogram FIRST_BYTE_SECONDS = "exitgate_first_byte_seconds";
    /// Bytes relayed, while they move; `way` is `up` (client to target) or `down`.
    Counter BYTES = "exitgate_relayed_bytes_total";
    /// Named routes.
    Gauge ROUTES = "exitgate_routes";
    /// Exits that a route's pool is to have.
    Gauge POOL_WANTED = "exitgate_pool_wanted_exits";
    /// Exits that a route's pool has.
    Gauge POOL_EXITS = "exitgate_pool_exits";
    /// Different addresses among the exits of a route's pool.
    Gauge POOL_IPS = "exitgate_pool_unique_ips";
    /// Exits, by source, country and how they stand: usable, untested, bad or down.
    Gauge EXITS = "exitgate_exits";
    /// Sessions that are kept.
    Gauge SESSIONS = "exitgate_sessions";
    /// Pins that are kept.
    Gauge PINS = "exitgate_pins";
    /// Selectors in use that are no named route.
    Gauge IMPLICIT = "exitgate_implicit_routes";
    /// 1 for the state that an engine is in.
    Gauge ENGINE_STATE = "exitgate_engine_state";
    /// How far an engine has got to know the network: from 0 to 1.
    Gauge ENGINE_BOOTSTRAP = "exitgate_engine_bootstrap_ratio";
    /// Circuits of an engine: open, building, and the spares among the open ones.
    Gauge ENGINE_CIRCUITS = "exitgate_engine_circuits";
    /// What it took to build a circuit, from its order to its last hop.
    Histogram CIRCUIT_BUILD_SECONDS = "exitgate_circuit_build_seconds";
    /// Circuits that came to nothing: no path, refused, failed or too slow.
    Counter CIRCUIT_FAILURES = "exitgate_circuit_failures_total";
    /// Streams that an engine carries.
    Gauge ENGINE_STREAMS = "exitgate_engine_streams";
    /// How often an engine was started again. A gauge: it begins anew with the engine's place.
    Gauge ENGINE_RESTARTS = "exitgate_engine_restarts";
    /// Writes that wait for the store's thread.
    Gauge STORE_QUEUE = "exitgate_store_queue";
    /// 1 while the database file takes no writes and the gateway goes on from memory.
    Gauge STORE_FAILING = "exitgate_store_failing";
    /// Transactions that the database file refused, by reason.
    Counter STORE_FAULTS = "exitgate_store_faults_total";
    /// Notes (history, last uses) that were dropped: the queue was full, or the file failed for too long.
    Counter STORE_NOTES_LOST = "exitgate_store_notes_lost_total";
    /// Time that a transaction took: everything that waited when it began.
    Histogram STORE_WRITE_SECONDS = "exitgate_store_write_seconds";
    /// Requests to sources of exits, by source and outcome.
    Counter SOURCE_REQUESTS = "exitgate_source_requests_total";
    /// Exits that a source's last good answer describes.
    Gauge SOURCE_RECORDS = "exitgate_source_exits";
    /// When a source last answered well, in seconds since the epoch.
    Gauge SOURCE_GOOD = "exitgate_source_last_good_timestamp_seconds";
    /// When a source's data was made by its own word, in seconds since the epoch.
    Gauge SOURCE_PUBLISHED = "exitgate_source_published_timestamp_seconds";
    /// Checks of exits, by what they came to.
    Counter CHECKS = "exitgate_checks_total";
    /// Checks of exits against the sites of `check.targets`, by what they came to.
    Counter CHECKS_OF_SITES = "exitgate_site_checks_total";
    /// Pages of the tester that are to blame for what fails there: by target, `echo` for all echo servers, `canary`.
    Gauge CHECKS_SUSPENDED = "exitgate_checks_suspended";
    /// Exits that were caught at tampering or interception, and are never used again.
    Counter EXITS_CONDEMNED = "exitgate_exits_condemned_total";
    /// Bans made: a site refuses an exit, by the word of checks, of real traffic or of a scraper.
    Counter BANS = "exitgate_bans_total";
    /// Checks that run now.
    Gauge CHECKS_RUNNING = "exitgate_checks_running";
    /// Exits that are due for a check and wait: for the pace, or for others to end.
    Gauge CHECKS_WAITING = "exitgate_checks_waiting";
    /// Public proxies that lists name, by what the judge last said: `working`, `failed`, `untested`, `condemned`.
    Gauge PUBLIC_PROXIES = "exitgate_public_proxies";
    /// Checks of public proxies that run now.
    Gauge PUBLIC_CHECKS_RUNNING = "exitgate_public_checks_running";
    /// Public proxies that are due for a check and wait for others to end.
    Gauge PUBLIC_CHECKS_WAITING = "exitgate_public_checks_waiting";
    /// Public proxies that were given up after failures in a row.
    Counter PUBLIC_GIVEN_UP = "exitgate_public_proxies_given_up_total";
    /// What opening a stream through an exit took in a check that passed.
    Histogram CHECK_OPEN_SECONDS = "exitgate_check_open_seconds";
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
    fn names_change_only_on_purpose() {
        let names: Vec<_> = ALL.iter().map(|(name, kind, _)| format!("{name} {kind:?}")).collect();
        insta::assert_snapshot!("names", names.join("\n"));
    }

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
