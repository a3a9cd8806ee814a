//! Every metric: its name, kind and meaning.
//!
//! No other file spells a metric's name: dashboards are tested against this one, and a rename is one line. The labels are
//! `listener`, `protocol`, `route`, `source`, `country`, `engine`, `check`, `outcome`, `reason` and `way`, which have few
//! values. A label never holds a host, a user, an address or anything else that a client can invent, because each new value
//! is a new series.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in buckets.
    Histogram,
}

macro_rules! names {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident = $text:literal;)*) => {
        $($(#[doc = $help])+ pub const $name: &str = $text;)*
        /// All of them: name, kind, meaning.
        pub const ALL: &[(&str, Kind, &str)] = &[$(($text, Kind::$kind, concat!($($help),+))),*];
    };
}

/// Buckets of every `_seconds` histogram, by factors of about 2, which keeps the relative error of quantiles the same
/// everywhere: from 0.5 ms (a direct dial in a LAN) to 60 s (the longest deadline).
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

names! {
    /// Requests to the API, by endpoint (never by URL), method and class of status.
    Counter API_REQUESTS = "exitgate_api_requests_total";
    /// How long the API took for a request.
    Histogram API_SECONDS = "exitgate_api_seconds";
    /// Log lines dropped because a writer could not keep up.
    Counter LOG_LINES_LOST = "exitgate_log_lines_lost_total";
    /// Tasks that panicked: each one is a bug.
    Counter PANICS = "exitgate_task_panics_total";
    /// Tasks that run now.
    Gauge TASKS = "exitgate_tasks";
    /// Always 1; the version is a label.
    Gauge BUILD_INFO = "exitgate_build_info";
    /// Connections accepted, by protocol (`none`: it ended before the protocol was known).
    Counter CONNECTIONS = "exitgate_connections_total";
    /// Connections open now.
    Gauge CONNECTIONS_OPEN = "exitgate_connections_open";
    /// From accept to the first complete request of a connection: the client's share of the time, with its TLS and
    /// its credentials.
    Histogram HANDSHAKE_SECONDS = "exitgate_handshake_seconds";
    /// Requests of clients, by outcome: a tunnel, a look-up and one exchange of plain HTTP count as one each.
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
    /// Exits that a route's pool should have.
    Gauge POOL_WANTED = "exitgate_pool_wanted_exits";
    /// Exits that a route's pool has.
    Gauge POOL_EXITS = "exitgate_pool_exits";
    /// Different addresses among the exits of a route's pool.
    Gauge POOL_IPS = "exitgate_pool_unique_ips";
    /// Exits, by source, country and state: usable, untested, bad or down.
    Gauge EXITS = "exitgate_exits";
    /// Sessions that are kept.
    Gauge SESSIONS = "exitgate_sessions";
    /// Pins that are kept.
    Gauge PINS = "exitgate_pins";
    /// Selectors that usernames use and that are not a named route.
    Gauge IMPLICIT = "exitgate_implicit_routes";
    /// 1 for the current state of an engine, 0 for the others.
    Gauge ENGINE_STATE = "exitgate_engine_state";
    /// Bootstrap progress of an engine: from 0 to 1.
    Gauge ENGINE_BOOTSTRAP = "exitgate_engine_bootstrap_ratio";
    /// Circuits of an engine: open, building, and the spares among the open ones.
    Gauge ENGINE_CIRCUITS = "exitgate_engine_circuits";
    /// How long building a circuit took, from the request to its last hop.
    Histogram CIRCUIT_BUILD_SECONDS = "exitgate_circuit_build_seconds";
    /// Circuits that were not built: no path, refused, failed or too slow.
    Counter CIRCUIT_FAILURES = "exitgate_circuit_failures_total";
    /// Streams that an engine carries.
    Gauge ENGINE_STREAMS = "exitgate_engine_streams";
    /// How often an engine was started again. A gauge, because it starts at 0 when an engine replaces another.
    Gauge ENGINE_RESTARTS = "exitgate_engine_restarts";
    /// Writes that wait for the store's thread.
    Gauge STORE_QUEUE = "exitgate_store_queue";
    /// 1 while the database file cannot be written and the gateway works from memory.
    Gauge STORE_FAILING = "exitgate_store_failing";
    /// Transactions that the database file refused, by reason.
    Counter STORE_FAULTS = "exitgate_store_faults_total";
    /// Notes (check history, last uses) that were dropped: the queue was full, or writes failed for too long.
    Counter STORE_NOTES_LOST = "exitgate_store_notes_lost_total";
    /// How long a transaction took; it holds all changes that waited when it began.
    Histogram STORE_WRITE_SECONDS = "exitgate_store_write_seconds";
    /// Requests to sources of exits, by source and outcome.
    Counter SOURCE_REQUESTS = "exitgate_source_requests_total";
    /// Exits in a source's last good answer.
    Gauge SOURCE_RECORDS = "exitgate_source_exits";
    /// When a source last gave a good answer, in seconds since the epoch.
    Gauge SOURCE_GOOD = "exitgate_source_last_good_timestamp_seconds";
    /// When a source's data was made, as the source states it, in seconds since the epoch.
    Gauge SOURCE_PUBLISHED = "exitgate_source_published_timestamp_seconds";
    /// Checks of exits, by outcome.
    Counter CHECKS = "exitgate_checks_total";
    /// Checks of exits against the sites of `check.targets`, by outcome.
    Counter CHECKS_OF_SITES = "exitgate_site_checks_total";
    /// 1 for a check page that is suspended: most exits fail it, so its failures do not count. By target; `echo` is all
    /// echo servers, `canary` the page that shows tampering.
    Gauge CHECKS_SUSPENDED = "exitgate_checks_suspended";
    /// Exits that tampered with a page or intercepted TLS, and are never used again.
    Counter EXITS_CONDEMNED = "exitgate_exits_condemned_total";
    /// Bans: a site refuses an exit. By reason: a check, real traffic, or the report of a scraper.
    Counter BANS = "exitgate_bans_total";
    /// Checks that run now.
    Gauge CHECKS_RUNNING = "exitgate_checks_running";
    /// Exits that are due for a check and wait for the rate limit or for others to end.
    Gauge CHECKS_WAITING = "exitgate_checks_waiting";
    /// Public proxies of the lists, by their last verdict: `working`, `failed`, `untested`, `condemned`.
    Gauge PUBLIC_PROXIES = "exitgate_public_proxies";
    /// Checks of public proxies that run now.
    Gauge PUBLIC_CHECKS_RUNNING = "exitgate_public_checks_running";
    /// Public proxies that are due for a check and wait for others to end.
    Gauge PUBLIC_CHECKS_WAITING = "exitgate_public_checks_waiting";
    /// Public proxies that are no longer tested after failures in a row.
    Counter PUBLIC_GIVEN_UP = "exitgate_public_proxies_given_up_total";
    /// How long opening a stream through an exit took in a check that passed.
    Histogram CHECK_OPEN_SECONDS = "exitgate_check_open_seconds";
}

/// Gives the recorder the text of the `# HELP` lines.
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
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(name.starts_with("exitgate_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}: _total is for counters");
            assert!(
                help.trim().ends_with('.') || help.contains('.') || help.contains(':'),
                "{name}: say what it means"
            );
        }
    }
}
