//! Why a username has no exit now: the reason, and the funnel of counts that shows where all exits were lost.
//!
//! "No exit" alone helps nobody. The funnel does: 2,041 known, 312 in the US, 280 that allow the port, none that passed
//! its check. These are the types and their texts; `route/choose/funnel.rs` counts.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ban::Site;
use crate::exit::{ExitId, Moment};

/// Why a connection has no exit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({funnel})")]
pub struct Refusal {
    pub why: Why,
    pub funnel: Funnel,
    /// Exits that would do if a check found them good, and that nobody has checked yet. The gateway has them checked at
    /// once.
    pub untested: Vec<ExitId>,
}

/// The reason why there is no exit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("no source has listed an exit yet; `GET /ready` shows what exitgate waits for")]
    NoneKnown,
    #[error("none of the known exits has the source, country, AS or address asked for")]
    NoneMatch,
    #[error("every exit that matches is down")]
    NoneRunning,
    #[error("no exit that matches allows connections to this port")]
    PortRefused,
    #[error("no exit that matches has passed its latest check")]
    NoneTested,
    #[error("no exit that matches passes the check target of the route")]
    NonePass,
    #[error("no exit that matches has one single known IPv4 address, which a strict route needs")]
    NoneDistinct,
    #[error("the site has banned every exit that matches")]
    AllBanned,
    #[error("every exit that matches has already failed for this request")]
    AllFailed,
    #[error(
        "this route does not connect to IPv6 targets, where exits show an address that no check has seen; \
         `ipv6 = true` in the route allows it"
    )]
    Ipv6,
    #[error("the IP of every exit that matches is in use by another pin")]
    Exclusive,
    #[error("the pinned exit {exit} ({ip}) is down{}", MovesAt(.repin_at))]
    PinDown {
        exit: ExitId,
        ip: Ipv4Addr,
        /// Since when it has been seen to be down.
        since: Moment,
        /// When the pin moves to another exit; `None`: never by itself.
        repin_at: Option<Moment>,
    },
    #[error("the pinned exit {exit} does not allow connections to this port")]
    PinPort { exit: ExitId },
    #[error(
        "the pinned exit {exit} ({ip}) is banned or was reported for {site} until {until}; \
         wait, or rotate the route: `exitgate routes rotate {scope}` or `POST /proxies/{scope}/rotate`"
    )]
    PinBanned {
        exit: ExitId,
        ip: Ipv4Addr,
        site: Site,
        until: Moment,
        /// The route's name or the canonical selector: what the API rotates.
        scope: Arc<str>,
    },
}

/// The end of the text of [`Why::PinDown`].
struct MovesAt<'a>(&'a Option<Moment>);

impl fmt::Display for MovesAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "; the route moves to another exit at {at} if it is still down"),
            None => f.write_str("; the route waits for it (`repin_after = \"never\"`)"),
        }
    }
}

/// How many exits are left after each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// The steps in order; the first is all exits that are known.
    pub steps: Vec<(Step, usize)>,
}

/// One condition that exits must meet; its text follows a number: "312 in us".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every exit of the catalog.
    Known,
    /// From one of these sources.
    Source(Vec<&'static str>),
    /// In these countries.
    Geo(String),
    /// In this AS.
    Asn(u32),
    /// This exit.
    Exit(String),
    /// Up.
    Running,
    /// Allows connections to this port.
    Port(u16),
    /// Good in its latest check.
    Tested,
    /// Passes the route's check target.
    Check(Arc<str>),
    /// Seen with one IPv4 address (strict only).
    Distinct,
    /// Not banned by this site.
    NotBanned(Site),
    /// Its IP is free for this pin (strict only).
    Free,
}

impl Step {
    /// The reason to give if no exit is left after this step.
    fn why(&self) -> Why {
        match self {
            Self::Known => Why::NoneKnown,
            Self::Source(_) | Self::Geo(_) | Self::Asn(_) | Self::Exit(_) => Why::NoneMatch,
            Self::Running => Why::NoneRunning,
            Self::Port(_) => Why::PortRefused,
            Self::Tested => Why::NoneTested,
            Self::Check(_) => Why::NonePass,
            Self::Distinct => Why::NoneDistinct,
            Self::NotBanned(_) => Why::AllBanned,
            Self::Free => Why::Exclusive,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known"),
            Self::Source(sources) => write!(f, "from source {}", sources.join(" or ")),
            Self::Geo(place) => write!(f, "in {place}"),
            Self::Asn(asn) => write!(f, "in AS{asn}"),
            Self::Exit(exit) => write!(f, "are {exit}"),
            Self::Running => f.write_str("up"),
            Self::Port(port) => write!(f, "allow {port}"),
            Self::Tested => f.write_str("tested"),
            Self::Check(check) => write!(f, "pass {check}"),
            Self::Distinct => f.write_str("with one known IP"),
            Self::NotBanned(site) => write!(f, "not banned by {site}"),
            Self::Free => f.write_str("with an IP free for this pin"),
        }
    }
}

impl fmt::Display for Funnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().enumerate().try_for_each(|(at, (step, left))| {
            let joint = if at == 0 { "" } else { " -> " };
            write!(f, "{joint}{left} {step}")
        })
    }
}

impl Funnel {
    /// The reason that belongs to the first step without exits; `None` if exits are left.
    pub(super) fn reason(&self) -> Option<Why> {
        self.steps.iter().find(|(_, left)| *left == 0).map(|(step, _)| step.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_known_exit_the_reason_is_that_no_source_has_answered() {
        let of = |known| Funnel { steps: vec![(Step::Known, known), (Step::Geo("jp".into()), 0)] };
        assert_eq!((of(0).reason(), of(3).reason()), (Some(Why::NoneKnown), Some(Why::NoneMatch)));
    }
}
