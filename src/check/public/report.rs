//! What is asked of one test, and what it reports.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::fault::Fault;
use super::super::tamper_check::Digest;
use crate::exit::{Anonymity, ExitId, Fingerprint, Offer, PublicId};
use crate::store::Timings;

/// Whom to test.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) id: ExitId,
    pub(super) public: Arc<PublicId>,
    pub(super) offer: Arc<Offer>,
    /// The Tor exit before it, if it is to have one.
    pub(super) carrier: Option<Fingerprint>,
}

/// What to test.
#[derive(Clone, Debug)]
pub(in crate::check) struct Job {
    pub(super) subject: Subject,
    pub(super) test: Test,
    pub(super) echoes: Echoes,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Everything; with the page that is the same for everybody to look at, and what it is, if that is known.
    First { canary: Option<(usize, Option<Digest>)> },
    /// Many requests, over TLS where it can.
    Long { tls: bool },
}

/// Echo servers, those first that are in better health, and which of them repeat a nonce.
#[derive(Clone, Debug, Default)]
pub(super) struct Echoes {
    pub(super) plain: Vec<(usize, bool)>,
    pub(super) secure: Vec<(usize, bool)>,
}

/// One echo server: in the clear or over TLS, by its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) secure: bool,
    pub(super) at: usize,
}

/// What a test found.
#[derive(Debug)]
pub(in crate::check) struct Report {
    pub(super) outcome: Outcome,
    /// What echo servers were asked and how they answered: whether they repeated our nonce.
    pub(super) answers: Vec<(Echo, Result<bool, Fault>)>,
    /// A page that is the same for everybody: which, what it was, and whether it was another than is known, twice.
    pub(super) canary: Option<(usize, Digest, bool)>,
    pub(super) timings: Timings,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// It works.
    Works(Works),
    /// So many of so many requests came back well.
    Lasts { passed: u16, asked: u16, why: Option<Fault> },
    /// It does not work.
    Fails(RejectReason),
    /// Nothing can be said: what failed was ours.
    Open(Fault),
}

/// A proxy that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Works {
    /// Where it leaves from, newest last.
    pub(super) ips: Vec<IpAddr>,
    pub(super) anonymity: Anonymity,
    pub(super) tunnels: bool,
    pub(super) tls: bool,
    /// From the connection to the end of an answer.
    pub(super) took: Duration,
    /// To an open stream.
    pub(super) connect: Duration,
}

/// RejectReason a proxy is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum RejectReason {
    #[error("{0}")]
    Fault(Fault),
    #[error("echo servers see different addresses, or it speaks for them")]
    Disagree,
    #[error("it shows certificates that are not the sites'")]
    Intercepts,
    #[error("it changes pages on their way")]
    Changes,
    #[error("too many of its requests fail")]
    Unreliable,
}

impl RejectReason {
    /// The word for it in metric labels.
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
