//! The job of one test of a public proxy, and its report.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::fault::Fault;
use super::super::tamper_check::Digest;
use crate::exit::{Anonymity, ExitId, Fingerprint, Offer, PublicId};
use crate::store::Timings;

/// The proxy to test.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) id: ExitId,
    pub(super) public: Arc<PublicId>,
    pub(super) offer: Arc<Offer>,
    /// The Tor exit through which the proxy is reached, if it is to be.
    pub(super) carrier: Option<Fingerprint>,
}

#[derive(Clone, Debug)]
pub(in crate::check) struct Job {
    pub(super) subject: Subject,
    pub(super) test: Test,
    pub(super) echoes: Echoes,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    /// All steps; with the canary to fetch, by its place in the settings, and its digest, if that is known.
    First { canary: Option<(usize, Option<Digest>)> },
    /// Many requests, over TLS if the proxy can.
    Long { tls: bool },
}

/// The echo servers to ask first, each by its place in the settings, and whether it is known to repeat nonces.
#[derive(Clone, Debug, Default)]
pub(super) struct Echoes {
    pub(super) plain: Vec<(usize, bool)>,
    pub(super) secure: Vec<(usize, bool)>,
}

/// One echo server, in the clear or over TLS, by its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) secure: bool,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(in crate::check) struct Report {
    pub(super) outcome: Outcome,
    /// The echo servers that were asked, and whether the answer repeated our nonce.
    pub(super) answers: Vec<(Echo, Result<bool, Fault>)>,
    /// The canary that was fetched, its digest, and whether that differed from the known one twice.
    pub(super) canary: Option<(usize, Digest, bool)>,
    pub(super) timings: Timings,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Works(Works),
    /// The long test: `passed` of `asked` requests were answered; `why` is the last fault if too few were.
    Lasts {
        passed: u16,
        asked: u16,
        why: Option<Fault>,
    },
    Fails(RejectReason),
    /// An engine of ours failed, which says nothing of the proxy.
    Open(Fault),
}

/// What is found of a proxy that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Works {
    /// The addresses that it leaves from, newest last.
    pub(super) ips: Vec<IpAddr>,
    pub(super) anonymity: Anonymity,
    pub(super) tunnels: bool,
    pub(super) tls: bool,
    /// From the connection to the proxy to the end of an answer.
    pub(super) took: Duration,
    /// From the connection to the proxy to an open stream.
    pub(super) connect: Duration,
}

/// Why a proxy is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum RejectReason {
    #[error("{0}")]
    Fault(Fault),
    #[error("echo servers see different addresses, or the proxy forges their answers")]
    Disagree,
    #[error("it shows certificates that are not the sites'")]
    Intercepts,
    #[error("it changes pages")]
    Changes,
    #[error("too many of its requests fail")]
    Unreliable,
}

impl RejectReason {
    /// The code in the store and in metric labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Disagree => "disagree",
            Self::Intercepts => "intercepts",
            Self::Changes => "changed",
            Self::Unreliable => "unreliable",
        }
    }
}
