//! Why a probe failed, and who caused the failure. A verdict may draw different conclusions from different causes.

use crate::dial::{DialError, TargetFault};

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The stream to the page could not be opened.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The certificate does not belong to the site: another issuer, another name, or a wrong signature.
    #[error("the certificate is not the site's")]
    Forged,
    /// The certificate may belong to the site, but cannot be accepted: it is expired, not valid yet, or of an unknown
    /// kind.
    #[error("the certificate cannot be accepted")]
    Certificate,
    /// Our client and the server did not agree on TLS parameters, or the server did not answer with TLS.
    #[error("no TLS was agreed on")]
    Tls,
    /// The stream ended, or was reset, before the answer was complete.
    #[error("the stream broke off")]
    Broken,
    /// The bytes that arrived are not HTTP.
    #[error("the answer is not HTTP")]
    Http,
    /// The stream was open, but no answer arrived in time.
    #[error("no answer in time")]
    Slow,
    /// An echo server answered with a status other than 200.
    #[error("the echo server answered with status {0}")]
    Status(u16),
    /// The page of an echo server contains no address.
    #[error("the echo server's answer contains no address")]
    NoAddress,
    /// The answer of an echo server repeats another nonce than the one in the request, or repeats no nonce.
    #[error("the answer was not made for our request")]
    Canned,
}

/// Who caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The gateway itself (for example, a Tor engine) caused the failure, so the failure says nothing about the exit.
    Ours,
    Exit,
    /// The server of the page caused the failure, as far as one probe can show.
    Target,
    /// The exit or the server caused the failure. Only other probes can show which of them.
    Unclear,
}

impl Fault {
    pub fn blame(self) -> Blame {
        match self {
            // If the deadline passed and no relay or target was known to be silent, the circuit or the dial itself was
            // late.
            Self::Dial(DialError::Engine(_) | DialError::Deadline | DialError::Target(TargetFault::Forbidden)) => {
                Blame::Ours
            }
            Self::Dial(DialError::Exit(_)) | Self::Forged | Self::Canned => Blame::Exit,
            Self::Dial(DialError::Target(_)) | Self::Certificate | Self::Status(_) => Blame::Target,
            Self::Tls | Self::Broken | Self::Http | Self::Slow | Self::NoAddress => Blame::Unclear,
        }
    }

    /// The code of this fault in the store and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dial(DialError::Engine(_)) => "engine",
            Self::Dial(DialError::Exit(_)) => "exit",
            Self::Dial(DialError::Target(_)) => "target",
            Self::Dial(DialError::Deadline) | Self::Slow => "timeout",
            Self::Forged => "forged",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Http => "http",
            Self::Status(_) => "status",
            Self::NoAddress => "no_address",
            Self::Canned => "canned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::{EngineFault, ExitFault};

    #[test]
    fn nothing_before_the_exit_is_the_exits_fault() {
        for (fault, want) in [
            (DialError::Engine(EngineFault::FirstHop), Blame::Ours),
            (DialError::Engine(EngineFault::Middle), Blame::Ours),
            (DialError::Engine(EngineFault::Busy), Blame::Ours),
            (DialError::Engine(EngineFault::NotReady), Blame::Ours),
            (DialError::Deadline, Blame::Ours),
            (DialError::Target(TargetFault::Forbidden), Blame::Ours),
            (DialError::Exit(ExitFault::Hung), Blame::Exit),
            (DialError::Exit(ExitFault::Unreachable), Blame::Exit),
            (DialError::Target(TargetFault::Timeout), Blame::Target),
        ] {
            assert_eq!(Fault::from(fault).blame(), want, "{fault:?}");
        }
        for (fault, want) in
            [(Fault::Slow, Blame::Unclear), (Fault::Broken, Blame::Unclear), (Fault::Forged, Blame::Exit)]
        {
            assert_eq!(fault.blame(), want, "{fault:?}");
        }
    }

    /// The codes stand in the store and in metric labels, so they must stay the same.
    #[test]
    fn each_fault_has_its_code() {
        for (fault, code) in [
            (DialError::Engine(EngineFault::FirstHop).into(), "engine"),
            (DialError::Exit(ExitFault::Hung).into(), "exit"),
            (DialError::Target(TargetFault::Refused).into(), "target"),
            (DialError::Deadline.into(), "timeout"),
            (Fault::Slow, "timeout"),
            (Fault::Forged, "forged"),
            (Fault::Certificate, "certificate"),
            (Fault::Tls, "tls"),
            (Fault::Broken, "broken"),
            (Fault::Http, "http"),
            (Fault::Status(503), "status"),
            (Fault::NoAddress, "no_address"),
            (Fault::Canned, "canned"),
        ] {
            assert_eq!(fault.as_str(), code, "{fault:?}");
        }
    }
}
