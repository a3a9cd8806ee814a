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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    #[test]
    fn people_read_the_address_first() {
        let pinned = Pinned { exit: ExitId::Tor(Fingerprint([0xab; 20])), ip: [198, 18, 0, 1].into() };
        assert_eq!(pinned.to_string(), format!("198.18.0.1 ({})", pinned.exit));
    }
}
