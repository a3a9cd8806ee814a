//! What happened, for those who watch: to promises (pins that were made, moved or ended, and why), and to exits (caught,
//! refused by a site) and the pages that judge them.

use std::fmt;
use std::sync::Arc;

use super::ban::Site;
use super::holder::Holder;
use super::pin::Pinned;
use crate::exit::{ExitId, Moment};

/// Something that whoever runs or uses the gateway wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A strict route got its IP.
    PinMade {
        /// Whose pin it is.
        holder: Holder,
        /// What it got.
        to: Pinned,
    },
    /// A strict route's IP changed.
    PinMoved {
        /// Whose pin it is.
        holder: Holder,
        /// What it had.
        from: Pinned,
        /// What it has.
        to: Pinned,
        /// What made it move.
        cause: Cause,
    },
    /// A pin is no more; its holder's next use makes a new one.
    PinEnded {
        /// Whose pin it was.
        holder: Holder,
        /// What it had.
        was: Pinned,
        /// It went because there were too many, and not because its time was over or its route is gone.
        evicted: bool,
    },
    /// An exit was caught at what no honest one does: it is never used again.
    Condemned {
        /// The exit.
        exit: ExitId,
        /// What it did.
        why: Arc<str>,
    },
    /// A site refuses an exit.
    Banned {
        /// The site.
        site: Site,
        /// The exit.
        exit: ExitId,
        /// Until when it is kept away from there.
        until: Moment,
        /// Who says so.
        why: Arc<str>,
    },
    /// Most good exits fail a page of the tester: the page is to blame, and what fails there is held against nobody.
    Suspended {
        /// What the page is called.
        check: Arc<str>,
        /// Exits that had failed it and count as passing again.
        pardoned: usize,
    },
    /// Such a page is well again.
    Resumed {
        /// What it is called.
        check: Arc<str>,
    },
}

/// Why a pin or a session moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The exit is down, or no longer what was asked for.
    Down,
    /// A dial through it failed by its own fault.
    Failed,
    /// The target's site refuses it.
    Banned,
    /// The time that was asked for is over.
    Expired,
    /// Somebody asked for another.
    Rotated,
}

impl Cause {
    /// The word for it in the API, logs and labels.
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

/// A session's exit is another than the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it was.
    pub from: ExitId,
    /// Where it is.
    pub to: ExitId,
    /// What made it move.
    pub cause: Cause,
}

impl Event {
    /// True of what an operator may have to act on.
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
            Self::PinEnded { holder, was, evicted: false } => write!(f, "{holder} let {was} go"),
            Self::PinEnded { holder, was, evicted: true } => write!(f, "{holder} had to let {was} go: too many pins"),
            Self::Condemned { exit, why } => write!(f, "{exit} is bad for good: {why}"),
            Self::Banned { site, exit, why, .. } => write!(f, "{site} refuses {exit}: {why}"),
            Self::Suspended { check, pardoned } => write!(
                f,
                "most good exits fail `{check}`: it is suspended, nobody is banned for it, {pardoned} pass again"
            ),
            Self::Resumed { check } => write!(f, "`{check}` is well again: its verdicts count"),
        }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.ip, self.exit)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scope)?;
        if let Some(session) = &self.session {
            write!(f, "-session-{session}")?;
        }
        if self.key.is_empty() { Ok(()) } else { write!(f, " of {}", self.key) }
    }
}
