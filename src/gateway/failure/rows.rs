//! The rows of the table of failures, one `match` for each kind of fault.

use std::time::Duration;

use super::{AnswerFault, ClientFault, Denial, Limited, NoExit, Row, row};
use crate::dial::{EngineFault, ExitFault, TargetFault};

pub(super) const fn client(fault: ClientFault) -> Row {
    const ERROR: &str = "http_request_error";
    match fault {
        ClientFault::Garbage => row(0x01, 400, ERROR, "client_garbage", "this port takes SOCKS and HTTP only"),
        ClientFault::Head => row(0x01, 400, ERROR, "client_head", "the request is malformed"),
        ClientFault::HeadTooLarge => row(0x01, 431, ERROR, "client_head_too_large", "the request's head is too large"),
        ClientFault::Version => row(0x01, 505, ERROR, "client_version", "only HTTP/1.0 and HTTP/1.1 are supported"),
        ClientFault::Body => row(0x01, 400, ERROR, "client_body", "the request's body is malformed"),
        ClientFault::Scheme => {
            row(0x01, 400, ERROR, "client_scheme", "only http:// can be forwarded: use CONNECT for everything else")
        }
        ClientFault::Target => row(0x01, 400, ERROR, "client_target", "the host or port asked for is malformed"),
        ClientFault::Expectation => {
            row(0x01, 417, ERROR, "client_expectation", "only `Expect: 100-continue` is supported")
        }
        ClientFault::Command => row(0x07, 405, ERROR, "client_command", "this command is not supported"),
        ClientFault::AddressType => row(0x08, 400, ERROR, "client_address_type", "unknown type of address"),
        ClientFault::Username => row(0x02, 400, ERROR, "client_username", "the username is not a selector"),
        ClientFault::Tls => row(0x01, 400, ERROR, "client_tls", "TLS is not offered here, or the handshake failed"),
        ClientFault::ProxyHeader => {
            row(0x01, 400, ERROR, "client_proxy_header", "the PROXY header is missing, malformed or not trusted")
        }
        ClientFault::Slow => row(0x01, 408, ERROR, "client_slow", "the request was not complete in time"),
        ClientFault::Left => row(0x01, 408, ERROR, "client_left", "the client went away"),
    }
}

pub(super) const fn denied(denial: Denial) -> Row {
    const DENIED: &str = "http_request_denied";
    match denial {
        Denial::Address => row(0x02, 403, DENIED, "denied_address", "this address may not use this route"),
        Denial::Target => row(0x02, 403, "destination_ip_prohibited", "denied_target", "the target is not allowed"),
        Denial::Port => row(0x02, 403, DENIED, "denied_port", "the target's port is not allowed"),
        Denial::Source => row(0x02, 403, DENIED, "denied_source", "this source of exits is switched off"),
        Denial::Rule => row(0x02, 403, DENIED, "denied_rule", "the route has a rule against this target"),
        Denial::Key => row(0x02, 403, DENIED, "denied_key", "this key may not use this route or source"),
    }
}

pub(super) const fn limited(limit: Limited) -> Row {
    const LIMIT: &str = "connection_limit_reached";
    match limit {
        Limited::Connections => row(0x02, 429, LIMIT, "limited_connections", "too many connections at once"),
        Limited::Rate => row(0x02, 429, LIMIT, "limited_rate", "too many new connections a second"),
        Limited::WrongKeys => row(0x02, 429, LIMIT, "limited_guesses", "too many wrong keys from this address: wait"),
        Limited::Budget => row(0x02, 429, LIMIT, "limited_budget", "the budget of this key is used up"),
    }
}

pub(super) const fn no_exit(why: NoExit) -> Row {
    const NONE: &str = "destination_unavailable";
    match why {
        NoExit::NoneMatch => row(0x03, 503, NONE, "no_exit_match", "no exit to use"),
        NoExit::NoneUsable => row(0x03, 503, NONE, "no_exit_usable", "no exit to use now"),
        NoExit::PinDown => row(0x03, 503, NONE, "no_exit_pin_down", "the one exit of this strict route is down"),
        NoExit::NoneFree => row(0x03, 503, NONE, "no_exit_free", "every exit that matches is taken by another route"),
    }
}

pub(super) const fn engine(fault: EngineFault) -> Row {
    const OURS: &str = "proxy_internal_error";
    match fault {
        EngineFault::NotReady => {
            row(0x01, 503, OURS, "engine_not_ready", "no Tor engine is ready: wait, GET /ready says what is under way")
        }
        EngineFault::Lost => row(0x01, 502, OURS, "engine_lost", "the Tor engine was lost: try again"),
        EngineFault::FirstHop => {
            let sentence = "no guard of the Tor network answers: is this machine online? GET /ready says more";
            row(0x01, 503, OURS, "engine_first_hop", sentence)
        }
        EngineFault::Middle => {
            let sentence = "the guard answers, but no relay between the guard and the exit does: try again";
            row(0x01, 503, OURS, "engine_middle", sentence)
        }
        EngineFault::Busy => {
            let sentence =
                "too many circuits are wanted at the same time: try again later, or begin fewer new sessions";
            row(0x01, 503, OURS, "engine_busy", sentence)
        }
        EngineFault::Protocol => row(0x01, 502, OURS, "engine_protocol", "the Tor engine gave an unusable answer"),
        EngineFault::Exhausted => row(
            0x01,
            503,
            OURS,
            "engine_exhausted",
            "this machine has no file descriptor, port or memory left for the Tor engine",
        ),
        EngineFault::Account => {
            let sentence = "the provider of this source refuses the account: GET /sources says why";
            row(0x01, 503, OURS, "engine_account", sentence)
        }
    }
}

/// Returns the shortest time that a client should wait until a fault of an engine is over. `None` if no such time is
/// known.
pub(super) const fn engine_pause(fault: EngineFault) -> Option<Duration> {
    match fault {
        // An engine starts within seconds. A queue of circuits, or the choice of other relays, takes about as long.
        EngineFault::NotReady | EngineFault::Middle | EngineFault::Busy => Some(Duration::from_secs(5)),
        // An engine tests a silent guard again after some seconds.
        EngineFault::FirstHop => Some(Duration::from_secs(10)),
        // The source tries the account again every minute.
        EngineFault::Account => Some(Duration::from_secs(60)),
        EngineFault::Lost | EngineFault::Protocol | EngineFault::Exhausted => None,
    }
}

pub(super) const fn exit(fault: ExitFault) -> Row {
    const GONE: &str = "connection_terminated";
    const NONE: &str = "destination_unavailable";
    match fault {
        ExitFault::Unknown => row(0x01, 502, NONE, "exit_unknown", "the exit is no longer known"),
        ExitFault::NoPath => {
            row(0x01, 502, NONE, "exit_no_path", "the exit cannot be used with the present guard or settings")
        }
        ExitFault::Unreachable => row(0x01, 502, NONE, "exit_unreachable", "the exit cannot be reached"),
        ExitFault::Died => row(0x01, 502, GONE, "exit_died", "the connection to the exit broke"),
        ExitFault::Policy => row(0x02, 502, "http_request_denied", "exit_policy", "the exit does not allow the target"),
        ExitFault::Overloaded => {
            row(0x01, 502, "connection_limit_reached", "exit_overloaded", "the exit is overloaded")
        }
        ExitFault::Hung => row(0x06, 504, "connection_timeout", "exit_hung", "the exit does not answer"),
        ExitFault::Refused => row(0x01, 502, GONE, "exit_refused", "the exit refused"),
        ExitFault::Unclear => {
            let sentence = "the public proxies report that the target failed, which may not be true";
            row(0x04, 502, "destination_unavailable", "exit_unclear", sentence)
        }
    }
}

pub(super) const fn target(fault: TargetFault) -> Row {
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
        TargetFault::Reset => {
            row(0x05, 502, "connection_terminated", "target_reset", "the target closed the connection")
        }
        TargetFault::Onion => {
            row(0x04, 502, "destination_unavailable", "target_onion", "the onion service cannot be reached")
        }
        TargetFault::Forbidden => row(
            0x02,
            403,
            "destination_ip_prohibited",
            "target_forbidden",
            "the target resolves to an address that is not allowed",
        ),
    }
}

pub(super) const fn answer(fault: AnswerFault) -> Row {
    const BAD: &str = "http_protocol_error";
    const LARGE: &str = "http_response_header_section_size";
    const CODING: &str = "http_response_transfer_coding";
    match fault {
        AnswerFault::Head => row(0x01, 502, BAD, "answer_head", "the target's answer is malformed"),
        AnswerFault::HeadTooLarge => row(0x01, 502, LARGE, "answer_head_too_large", "the answer's head is too large"),
        AnswerFault::Coding => row(0x01, 502, CODING, "answer_coding", "the answer's transfer coding is malformed"),
        AnswerFault::Incomplete => row(
            0x01,
            502,
            "http_response_incomplete",
            "answer_incomplete",
            "the target closed the connection before it had answered",
        ),
        AnswerFault::Timeout => row(0x06, 504, "http_response_timeout", "answer_timeout", "the target did not answer"),
        AnswerFault::Interim => row(0x01, 502, BAD, "answer_interim", "the target sends too many interim answers"),
        AnswerFault::Upgrade => {
            row(0x01, 502, "http_upgrade_failed", "answer_upgrade", "the target switched protocols unasked")
        }
    }
}
