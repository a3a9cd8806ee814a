//! What happened to a promise: pins that were made, moved or ended, sessions that had to move, and why.

use std::fmt;

use super::holder::Holder;
use super::pin::Pinned;
use crate::exit::ExitId;

/// Something that whoever made a promise, or relies on it, wants to hear of.
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
