//! Every metric: its name, kind and meaning.
//!
//! No other file contains the name of a metric. So a metric is renamed by changing one line, and a test compares the
//! dashboards with this file.
//!
//! The labels are `listener`, `protocol`, `route`, `source`, `country`, `engine`, `check`, `outcome`, `reason` and
//! `way`. Each label has few values. A label never contains a host, a user, an address or anything else that a client
//! can invent, because each new value makes a new series.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution of values, counted in buckets.
    Histogram,
}

macro_rules! names {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident = $text:literal;)*) => {
        $($(#[doc = $help])+ pub const $name: &str = $text;)*
        /// All metrics: name, kind and help text of each.
        pub const ALL: &[(&str, Kind, &str)] = &[$(($text, Kind::$kind, concat!($($help),+))),*];
    };
}

/// Upper bounds in seconds of the buckets of every `_seconds` histogram, from 0.5 ms (a direct dial in a LAN) to 60 s
/// (the longest deadline). Each bound is about twice the one before, which keeps the relative error of quantiles the
/// same everywhere.
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

names! {
    /// Requests to the API, by endpoint (never by URL), HTTP method and class of status code.
    Counter API_REQUESTS = "exitgate_api_requests_total";
    /// How long the API took to answer a request.
    Histogram API_SECONDS = "exitgate_api_seconds";
    /// Log lines that were dropped because the writer of the log was too slow.
    Counter LOG_LINES_LOST = "exitgate_log_lines_lost_total";
    /// Tasks that ended with a panic. Each panic is a bug in the gateway.
    Counter PANICS = "exitgate_task_panics_total";
    /// Tasks of the gateway that run now.
    Gauge TASKS = "exitgate_tasks";
    /// Always 1. The version of the gateway is a label.
    Gauge BUILD_INFO = "exitgate_build_info";
    /// Client connections that were accepted, by protocol. `none` means that the connection ended before its protocol
    /// was known.
    Counter CONNECTIONS = "exitgate_connections_total";
    /// Client connections that are open now.
    Gauge CONNECTIONS_OPEN = "exitgate_connections_open";
    /// Time from accepting a client connection to its first complete request, with TLS handshake and authentication.
    Histogram HANDSHAKE_SECONDS = "exitgate_handshake_seconds";
    /// Requests of clients, by outcome. A tunnel, a DNS look-up and one exchange of plain HTTP count as one request
    /// each.
    Counter REQUESTS = "exitgate_requests_total";
    /// Streams to targets that are open now.
    Gauge STREAMS_OPEN = "exitgate_streams_open";
    /// Time from a complete request to an open stream to its target, by source and country of the exit. This includes
    /// the choice of the exit, the dial and retries on other exits.
    Histogram OPEN_SECONDS = "exitgate_open_seconds";
    /// Time from a complete request to the first byte from its target, by source and country of the exit.
    Histogram FIRST_BYTE_SECONDS = "exitgate_first_byte_seconds";
    /// Bytes relayed so far, counted while they are relayed. `way` is `up` (client to target) or `down` (target to
    /// client).
    Counter BYTES = "exitgate_relayed_bytes_total";
    /// Requests that an exit served, by route and source of the exit. A request whose stream broke off counts too.
    Counter ROUTE_SOURCE_REQUESTS = "exitgate_route_source_requests_total";
    /// Bytes relayed so far, by route, source of the exit and direction (`way`). For paid sources these are paid bytes.
    Counter ROUTE_SOURCE_BYTES = "exitgate_route_source_bytes_total";
    /// Changes of the source with which requests to a site begin, by route and `reason`: `begun_banned`, `begun_failed`,
    /// `ended`, `returned`, `useless`, or `evicted` if a site was forgotten because too many were remembered.
    Counter ESCALATIONS = "exitgate_escalations_total";
    /// Keys of clients, by where they were created: `config` or `api`.
    Gauge KEYS = "exitgate_keys";
    /// Keys that have nearly used one of their budgets (`near`: 80 %), or used one up (`spent`).
    Gauge KEY_BUDGETS = "exitgate_key_budgets";
    /// Named routes that exist now.
    Gauge ROUTES = "exitgate_routes";
    /// Exits that the pool of a route should have.
    Gauge POOL_WANTED = "exitgate_pool_wanted_exits";
    /// Exits that the pool of a route has now.
    Gauge POOL_EXITS = "exitgate_pool_exits";
    /// Different IP addresses among the exits of a route's pool.
    Gauge POOL_IPS = "exitgate_pool_unique_ips";
    /// Known exits, by source, country and state: usable, untested, bad or down.
    Gauge EXITS = "exitgate_exits";
    /// Sessions that the gateway keeps now.
    Gauge SESSIONS = "exitgate_sessions";
    /// Pins that the gateway keeps now.
    Gauge PINS = "exitgate_pins";
    /// Selectors that appear in usernames and are not a named route.
    Gauge IMPLICIT = "exitgate_implicit_routes";
    /// 1 for the current state of an engine (a tor process), 0 for its other states.
    Gauge ENGINE_STATE = "exitgate_engine_state";
    /// 1 while the guard of an engine (the first relay of all its circuits) answers, otherwise 0.
    Gauge ENGINE_GUARD_UP = "exitgate_engine_guard_up";
    /// Bootstrap progress of an engine, from 0 to 1.
    Gauge ENGINE_BOOTSTRAP = "exitgate_engine_bootstrap_ratio";
    /// Circuits of an engine, by kind: open, building, and spare. Spares are also counted as open.
    Gauge ENGINE_CIRCUITS = "exitgate_engine_circuits";
    /// How long the build of a circuit took, from the request to its last hop.
    Histogram CIRCUIT_BUILD_SECONDS = "exitgate_circuit_build_seconds";
    /// Circuits whose build failed: no path was found, a relay refused, the build broke, or it was too slow.
    Counter CIRCUIT_FAILURES = "exitgate_circuit_failures_total";
    /// Streams that an engine carries now.
    Gauge ENGINE_STREAMS = "exitgate_engine_streams";
    /// Restarts of an engine so far. This is a gauge because it starts again at 0 when another engine takes the place.
    Gauge ENGINE_RESTARTS = "exitgate_engine_restarts";
    /// 1 if the Tor network does not recommend the engine's version of tor, otherwise 0.
    Gauge ENGINE_OUTDATED = "exitgate_engine_outdated";
    /// Writes that wait for the thread of the database.
    Gauge STORE_QUEUE = "exitgate_store_queue";
    /// 1 while the database file cannot be written and the gateway works from memory, otherwise 0.
    Gauge STORE_FAILING = "exitgate_store_failing";
    /// Database transactions that failed, by reason.
    Counter STORE_FAULTS = "exitgate_store_faults_total";
    /// Records of check history and last uses that were dropped, because the queue was full or writes failed for too
    /// long.
    Counter STORE_NOTES_LOST = "exitgate_store_notes_lost_total";
    /// How long a database transaction took. One transaction contains all changes that waited when it began.
    Histogram STORE_WRITE_SECONDS = "exitgate_store_write_seconds";
    /// Requests to sources of exits, by source and outcome.
    Counter SOURCE_REQUESTS = "exitgate_source_requests_total";
    /// Exits in the last good answer of a source.
    Gauge SOURCE_RECORDS = "exitgate_source_exits";
    /// Time of the last good answer of a source, in seconds since 1970.
    Gauge SOURCE_GOOD = "exitgate_source_last_good_timestamp_seconds";
    /// Time when the data of a source was made, as stated by the source, in seconds since 1970.
    Gauge SOURCE_PUBLISHED = "exitgate_source_published_timestamp_seconds";
    /// Checks of exits that ended, by outcome.
    Counter CHECKS = "exitgate_checks_total";
    /// Checks of exits against the sites of `check.targets` that ended, by outcome.
    Counter CHECKS_OF_SITES = "exitgate_site_checks_total";
    /// 1 for a check target that is suspended because most exits fail it, so its failures do not count. The target
    /// `echo` means all echo servers, and `canary` means the page that shows tampering.
    Gauge CHECKS_SUSPENDED = "exitgate_checks_suspended";
    /// Requests of checks to all echo servers together.
    Counter ECHO_REQUESTS = "exitgate_echo_requests_total";
    /// Requests that checks may make by themselves to the echo server with the least left of its budget.
    Gauge ECHO_BUDGET = "exitgate_echo_budget_requests";
    /// Exits that tampered with pages or intercepted TLS of two hosts. The gateway does not use them for two weeks.
    Counter EXITS_CONDEMNED = "exitgate_exits_condemned_total";
    /// Bans of an exit for a site that refuses this exit, by reason: a check, real traffic, or the report of a scraper.
    Counter BANS = "exitgate_bans_total";
    /// Checks of exits that run now.
    Gauge CHECKS_RUNNING = "exitgate_checks_running";
    /// Exits that are due for a check and wait for the rate limit or for the end of other checks.
    Gauge CHECKS_WAITING = "exitgate_checks_waiting";
    /// Public proxies of the lists, by the verdict of their last check: `working`, `failed`, `untested`, `condemned`.
    Gauge PUBLIC_PROXIES = "exitgate_public_proxies";
    /// Checks of public proxies that run now.
    Gauge PUBLIC_CHECKS_RUNNING = "exitgate_public_checks_running";
    /// Public proxies that are due for a check and wait for the end of other checks.
    Gauge PUBLIC_CHECKS_WAITING = "exitgate_public_checks_waiting";
    /// Public proxies that are no longer checked, because several checks in a row failed.
    Counter PUBLIC_GIVEN_UP = "exitgate_public_proxies_given_up_total";
    /// How long the opening of a stream through an exit took, in checks that passed.
    Histogram CHECK_OPEN_SECONDS = "exitgate_check_open_seconds";
}

/// Registers the help text of every metric, which the exporter writes into the `# HELP` lines.
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
