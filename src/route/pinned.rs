//! What a pin keeps: an exit and the address that sites see.

use std::fmt;
use std::net::IpAddr;

use crate::exit::ExitId;

/// An exit, with the address that sites saw when the exit was pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub exit: ExitId,
    pub ip: IpAddr,
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.ip, self.exit)
    }
}
