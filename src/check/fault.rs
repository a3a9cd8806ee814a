//! Why a probe failed, split by whose fault it was: the split decides everything that a verdict may conclude from it.

use crate::dial::{DialError, TargetFault};

/// Why a probe came to nothing.
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
    /// An echo server that does not serve us.
    #[error("the echo server says {0}")]
    Status(u16),
    /// An echo server's page that names no address.
    #[error("the answer holds no address")]
    NoAddress,
    /// An echo server's answer to somebody else's request, or to nobody's.
    #[error("the answer was not made for our request")]
    Canned,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// We are: nothing can be said of the exit.
    Ours,
    /// The exit is.
    Exit,
    /// The page's server is, as far as one probe can tell.
    Target,
    /// The exit or the server: only other probes can tell.
    Unclear,
}

impl Fault {
    /// Who is to blame.
    pub fn whose(self) -> Whose {
        match self {
            Self::Dial(DialError::Engine(_) | DialError::Target(TargetFault::Forbidden)) => Whose::Ours,
            Self::Dial(DialError::Exit(_)) | Self::Forged | Self::Canned => Whose::Exit,
            Self::Dial(DialError::Target(_)) | Self::Certificate | Self::Status(_) => Whose::Target,
            Self::Dial(DialError::Deadline) | Self::Tls | Self::Broken | Self::Http | Self::Slow | Self::NoAddress => {
                Whose::Unclear
            }
        }
    }

    /// The word for it in the store and in metric labels.
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
