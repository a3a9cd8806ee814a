//! Events for logs and `GET /events`: pins that were made, moved or ended, exits that were condemned or banned, check
//! targets that were suspended or resumed.

use std::fmt;
use std::sync::Arc;

use super::ban::Site;
use super::holder::Holder;
use super::pinned::Pinned;
use crate::exit::{ExitId, Moment};

/// Something that the operator or a client should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A strict route got its IP.
    PinMade { holder: Holder, to: Pinned },
    /// A strict route's IP changed.
    PinMoved { holder: Holder, from: Pinned, to: Pinned, cause: Cause },
    /// A pin was removed; the next use of its holder makes a new one.
    PinEnded {
        holder: Holder,
        was: Pinned,
        /// It was removed because the table was full, and not because it expired or its route was deleted.
        evicted: bool,
    },
    /// An exit tampered with traffic; it is never used again.
    Condemned {
        exit: ExitId,
        /// What it did.
        why: Arc<str>,
    },
    /// A site refuses an exit.
    Banned {
        site: Site,
        exit: ExitId,
        /// The exit is not used for the site until then.
        until: Moment,
        /// Who found out, and how.
        why: Arc<str>,
    },
    /// Most good exits fail a check target, so the target is at fault: failures there do not count for now.
    Suspended {
        /// The name of the check target.
        check: Arc<str>,
        /// How many exits had failed it and count as passing again.
        pardoned: usize,
    },
    /// A suspended check target works again.
    Resumed { check: Arc<str> },
}

/// Why a pin or a session moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The exit is down, or no longer has what the selector asks for.
    Down,
    /// A dial through the exit failed by the exit's fault.
    Failed,
    /// The target's site refuses the exit.
    Banned,
    /// The stated time of the session is over.
    Expired,
    /// A client or the API asked for another exit, or `rotate_every` was due.
    Rotated,
}

impl Cause {
    /// The word in the API, logs and metric labels.
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

/// A session uses another exit than the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub from: ExitId,
    pub to: ExitId,
    pub cause: Cause,
}

impl Event {
    /// True if the operator may have to act.
    pub fn is_grave(&self) -> bool {
        matches!(self, Self::Condemned { .. } | Self::Suspended { .. })
    }
}

impl fmt::Display for Event {
    /// One line for a log.
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
            Self::Condemned { exit, why } => write!(f, "{exit} is never used again: {why}"),
            Self::Banned { site, exit, why, .. } => write!(f, "{site} refuses {exit}: {why}"),
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
