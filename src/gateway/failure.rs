//! The closed list of why not, split by place: whose fault it was decides what a client should do about it.
//!
//! One failure has to be said in five languages: a SOCKS5 reply code, a SOCKS4 code, an HTTP status with an RFC 9209
//! `Proxy-Status`, a metric label and a sentence for people. They stand side by side in one row for each failure, in
//! matches without a wildcard, so that a new failure cannot be added without saying all five and nobody has to guess
//! which status goes with which code. The enum is `Copy` and holds no text: what only the refuser knows (which token
//! of a username, which limit) travels beside it in a [`Refusal`](super::gate::Refusal).
//!
//! After a tunnel is open, a reset or an EOF is an end and not a failure: see [`super::record`].

use crate::dial::{DialError, EngineFault, ExitFault, TargetFault};

/// Why a client did not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// What the client sent: it must send something else.
    Client(ClientFault),
    /// Who the client is: it must bring another key.
    Auth(AuthFault),
    /// What our rules forbid: it must ask for something else, or ask the owner.
    Denied(Denial),
    /// How much the client takes: it may try again later.
    Limited(Limited),
    /// No exit satisfies the selector: never a fallback to another country or source.
    NoExit(NoExit),
    /// The machinery between us and the exit.
    Engine(EngineFault),
    /// The exit, after every other exit that the plan allowed.
    Exit(ExitFault),
    /// The target: every exit would see the same.
    Target(TargetFault),
    /// The target's HTTP answer, where we can see it.
    Answer(AnswerFault),
    /// The deadline for opening passed before anybody could be blamed.
    Deadline,
    /// Ours.
    Ours(OurFault),
    /// We are shutting down, or the route is.
    Draining,
}

/// What is wrong with what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientFault {
    /// No protocol that the port speaks.
    Garbage,
    /// A malformed HTTP head, or one that two parsers could read in two ways.
    Head,
    /// An HTTP head beyond the limits.
    HeadTooLarge,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// A request body whose chunks are malformed.
    Body,
    /// An absolute-form request for something else than `http://`.
    Scheme,
    /// A host or port that cannot be.
    Target,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// A SOCKS command other than CONNECT, RESOLVE and RESOLVE_PTR.
    Command,
    /// A SOCKS5 address type that nobody has defined.
    AddressType,
    /// A username that is no selector: the detail names the token.
    Username,
    /// A username that names a route which does not exist.
    Route,
    /// TLS where none is configured, or a handshake that failed.
    Tls,
    /// A PROXY header that is missing, malformed, or not this peer's to send.
    ProxyHeader,
    /// The request was not complete in time.
    Slow,
    /// The client went away before it was answered.
    Left,
}

/// What is wrong with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFault {
    /// None was given.
    Missing,
    /// No key of ours.
    Wrong,
    /// Nobody needs a key here, but everybody must say a username.
    Nameless,
}

/// What our rules forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The client's address is not in the route's `allow`.
    Address,
    /// A private, loopback or metadata address, or one of our own listeners.
    Target,
    /// The target's port is not allowed.
    Port,
    /// The source is switched off (`direct` without `allow_direct`).
    Source,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Connections at once.
    Connections,
    /// New connections a second.
    Rate,
    /// Wrong keys from this address.
    WrongKeys,
}

/// Why no exit could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoExit {
    /// No exit that we know satisfies the selector.
    NoneMatch,
    /// Some match, and none is tested, allowed and unbanned for this target now.
    NoneUsable,
    /// The exit that a strict route is pinned to is down.
    PinDown,
    /// Every exit that matches belongs to somebody else exclusively.
    NoneFree,
}

/// What is wrong with the target's HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerFault {
    /// A malformed head, or one that two parsers could read in two ways.
    Head,
    /// A head beyond the limits.
    HeadTooLarge,
    /// A transfer coding that was not asked for, or malformed chunks.
    Coding,
    /// The connection ended before the answer did.
    Incomplete,
    /// No answer in time.
    Timeout,
    /// Interim answers without end.
    Interim,
    /// A switch of protocols that nobody asked for.
    Upgrade,
}

/// What is wrong with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OurFault {
    /// A bug: the log knows more.
    Bug,
    /// Out of file descriptors, ports or memory.
    Resources,
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

/// One failure in every language but SOCKS4, whose single refusal code says nothing.
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
    /// The SOCKS5 reply code (RFC 1928, section 6).
    pub fn socks5(self) -> u8 {
        self.row().socks5
    }

    /// The SOCKS4 code: 0x5D where the userid is to blame, else the plain refusal.
    pub fn socks4(self) -> u8 {
        if matches!(self, Self::Auth(_)) { 0x5D } else { 0x5B }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The `error` of `Proxy-Status` (RFC 9209, section 2.3).
    pub fn token(self) -> &'static str {
        self.row().token
    }

    /// The metric label and the outcome in the access line.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// What happened, for people.
    pub fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// True where the bytes that follow on the connection can no longer be told apart: it must be closed.
    pub fn breaks_framing(self) -> bool {
        matches!(self, Self::Client(fault) if !matches!(fault, ClientFault::Scheme | ClientFault::Target | ClientFault::Username | ClientFault::Route))
    }

    fn row(self) -> Row {
        match self {
            Self::Client(fault) => client(fault),
            Self::Auth(AuthFault::Missing) => row(0x02, 407, "http_request_denied", "auth_missing", "a key is needed"),
            Self::Auth(AuthFault::Wrong) => row(0x02, 407, "http_request_denied", "auth_wrong", "the key is wrong"),
            Self::Auth(AuthFault::Nameless) => {
                row(0x02, 407, "http_request_denied", "auth_nameless", "a username is needed: it says which way out")
            }
            Self::Denied(denial) => denied(denial),
            Self::Limited(limit) => limited(limit),
            Self::NoExit(why) => no_exit(why),
            Self::Engine(fault) => engine(fault),
            Self::Exit(fault) => exit(fault),
            Self::Target(fault) => target(fault),
            Self::Answer(fault) => answer(fault),
            Self::Deadline => {
                row(0x06, 504, "connection_timeout", "deadline", "no way out was open before the deadline")
            }
            Self::Ours(OurFault::Bug) => row(0x01, 500, "proxy_internal_error", "ours_bug", "exitgate failed"),
            Self::Ours(OurFault::Resources) => {
                row(0x01, 503, "proxy_internal_error", "ours_resources", "exitgate is out of a local resource")
            }
            Self::Draining => row(0x01, 503, "proxy_internal_response", "draining", "this port is shutting down"),
        }
    }
}

const fn client(fault: ClientFault) -> Row {
    const ERROR: &str = "http_request_error";
    match fault {
        ClientFault::Garbage => row(0x01, 400, ERROR, "client_garbage", "this is no protocol that this port speaks"),
        ClientFault::Head => row(0x01, 400, ERROR, "client_head", "the request is malformed"),
        ClientFault::HeadTooLarge => row(0x01, 431, ERROR, "client_head_too_large", "the request's head is too large"),
        ClientFault::Version => row(0x01, 505, ERROR, "client_version", "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        ClientFault::Body => row(0x01, 400, ERROR, "client_body", "the request's body is malformed"),
        ClientFault::Scheme => {
            row(0x01, 400, ERROR, "client_scheme", "only http:// can be forwarded: use CONNECT for everything else")
        }
        ClientFault::Target => row(0x01, 400, ERROR, "client_target", "the host or port asked for is malformed"),
        ClientFault::Expectation => row(0x01, 417, ERROR, "client_expectation", "only 100-continue can be expected"),
        ClientFault::Command => row(0x07, 405, ERROR, "client_command", "this command is not supported"),
        ClientFault::AddressType => row(0x08, 400, ERROR, "client_address_type", "this type of address does not exist"),
        ClientFault::Username => row(0x02, 400, ERROR, "client_username", "the username is no selector"),
        ClientFault::Route => row(0x02, 400, ERROR, "client_route", "there is no such route"),
        ClientFault::Tls => row(0x01, 400, ERROR, "client_tls", "TLS is not possible here"),
        ClientFault::ProxyHeader => {
            row(0x01, 400, ERROR, "client_proxy_header", "the PROXY header is missing, malformed or not trusted")
        }
        ClientFault::Slow => row(0x01, 408, ERROR, "client_slow", "the request was not complete in time"),
        ClientFault::Left => row(0x01, 408, ERROR, "client_left", "the client went away"),
    }
}

const fn denied(denial: Denial) -> Row {
    const DENIED: &str = "http_request_denied";
    match denial {
        Denial::Address => row(0x02, 403, DENIED, "denied_address", "this address may not use this route"),
        Denial::Target => row(0x02, 403, "destination_ip_prohibited", "denied_target", "the target is not allowed"),
        Denial::Port => row(0x02, 403, DENIED, "denied_port", "the target's port is not allowed"),
        Denial::Source => row(0x02, 403, DENIED, "denied_source", "this source of exits is switched off"),
    }
}

const fn limited(limit: Limited) -> Row {
    const LIMIT: &str = "connection_limit_reached";
    match limit {
        Limited::Connections => row(0x02, 429, LIMIT, "limited_connections", "too many connections at once"),
        Limited::Rate => row(0x02, 429, LIMIT, "limited_rate", "too many new connections a second"),
        Limited::WrongKeys => row(0x02, 429, LIMIT, "limited_guesses", "too many wrong keys: wait before the next"),
    }
}

const fn no_exit(why: NoExit) -> Row {
    const NONE: &str = "destination_unavailable";
    match why {
        NoExit::NoneMatch => row(0x03, 503, NONE, "no_exit_match", "no exit satisfies the selector"),
        NoExit::NoneUsable => row(0x03, 503, NONE, "no_exit_usable", "no tested exit satisfies the selector now"),
        NoExit::PinDown => row(0x03, 503, NONE, "no_exit_pin_down", "the one exit of this strict route is down"),
        NoExit::NoneFree => row(0x03, 503, NONE, "no_exit_free", "every exit that matches belongs to another route"),
    }
}

const fn engine(fault: EngineFault) -> Row {
    const OURS: &str = "proxy_internal_error";
    match fault {
        EngineFault::NotReady => row(0x01, 503, OURS, "engine_not_ready", "no Tor engine is ready"),
        EngineFault::Lost => row(0x01, 502, OURS, "engine_lost", "the Tor engine was lost"),
        EngineFault::Protocol => row(0x01, 502, OURS, "engine_protocol", "the Tor engine gave an unusable answer"),
        EngineFault::Exhausted => row(0x01, 503, OURS, "engine_exhausted", "the Tor engine is out of a resource"),
    }
}

const fn exit(fault: ExitFault) -> Row {
    const GONE: &str = "connection_terminated";
    const NONE: &str = "destination_unavailable";
    match fault {
        ExitFault::Unknown => row(0x01, 502, NONE, "exit_unknown", "the exit is no longer known"),
        ExitFault::NoPath => row(0x01, 502, NONE, "exit_no_path", "no path leads to the exit"),
        ExitFault::Unreachable => row(0x01, 502, NONE, "exit_unreachable", "the exit cannot be reached"),
        ExitFault::Died => row(0x01, 502, GONE, "exit_died", "the way to the exit broke"),
        ExitFault::Policy => row(0x02, 502, "http_request_denied", "exit_policy", "the exit does not allow the target"),
        ExitFault::Overloaded => {
            row(0x01, 502, "connection_limit_reached", "exit_overloaded", "the exit is overloaded")
        }
        ExitFault::Hung => row(0x06, 504, "connection_timeout", "exit_hung", "the exit does not answer"),
        ExitFault::Refused => row(0x01, 502, GONE, "exit_refused", "the exit refused"),
        ExitFault::Unclear => {
            let sentence = "the exits say that the target failed, and nobody vouches for that";
            row(0x04, 502, "destination_unavailable", "exit_unclear", sentence)
        }
    }
}

const fn target(fault: TargetFault) -> Row {
    match fault {
        TargetFault::Refused => row(0x05, 502, "connection_refused", "target_refused", "the target refused"),
        TargetFault::NoSuchName => {
            row(0x04, 502, "dns_error", "target_no_such_name", "the target's name does not exist")
        }
        TargetFault::NameFailed => row(0x04, 502, "dns_error", "target_name_failed", "the name could not be resolved"),
        TargetFault::Unreachable => {
            row(0x04, 502, "destination_ip_unroutable", "target_unreachable", "the target cannot be reached")
        }
        TargetFault::Timeout => row(0x06, 504, "connection_timeout", "target_timeout", "the target does not answer"),
        TargetFault::Reset => row(0x05, 502, "connection_terminated", "target_reset", "the target hung up"),
        TargetFault::Onion => {
            row(0x04, 502, "destination_unavailable", "target_onion", "the onion service cannot be reached")
        }
        TargetFault::Forbidden => row(
            0x02,
            403,
            "destination_ip_prohibited",
            "target_forbidden",
            "the target resolves to what is not allowed",
        ),
    }
}

const fn answer(fault: AnswerFault) -> Row {
    const BAD: &str = "http_protocol_error";
    const LARGE: &str = "http_response_header_section_size";
    const CODING: &str = "http_response_transfer_coding";
    match fault {
        AnswerFault::Head => row(0x01, 502, BAD, "answer_head", "the target's answer is malformed"),
        AnswerFault::HeadTooLarge => row(0x01, 502, LARGE, "answer_head_too_large", "the answer's head is too large"),
        AnswerFault::Coding => row(0x01, 502, CODING, "answer_coding", "the answer's transfer coding is malformed"),
        AnswerFault::Incomplete => {
            row(0x01, 502, "http_response_incomplete", "answer_incomplete", "the target hung up before it had answered")
        }
        AnswerFault::Timeout => row(0x06, 504, "http_response_timeout", "answer_timeout", "the target did not answer"),
        AnswerFault::Interim => row(0x01, 502, BAD, "answer_interim", "the target sends interim answers without end"),
        AnswerFault::Upgrade => {
            row(0x01, 502, "http_upgrade_failed", "answer_upgrade", "the target switched protocols unasked")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What clients were promised: SOCKS5 code, HTTP status, `Proxy-Status` error, label.
    #[rustfmt::skip]
    const PROMISED: &[(Failure, u8, u16, &str, &str)] = &[
        (Failure::Auth(AuthFault::Missing), 2, 407, "http_request_denied", "auth_missing"),
        (Failure::Auth(AuthFault::Wrong), 2, 407, "http_request_denied", "auth_wrong"),
        (Failure::Auth(AuthFault::Nameless), 2, 407, "http_request_denied", "auth_nameless"),
        (Failure::Deadline, 6, 504, "connection_timeout", "deadline"),
        (Failure::Ours(OurFault::Bug), 1, 500, "proxy_internal_error", "ours_bug"),
        (Failure::Ours(OurFault::Resources), 1, 503, "proxy_internal_error", "ours_resources"),
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
        (Failure::Client(ClientFault::Route), 2, 400, "http_request_error", "client_route"),
        (Failure::Client(ClientFault::Tls), 1, 400, "http_request_error", "client_tls"),
        (Failure::Client(ClientFault::ProxyHeader), 1, 400, "http_request_error", "client_proxy_header"),
        (Failure::Client(ClientFault::Slow), 1, 408, "http_request_error", "client_slow"),
        (Failure::Client(ClientFault::Left), 1, 408, "http_request_error", "client_left"),
        (Failure::Denied(Denial::Address), 2, 403, "http_request_denied", "denied_address"),
        (Failure::Denied(Denial::Target), 2, 403, "destination_ip_prohibited", "denied_target"),
        (Failure::Denied(Denial::Port), 2, 403, "http_request_denied", "denied_port"),
        (Failure::Denied(Denial::Source), 2, 403, "http_request_denied", "denied_source"),
        (Failure::Limited(Limited::Connections), 2, 429, "connection_limit_reached", "limited_connections"),
        (Failure::Limited(Limited::Rate), 2, 429, "connection_limit_reached", "limited_rate"),
        (Failure::Limited(Limited::WrongKeys), 2, 429, "connection_limit_reached", "limited_guesses"),
        (Failure::NoExit(NoExit::NoneMatch), 3, 503, "destination_unavailable", "no_exit_match"),
        (Failure::NoExit(NoExit::NoneUsable), 3, 503, "destination_unavailable", "no_exit_usable"),
        (Failure::NoExit(NoExit::PinDown), 3, 503, "destination_unavailable", "no_exit_pin_down"),
        (Failure::NoExit(NoExit::NoneFree), 3, 503, "destination_unavailable", "no_exit_free"),
        (Failure::Engine(EngineFault::NotReady), 1, 503, "proxy_internal_error", "engine_not_ready"),
        (Failure::Engine(EngineFault::Lost), 1, 502, "proxy_internal_error", "engine_lost"),
        (Failure::Engine(EngineFault::Protocol), 1, 502, "proxy_internal_error", "engine_protocol"),
        (Failure::Engine(EngineFault::Exhausted), 1, 503, "proxy_internal_error", "engine_exhausted"),
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
    fn every_failure_says_what_was_promised() {
        for &(failure, socks5, status, token, label) in PROMISED {
            let said = (failure.socks5(), failure.status(), failure.token(), failure.label());
            assert_eq!(said, (socks5, status, token, label), "{failure:?}");
        }
    }

    #[test]
    fn no_failure_is_missing_from_the_table() {
        let source = include_str!("failure.rs").split("#[cfg(test)]").next().unwrap();
        assert_eq!(
            source.split_whitespace().collect::<String>().matches("row(0x").count(),
            PROMISED.len(),
            "one row in the code, one promise in the table"
        );
        let labels: BTreeSet<_> = PROMISED.iter().map(|promise| promise.4).collect();
        assert_eq!(labels.len(), PROMISED.len(), "each label stands for one failure");
    }

    #[test]
    fn what_is_said_can_be_said() {
        for &(failure, ..) in PROMISED {
            assert!((1..=8).contains(&failure.socks5()), "{failure:?}");
            assert!((400..600).contains(&failure.status()), "{failure:?}");
            assert!(failure.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{failure:?}");
            // Into a header and a quoted string of `Proxy-Status` as it is.
            assert!(failure.sentence().bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'));
        }
        assert_eq!(Failure::Auth(AuthFault::Wrong).socks4(), 0x5D);
        assert_eq!(Failure::NoExit(NoExit::NoneMatch).socks4(), 0x5B);
    }

    #[test]
    fn a_dial_error_keeps_its_place() {
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
