//! Why a probe failed, and whose fault it was: what a verdict may conclude from a failure depends on that.

use crate::dial::{DialError, TargetFault};

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// No stream to the page was opened.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// A certificate that is not the site's: another issuer, another name, a wrong signature.
    #[error("the certificate is not the site's")]
    Forged,
    /// A certificate that may well be the site's and cannot be accepted: expired, not valid yet, of an unknown kind.
    #[error("the certificate cannot be accepted")]
    Certificate,
    /// The two sides did not agree on TLS, or it was no TLS.
    #[error("no TLS was agreed on")]
    Tls,
    /// The stream ended, or was reset, before the answer was there.
    #[error("the stream broke off")]
    Broken,
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    Http,
    /// The stream was open and no answer came in time.
    #[error("no answer in time")]
    Slow,
    /// An echo server answered with a status other than 200.
    #[error("the echo server answered with status {0}")]
    Status(u16),
    /// An echo server's page that contains no address.
    #[error("the echo server's answer contains no address")]
    NoAddress,
    /// An echo server's answer that repeats another nonce than that of the request, or lacks it.
    #[error("the answer was not made for our request")]
    Canned,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Ours: it says nothing of the exit.
    Ours,
    Exit,
    /// The page's server's, as far as one probe can tell.
    Target,
    /// The exit's or the server's: only other probes can tell.
    Unclear,
}

impl Fault {
    pub fn blame(self) -> Blame {
        match self {
            Self::Dial(DialError::Engine(_) | DialError::Target(TargetFault::Forbidden)) => Blame::Ours,
            Self::Dial(DialError::Exit(_)) | Self::Forged | Self::Canned => Blame::Exit,
            Self::Dial(DialError::Target(_)) | Self::Certificate | Self::Status(_) => Blame::Target,
            Self::Dial(DialError::Deadline) | Self::Tls | Self::Broken | Self::Http | Self::Slow | Self::NoAddress => {
                Blame::Unclear
            }
        }
    }

    /// The code in the store and in metric labels.
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
