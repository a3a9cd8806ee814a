//! Why a username has no exit now: the reason, and how many exits are left after each filter step. The code calls these
//! counts the funnel.
//!
//! The message "no exit" alone does not help anybody. The counts help: for example 2,041 exits are known, 312 of them
//! are in the US, 280 of these allow the port, and none of these passed its check. This file has the types and their
//! texts. `route/choose/funnel.rs` counts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::ban::Site;
use crate::exit::{ExitId, Moment};

/// Why a connection has no exit, with the number of exits left after each filter step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({funnel})")]
pub struct NoPlan {
    pub why: Why,
    pub funnel: Funnel,
    /// Exits that nobody has checked yet, but that would be suitable if a check found them good. The gateway has these
    /// exits checked immediately.
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
        ip: IpAddr,
        /// Since when the exit has been down, as far as the gateway has seen.
        since: Moment,
        /// When the pin moves to another exit. `None` if the pin never moves by itself.
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
        ip: IpAddr,
        site: Site,
        until: Moment,
        /// The name of the route or the canonical selector. The API rotates a pin by this text.
        scope: Arc<str>,
    },
}

/// Writes the end of the text of [`Why::PinDown`]: when the pin moves.
struct MovesAt<'a>(&'a Option<Moment>);

impl fmt::Display for MovesAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "; the route moves to another exit at {at} if it is still down"),
            None => f.write_str("; the route waits for it (`repin_after = \"never\"`)"),
        }
    }
}

/// How many exits are left after each filter step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// The filter steps in order, each with the number of exits left. The first step counts all known exits.
    pub steps: Vec<(Step, usize)>,
}

/// One filter step: a condition that exits must meet. The text of a step follows a number, as in "312 in us".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every exit of the catalog.
    Known,
    /// The exit is from one of these sources.
    Source(Vec<&'static str>),
    /// The exit is in one of these countries.
    Geo(String),
    /// The exit is in the autonomous system with this number.
    Asn(u32),
    /// The exit is in a known autonomous system, and in none with these numbers.
    NotAsn(Vec<u32>),
    /// The selector requires one particular exit. The text is the fingerprint or address of that exit.
    Exit(String),
    /// The exit is up.
    Running,
    /// The exit allows connections to this port.
    Port(u16),
    /// The exit was good in its last check.
    Tested,
    /// The exit passes the route's check target.
    Check(Arc<str>),
    /// Sites see the exit with one IPv4 address. This step is for strict usernames only.
    Distinct,
    /// The exit is not banned by this site.
    NotBanned(Site),
    /// The IP of the exit is free for this pin. This step is for strict usernames only.
    Free,
}

impl Step {
    /// Returns the reason for a refusal if no exit is left after this step.
    fn why(&self) -> Why {
        match self {
            Self::Known => Why::NoneKnown,
            Self::Source(_) | Self::Geo(_) | Self::Asn(_) | Self::NotAsn(_) | Self::Exit(_) => Why::NoneMatch,
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
            Self::NotAsn(all) => {
                let names: Vec<_> = all.iter().map(|asn| format!("AS{asn}")).collect();
                write!(f, "in another AS than {}", names.join(" or "))
            }
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
    /// Returns the reason that belongs to the first step after which no exit is left. `None` if exits are left after
    /// all steps.
    pub fn reason(&self) -> Option<Why> {
        self.steps.iter().find(|(_, left)| *left == 0).map(|(step, _)| step.why())
    }

    /// Returns true if an exit may be left later although none is left now: checks may find a good one, a source may
    /// list one for the first time, or one that is down may come back. Returns false if no known exit can ever satisfy
    /// the selector.
    pub fn may_fill(&self) -> bool {
        match self.steps.iter().find(|(_, left)| *left == 0).map(|(step, _)| step) {
            Some(Step::Geo(_) | Step::Asn(_) | Step::NotAsn(_) | Step::Exit(_) | Step::Port(_)) => false,
            None | Some(_) => true,
        }
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

    #[test]
    fn a_selector_that_known_exits_cannot_satisfy_stays_without_exit() {
        let of = |step| Funnel { steps: vec![(Step::Known, 3), (step, 0), (Step::Tested, 0)] };
        for step in
            [Step::Geo("jp".into()), Step::Asn(1), Step::NotAsn(vec![1]), Step::Exit("x".into()), Step::Port(25)]
        {
            assert!(!of(step.clone()).may_fill(), "{step}");
        }
        let site = || Site::of(&crate::net::Host::Name("shop.com".into()));
        for step in [
            Step::Source(vec!["tor"]),
            Step::Running,
            Step::Tested,
            Step::Check("steam".into()),
            Step::Distinct,
            Step::NotBanned(site()),
            Step::Free,
        ] {
            assert!(of(step.clone()).may_fill(), "{step}");
        }
        let none = Funnel { steps: vec![(Step::Known, 0), (Step::Geo("jp".into()), 0)] };
        assert!(none.may_fill() && Funnel { steps: vec![(Step::Known, 3)] }.may_fill());
    }
}
