//! What can be written: the same words for a change that somebody asked for and for what was merely noticed.

use rusqlite::Connection;

use super::bans::{self, Ban};
use super::checks::{self, Check};
use super::exits::{self, Exit, Observed, Verdict};
use super::meta::{self, Source};
use super::pins;
use super::public::{self, Public};
use super::routes::{self, Route};
use super::sessions;
use crate::exit::{ExitId, PublicId};
use crate::route::Holder;
use crate::route::memory;
use crate::route::pin::PinRecord;
use crate::route::session::SessionRecord;

/// One thing to write. A `Put` replaces what stood under the same key, a `Drop` of what is not there does nothing: any
/// of them may be written twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A route of the API.
    PutRoute(Route),
    /// That route is gone.
    DropRoute(String),
    /// A pin.
    PutPin(PinRecord),
    /// That pin is gone.
    DropPin(Holder),
    /// A session, or its new last use.
    PutSession(SessionRecord),
    /// That session is gone.
    DropSession(Holder),
    /// A ban.
    PutBan(Ban),
    /// An exit as its source describes it.
    PutExit(Exit),
    /// That exit is gone for good: its addresses, verdicts and checks go with it.
    DropExit(ExitId),
    /// An exit was seen with an address. Adds up with what was seen before.
    Saw(Observed),
    /// How an exit stands.
    PutVerdict(Verdict),
    /// One check, for the history. The only one that must not be written twice.
    Check(Check),
    /// How a source fares.
    PutSource(Source),
    /// A public proxy.
    PutPublic(Public),
    /// That public proxy is gone.
    DropPublic(PublicId),
    /// A small fact with a name.
    PutMeta(&'static str, String),
}

impl From<memory::Change> for Write {
    fn from(change: memory::Change) -> Self {
        match change {
            memory::Change::PinPut(pin) => Self::PutPin(pin),
            memory::Change::PinGone(holder) => Self::DropPin(holder),
            memory::Change::SessionPut(session) => Self::PutSession(session),
            memory::Change::SessionGone(holder) => Self::DropSession(holder),
        }
    }
}

/// Writes one thing inside the open transaction.
pub(super) fn apply(db: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::PutRoute(route) => routes::put(db, route),
        Write::DropRoute(name) => routes::drop(db, name),
        Write::PutPin(pin) => pins::put(db, pin),
        Write::DropPin(holder) => pins::drop(db, holder),
        Write::PutSession(session) => sessions::put(db, session),
        Write::DropSession(holder) => sessions::drop(db, holder),
        Write::PutBan(ban) => bans::put(db, ban),
        Write::PutExit(exit) => exits::put(db, exit),
        Write::DropExit(id) => exits::drop(db, id),
        Write::Saw(seen) => exits::saw(db, seen),
        Write::PutVerdict(verdict) => exits::put_verdict(db, verdict),
        Write::Check(check) => checks::put(db, check),
        Write::PutSource(source) => meta::put_source(db, source),
        Write::PutPublic(public) => public::put(db, public),
        Write::DropPublic(id) => public::drop(db, id),
        Write::PutMeta(key, value) => meta::put(db, key, value),
    }
}
