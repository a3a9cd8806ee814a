//! Events for logs and `GET /events`: pins that were made, moved or ended, exits that were condemned (they tampered
//! with traffic) or banned, and check targets that were suspended or resumed.

use std::fmt;
use std::sync::Arc;

use super::ban::Site;
use super::holder::Holder;
use super::pinned::Pinned;
use crate::exit::{ExitId, Moment};

/// Something that the operator or a client should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A holder of a strict route got a pin: one fixed IP.
    PinMade { holder: Holder, to: Pinned },
    /// A pin moved from one exit to another.
    PinMoved { holder: Holder, from: Pinned, to: Pinned, cause: Cause },
    /// A pin was removed. The next use by its holder makes a new pin.
    PinEnded {
        holder: Holder,
        was: Pinned,
        /// True if the pin was removed because the table was full. False if the pin expired or its route was deleted.
        evicted: bool,
    },
    /// An exit tampered with traffic. It is not used until its condemnation ends.
    Condemned {
        exit: ExitId,
        /// How the exit tampered with traffic, in words.
        why: Arc<str>,
    },
    /// The condemnation of an exit ended, by itself or because a person ended it. The exit is checked before its next
    /// use.
    Pardoned { exit: ExitId },
    /// A site refuses an exit.
    Banned {
        site: Site,
        exit: ExitId,
        /// The exit is not used for the site until this moment.
        until: Moment,
        /// Who found out that the site refuses the exit, and how.
        why: Arc<str>,
    },
    /// A person ended a ban early. The exit may be used for the site again.
    BanLifted { site: Site, exit: ExitId },
    /// Most good exits fail a check target, so the target is at fault. Failures with this target do not count until the
    /// target works again.
    Suspended {
        /// The name of the check target.
        check: Arc<str>,
        /// How many exits had failed the check target and now count as passing again.
        pardoned: usize,
    },
    /// A suspended check target works again.
    Resumed { check: Arc<str> },
}

/// Why a pin or a session moved to another exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The exit is down, or no longer meets the selector.
    Down,
    /// A dial through the exit failed through the fault of the exit.
    Failed,
    /// The target's site refuses the exit.
    Banned,
    /// The `ttl` in the username of the session is over.
    Expired,
    /// A client or the API requested another exit, or `rotate_every` was due.
    Rotated,
}

impl Cause {
    /// The name of the cause in the API, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Failed => "failed",
            Self::Banned => "banned",
            Self::Expired => "expired",
            Self::Rotated => "rotated",
        }
    }
}

/// Reports that a session uses another exit than the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub from: ExitId,
    pub to: ExitId,
    pub cause: Cause,
}

impl Event {
    /// Returns true if the operator may have to act.
    pub fn is_grave(&self) -> bool {
        matches!(self, Self::Condemned { .. } | Self::Suspended { .. })
    }
}

impl fmt::Display for Event {
    /// Writes the event as one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PinMade { holder, to } => write!(f, "{holder} is pinned to {to}"),
            Self::PinMoved { holder, from, to, cause } => {
                write!(f, "{holder} moved from {from} to {to}: {}", cause.as_str())
            }
            Self::PinEnded { holder, was, evicted: false } => write!(f, "{holder} is no longer pinned to {was}"),
            Self::PinEnded { holder, was, evicted: true } => write!(
                f,
                "{holder} is no longer pinned to {was}: the table of pins is full, and this one was unused for longest"
            ),
            Self::Condemned { exit, why } => write!(f, "{exit} is condemned and not used for two weeks: {why}"),
            Self::Pardoned { exit } => write!(f, "{exit} is no longer condemned: it is checked before its next use"),
            Self::Banned { site, exit, why, .. } => write!(f, "{site} refuses {exit}: {why}"),
            Self::BanLifted { site, exit } => write!(f, "the ban of {exit} for {site} is lifted"),
            Self::Suspended { check, pardoned } => write!(
                f,
                "most good exits fail the check target `{check}`: it is suspended, and its failures do not count; \
                 {pardoned} exits count as passing again"
            ),
            Self::Resumed { check } => write!(f, "the check target `{check}` works again, and its results count"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scope)?;
        if let Some(session) = &self.session {
            write!(f, "-{}", session.token())?;
        }
        if self.key.is_empty() { Ok(()) } else { write!(f, " of {}", self.key) }
    }
}
