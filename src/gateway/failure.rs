//! The complete list of failures of requests. The failures are grouped by who is at fault, because that decides what a
//! client should do next.
//!
//! Each failure has a SOCKS5 reply code, a SOCKS4 code, an HTTP status, an RFC 9209 `Proxy-Status` error, a metric
//! label and a sentence for people. These values stand in `match` expressions without a wildcard, one row per failure.
//! Therefore a new failure without a row does not compile. The enum is `Copy` and holds no text. Details, for example
//! the wrong token of a username or the limit that was reached, are in a [`Refusal`](super::gate::Refusal).
//!
//! The HTTP statuses follow the behaviour of crawlers, which retry 408, 429 and most of 5xx. A failure that a retry
//! cannot cure (a bad username, a forbidden target, a wrong key) is therefore a 400, 403 or 407.
//!
//! After a tunnel is open, a reset or an EOF is not a failure but a normal end: see [`super::record`].

mod rows;

use std::time::Duration;

use self::rows::{answer, client, denied, engine, engine_pause, exit, limited, no_exit, target};
use crate::dial::{DialError, EngineFault, ExitFault, TargetFault};
use crate::telemetry::history::AtFault;

/// The reason why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The client's request is wrong. The client must send a different request.
    Client(ClientFault),
    /// The client's key is missing or wrong.
    Auth(AuthFault),
    /// The configuration forbids the request.
    Denied(Denial),
    /// The client has reached a limit. The client may try again later.
    Limited(Limited),
    /// No exit matches the selector or can be used now. The gateway never uses an exit of another country or source
    /// instead.
    NoExit(NoExit),
    /// A fault of the Tor engine.
    Engine(EngineFault),
    /// A fault of the exit. The request was also tried through other exits, as many as the settings allow.
    Exit(ExitFault),
    /// A fault of the target: the request would fail through every exit.
    Target(TargetFault),
    /// The target's HTTP answer is malformed, incomplete or too late. Only plain HTTP requests can fail for this
    /// reason.
    Answer(AnswerFault),
    /// The deadline passed before the gateway knew who was at fault.
    Deadline,
    /// The gateway is shutting down, or the route is being removed.
    Draining,
}

/// Faults of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientFault {
    /// The first bytes are neither SOCKS nor HTTP.
    Garbage,
    /// The HTTP head is malformed, or two parsers could read the head differently.
    Head,
    HeadTooLarge,
    /// The HTTP version is not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The chunks of the body are malformed, or the body of a report to exit.gate cannot be read.
    Body,
    /// The request target is an absolute URL whose scheme is not `http://`.
    Scheme,
    /// The host or the port of the target is invalid.
    Target,
    /// The `Expect` field has a value other than `100-continue`.
    Expectation,
    /// The SOCKS command is not CONNECT, RESOLVE or RESOLVE_PTR.
    Command,
    /// The SOCKS5 address type is not defined in RFC 1928.
    AddressType,
    /// The username is no valid selector. The refusal's detail contains the wrong token.
    Username,
    /// The client used TLS on a listener without TLS, or the TLS handshake failed.
    Tls,
    /// The PROXY header is missing or malformed, or its sender is not a trusted peer.
    ProxyHeader,
    /// The client did not send the complete request in time.
    Slow,
    /// The client closed the connection before it got an answer.
    Left,
}

/// Faults of a client's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFault {
    Missing,
    Wrong,
    /// This listener requires a username (but no key), and the client sent none.
    Nameless,
}

/// What the configuration forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The client's address is not in the route's setting `allow`.
    Address,
    /// The target is a private, loopback or metadata address, or a listener of the gateway itself.
    Target,
    /// The target's port is forbidden.
    Port,
    /// The source of exits is switched off (`direct` without `allow_direct`).
    Source,
    /// A rule of the route refuses the target, or leads to a route that does not exist.
    Rule,
    /// The client's key may not use the route or the source.
    Key,
}

/// Which limit the client has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// The limit for the number of connections that are open at the same time.
    Connections,
    /// The limit for the number of new connections per second.
    Rate,
    /// The limit for the number of different wrong keys from the client's address.
    WrongKeys,
    /// A budget of the client's key for a day or a month.
    Budget,
}

/// The reason why no exit could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoExit {
    /// No known exit satisfies the selector.
    NoneMatch,
    /// Some exits match the selector, but at the moment none of them is up, tested and allowed for this target.
    NoneUsable,
    /// The route is strict and pinned to one exit, and this exit is down.
    PinDown,
    /// Some exits match the selector, but each of them is pinned by an exclusive route.
    NoneFree,
}

/// Faults of a target's HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerFault {
    /// The head of the answer is malformed, or two parsers could read this head differently.
    Head,
    HeadTooLarge,
    /// The answer uses a transfer coding that the request did not allow, or the chunks of the body are malformed.
    Coding,
    /// The target's connection ended before the answer was complete.
    Incomplete,
    /// The target did not answer in time.
    Timeout,
    /// The target sent too many interim answers (status 1xx).
    Interim,
    /// The target switched to another protocol although the request did not offer a switch.
    Upgrade,
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Engine(fault) => Self::Engine(fault),
            DialError::Exit(fault) => Self::Exit(fault),
            DialError::Target(fault) => Self::Target(fault),
            DialError::Deadline => Self::Deadline,
        }
    }
}

/// The codes and texts by which a client or an operator sees one failure. The SOCKS4 code is not included, because it
/// is the same for nearly all failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    socks5: u8,
    status: u16,
    token: &'static str,
    label: &'static str,
    sentence: &'static str,
}

const fn row(socks5: u8, status: u16, token: &'static str, label: &'static str, sentence: &'static str) -> Row {
    Row { socks5, status, token, label, sentence }
}

impl Failure {
    /// Returns the SOCKS5 reply code (RFC 1928, section 6).
    pub fn socks5(self) -> u8 {
        self.row().socks5
    }

    /// Returns the SOCKS4 code: 0x5D for a wrong userid, 0x5B for all other failures.
    pub fn socks4(self) -> u8 {
        if matches!(self, Self::Auth(_)) { 0x5D } else { 0x5B }
    }

    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Returns the `error` parameter of the field `Proxy-Status` (RFC 9209, section 2.3).
    pub fn token(self) -> &'static str {
        self.row().token
    }

    /// Returns the text that metric labels and the access line's field `outcome` use for this failure.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Returns a sentence for people that says what happened.
    pub fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// Returns who was at fault, for the history that the console shows.
    pub fn at_fault(self) -> AtFault {
        match self {
            Self::Client(_) | Self::Auth(_) | Self::Denied(_) | Self::Limited(_) => AtFault::Client,
            Self::NoExit(_) => AtFault::NoExit,
            Self::Engine(_) | Self::Draining => AtFault::Gateway,
            Self::Exit(_) => AtFault::Exit,
            Self::Target(_) | Self::Answer(_) => AtFault::Target,
            Self::Deadline => AtFault::Unknown,
        }
    }

    /// Returns how long a client should wait before it tries again. `None` if that time is not known, or if another try
    /// cannot help.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Engine(fault) => engine_pause(fault),
            _ => None,
        }
    }

    /// Returns true if the gateway does not know where the failed request ends. The connection can then serve no
    /// further request.
    pub fn breaks_framing(self) -> bool {
        matches!(self, Self::Client(fault) if !matches!(fault, ClientFault::Scheme | ClientFault::Target | ClientFault::Username))
    }

    fn row(self) -> Row {
        match self {
            Self::Client(fault) => client(fault),
            Self::Auth(AuthFault::Missing) => row(0x02, 407, "http_request_denied", "auth_missing", "a key is needed"),
            Self::Auth(AuthFault::Wrong) => row(0x02, 407, "http_request_denied", "auth_wrong", "the key is wrong"),
            Self::Auth(AuthFault::Nameless) => {
                row(0x02, 407, "http_request_denied", "auth_nameless", "a username is needed: it selects the exit")
            }
            Self::Denied(denial) => denied(denial),
            Self::Limited(limit) => limited(limit),
            Self::NoExit(why) => no_exit(why),
            Self::Engine(fault) => engine(fault),
            Self::Exit(fault) => exit(fault),
            Self::Target(fault) => target(fault),
            Self::Answer(fault) => answer(fault),
            Self::Deadline => {
                let sentence = "no stream was open in time, and nothing is known to have failed: try again";
                row(0x06, 504, "connection_timeout", "deadline", sentence)
            }
            Self::Draining => row(0x01, 503, "proxy_internal_response", "draining", "this port is shutting down"),
        }
    }
}

#[cfg(test)]
mod document;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The values that clients rely on: SOCKS5 code, HTTP status, `Proxy-Status` error, metric label.
    #[rustfmt::skip]
    pub(super) const CONTRACT: &[(Failure, u8, u16, &str, &str)] = &[
        (Failure::Auth(AuthFault::Missing), 2, 407, "http_request_denied", "auth_missing"),
        (Failure::Auth(AuthFault::Wrong), 2, 407, "http_request_denied", "auth_wrong"),
        (Failure::Auth(AuthFault::Nameless), 2, 407, "http_request_denied", "auth_nameless"),
        (Failure::Deadline, 6, 504, "connection_timeout", "deadline"),
        (Failure::Draining, 1, 503, "proxy_internal_response", "draining"),
        (Failure::Client(ClientFault::Garbage), 1, 400, "http_request_error", "client_garbage"),
        (Failure::Client(ClientFault::Head), 1, 400, "http_request_error", "client_head"),
        (Failure::Client(ClientFault::HeadTooLarge), 1, 431, "http_request_error", "client_head_too_large"),
        (Failure::Client(ClientFault::Version), 1, 505, "http_request_error", "client_version"),
        (Failure::Client(ClientFault::Body), 1, 400, "http_request_error", "client_body"),
        (Failure::Client(ClientFault::Scheme), 1, 400, "http_request_error", "client_scheme"),
        (Failure::Client(ClientFault::Target), 1, 400, "http_request_error", "client_target"),
        (Failure::Client(ClientFault::Expectation), 1, 417, "http_request_error", "client_expectation"),
        (Failure::Client(ClientFault::Command), 7, 405, "http_request_error", "client_command"),
        (Failure::Client(ClientFault::AddressType), 8, 400, "http_request_error", "client_address_type"),
        (Failure::Client(ClientFault::Username), 2, 400, "http_request_error", "client_username"),
        (Failure::Client(ClientFault::Tls), 1, 400, "http_request_error", "client_tls"),
        (Failure::Client(ClientFault::ProxyHeader), 1, 400, "http_request_error", "client_proxy_header"),
        (Failure::Client(ClientFault::Slow), 1, 408, "http_request_error", "client_slow"),
        (Failure::Client(ClientFault::Left), 1, 408, "http_request_error", "client_left"),
        (Failure::Denied(Denial::Address), 2, 403, "http_request_denied", "denied_address"),
        (Failure::Denied(Denial::Target), 2, 403, "destination_ip_prohibited", "denied_target"),
        (Failure::Denied(Denial::Port), 2, 403, "http_request_denied", "denied_port"),
        (Failure::Denied(Denial::Source), 2, 403, "http_request_denied", "denied_source"),
        (Failure::Denied(Denial::Rule), 2, 403, "http_request_denied", "denied_rule"),
        (Failure::Denied(Denial::Key), 2, 403, "http_request_denied", "denied_key"),
        (Failure::Limited(Limited::Connections), 2, 429, "connection_limit_reached", "limited_connections"),
        (Failure::Limited(Limited::Rate), 2, 429, "connection_limit_reached", "limited_rate"),
        (Failure::Limited(Limited::WrongKeys), 2, 429, "connection_limit_reached", "limited_guesses"),
        (Failure::Limited(Limited::Budget), 2, 429, "connection_limit_reached", "limited_budget"),
        (Failure::NoExit(NoExit::NoneMatch), 3, 503, "destination_unavailable", "no_exit_match"),
        (Failure::NoExit(NoExit::NoneUsable), 3, 503, "destination_unavailable", "no_exit_usable"),
        (Failure::NoExit(NoExit::PinDown), 3, 503, "destination_unavailable", "no_exit_pin_down"),
        (Failure::NoExit(NoExit::NoneFree), 3, 503, "destination_unavailable", "no_exit_free"),
        (Failure::Engine(EngineFault::NotReady), 1, 503, "proxy_internal_error", "engine_not_ready"),
        (Failure::Engine(EngineFault::Lost), 1, 502, "proxy_internal_error", "engine_lost"),
        (Failure::Engine(EngineFault::FirstHop), 1, 503, "proxy_internal_error", "engine_first_hop"),
        (Failure::Engine(EngineFault::Middle), 1, 503, "proxy_internal_error", "engine_middle"),
        (Failure::Engine(EngineFault::Busy), 1, 503, "proxy_internal_error", "engine_busy"),
        (Failure::Engine(EngineFault::Protocol), 1, 502, "proxy_internal_error", "engine_protocol"),
        (Failure::Engine(EngineFault::Exhausted), 1, 503, "proxy_internal_error", "engine_exhausted"),
        (Failure::Engine(EngineFault::Account), 1, 503, "proxy_internal_error", "engine_account"),
        (Failure::Exit(ExitFault::Unknown), 1, 502, "destination_unavailable", "exit_unknown"),
        (Failure::Exit(ExitFault::NoPath), 1, 502, "destination_unavailable", "exit_no_path"),
        (Failure::Exit(ExitFault::Unreachable), 1, 502, "destination_unavailable", "exit_unreachable"),
        (Failure::Exit(ExitFault::Died), 1, 502, "connection_terminated", "exit_died"),
        (Failure::Exit(ExitFault::Policy), 2, 502, "http_request_denied", "exit_policy"),
        (Failure::Exit(ExitFault::Overloaded), 1, 502, "connection_limit_reached", "exit_overloaded"),
        (Failure::Exit(ExitFault::Hung), 6, 504, "connection_timeout", "exit_hung"),
        (Failure::Exit(ExitFault::Refused), 1, 502, "connection_terminated", "exit_refused"),
        (Failure::Exit(ExitFault::Unclear), 4, 502, "destination_unavailable", "exit_unclear"),
        (Failure::Target(TargetFault::Refused), 5, 502, "connection_refused", "target_refused"),
        (Failure::Target(TargetFault::NoSuchName), 4, 502, "dns_error", "target_no_such_name"),
        (Failure::Target(TargetFault::NameFailed), 4, 502, "dns_error", "target_name_failed"),
        (Failure::Target(TargetFault::Unreachable), 4, 502, "destination_ip_unroutable", "target_unreachable"),
        (Failure::Target(TargetFault::Timeout), 6, 504, "connection_timeout", "target_timeout"),
        (Failure::Target(TargetFault::Reset), 5, 502, "connection_terminated", "target_reset"),
        (Failure::Target(TargetFault::Onion), 4, 502, "destination_unavailable", "target_onion"),
        (Failure::Target(TargetFault::Forbidden), 2, 403, "destination_ip_prohibited", "target_forbidden"),
        (Failure::Answer(AnswerFault::Head), 1, 502, "http_protocol_error", "answer_head"),
        (Failure::Answer(AnswerFault::HeadTooLarge), 1, 502, "http_response_header_section_size", "answer_head_too_large"),
        (Failure::Answer(AnswerFault::Coding), 1, 502, "http_response_transfer_coding", "answer_coding"),
        (Failure::Answer(AnswerFault::Incomplete), 1, 502, "http_response_incomplete", "answer_incomplete"),
        (Failure::Answer(AnswerFault::Timeout), 6, 504, "http_response_timeout", "answer_timeout"),
        (Failure::Answer(AnswerFault::Interim), 1, 502, "http_protocol_error", "answer_interim"),
        (Failure::Answer(AnswerFault::Upgrade), 1, 502, "http_upgrade_failed", "answer_upgrade"),
    ];

    #[test]
    fn the_history_blames_the_party_that_the_label_names() {
        for (failure, _, _, _, label) in CONTRACT {
            let want = match label.split('_').next() {
                Some("client" | "auth" | "denied" | "limited") => AtFault::Client,
                Some("no") => AtFault::NoExit,
                Some("engine" | "draining") => AtFault::Gateway,
                Some("exit") => AtFault::Exit,
                Some("target" | "answer") => AtFault::Target,
                _ => AtFault::Unknown,
            };
            assert_eq!(failure.at_fault(), want, "{label}");
        }
    }

    #[test]
    fn every_failure_keeps_its_contract() {
        for &(failure, socks5, status, token, label) in CONTRACT {
            let is = (failure.socks5(), failure.status(), failure.token(), failure.label());
            assert_eq!(is, (socks5, status, token, label), "{failure:?}");
        }
    }

    #[test]
    fn no_failure_is_missing_from_the_table() {
        let source = include_str!("failure.rs").split("#[cfg(test)]").next().unwrap();
        let source = [source, include_str!("failure/rows.rs")].concat();
        assert_eq!(
            source.split_whitespace().collect::<String>().matches("row(0x").count(),
            CONTRACT.len(),
            "one row in the code, one line in this table"
        );
        let labels: BTreeSet<_> = CONTRACT.iter().map(|line| line.4).collect();
        assert_eq!(labels.len(), CONTRACT.len(), "each label stands for one failure");
    }

    #[test]
    fn every_code_and_sentence_is_valid_where_it_is_written() {
        for &(failure, ..) in CONTRACT {
            assert!((1..=8).contains(&failure.socks5()), "{failure:?}");
            assert!((400..600).contains(&failure.status()), "{failure:?}");
            assert!(failure.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{failure:?}");
            // The sentence is written unchanged into an HTTP header and into a quoted string of `Proxy-Status`.
            assert!(failure.sentence().bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'));
        }
        assert_eq!(Failure::Auth(AuthFault::Wrong).socks4(), 0x5D);
        assert_eq!(Failure::NoExit(NoExit::NoneMatch).socks4(), 0x5B);
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        for &(failure, _, status, ..) in CONTRACT {
            let waits = matches!(
                failure,
                Failure::Engine(
                    EngineFault::NotReady
                        | EngineFault::FirstHop
                        | EngineFault::Middle
                        | EngineFault::Busy
                        | EngineFault::Account
                )
            );
            assert_eq!(failure.retry_after().is_some(), waits, "{failure:?}");
            assert!(!waits || status == 503, "Retry-After belongs to a 503: {failure:?}");
        }
    }

    #[test]
    fn a_dial_error_becomes_the_failure_of_the_same_name() {
        for (error, failure) in [
            (DialError::Engine(EngineFault::Lost), Failure::Engine(EngineFault::Lost)),
            (DialError::Exit(ExitFault::Hung), Failure::Exit(ExitFault::Hung)),
            (DialError::Target(TargetFault::Refused), Failure::Target(TargetFault::Refused)),
            (DialError::Deadline, Failure::Deadline),
        ] {
            assert_eq!(Failure::from(error), failure);
        }
    }
}
