//! The job of one test of a public proxy, and the report of its results.

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
    /// The Tor exit through which the proxy is reached; `None` if the proxy is reached directly.
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
    /// All steps of the test. `canary` is the canary to fetch (a page that is the same for all clients): its index in
    /// the settings, and its digest if the digest is known.
    First { canary: Option<(usize, Option<Digest>)> },
    /// The long test: many requests. `tls` is true if the proxy can do TLS. The requests then use TLS.
    Long { tls: bool },
}

/// The echo servers in the order in which to use them. Each server is given by its index in the settings and a boolean,
/// which is true if the server is known to repeat nonces.
#[derive(Clone, Debug, Default)]
pub(super) struct Echoes {
    pub(super) plain: Vec<(usize, bool)>,
    pub(super) secure: Vec<(usize, bool)>,
}

/// One echo server. `secure` is true if the server uses TLS. `at` is the server's index in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) secure: bool,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(in crate::check) struct Report {
    pub(super) outcome: Outcome,
    /// Each echo server that was used, with its answer: true if the answer repeated our nonce, or the fault if there
    /// was no good answer.
    pub(super) answers: Vec<(Echo, Result<bool, Fault>)>,
    /// The canary (a page that is the same for all clients) that was fetched: its index in the settings, its digest,
    /// and true if the digest differed from the known digest twice. `None` if no canary arrived completely.
    pub(super) canary: Option<(usize, Digest, bool)>,
    pub(super) timings: Timings,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Works(Works),
    /// The long test: `passed` of `asked` requests were answered. `why` is the last fault if too few requests were
    /// answered.
    Lasts {
        passed: u16,
        asked: u16,
        why: Option<Fault>,
    },
    Fails(RejectReason),
    /// One of the gateway's own engines failed, which says nothing about the proxy.
    Open(Fault),
}

/// The facts about a proxy that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Works {
    /// The addresses from which the proxy leaves, newest last.
    pub(super) ips: Vec<IpAddr>,
    pub(super) anonymity: Anonymity,
    pub(super) tunnels: bool,
    pub(super) tls: bool,
    /// The time from the start of the connection to the proxy until the end of the answer.
    pub(super) took: Duration,
    /// The time from the start of the connection to the proxy until the stream to the target was open.
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
    /// The code of this reason in the store and in metric labels.
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
