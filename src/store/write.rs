//! All kinds of writes to the database. A write can be committed or noted. A *commit* is on the disk before its call
//! returns. A *note* is written later, and nobody waits for it.

use rusqlite::Connection;

use super::bans::{self, Ban};
use super::checks::{self, Check};
use super::exits::{self, Exit, Observed, Verdict};
use super::keys::{self, Key, KeyUsage};
use super::meta::{self, Source};
use super::pins;
use super::public::{self, Public};
use super::routes::{self, Route};
use super::sessions;
use crate::exit::{ExitId, Moment, PublicId};
use crate::route::Holder;
use crate::route::memory;
use crate::route::pin::PinRecord;
use crate::route::session::SessionRecord;

/// One thing to write. A `Put` replaces the row that has the same key. A `Drop` of a missing row does nothing. So every
/// write can be repeated without harm, except [`Write::Check`].
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Stores a route that the API created.
    PutRoute(Route),
    DropRoute(String),
    /// Stores a key that the API created.
    PutKey(Key),
    DropKey(String),
    /// Stores what keys have used.
    PutKeyUsage(Vec<KeyUsage>),
    /// Deletes what the key with this name and this time of creation has used.
    DropKeyUsage(String, Moment),
    PutPin(PinRecord),
    DropPin(Holder),
    /// Stores a session, or the new time of its last use.
    PutSession(SessionRecord),
    DropSession(Holder),
    PutBan(Ban),
    /// Stores an exit as its source describes it.
    PutExit(Exit),
    /// Deletes the exit with its addresses, verdicts and checks.
    DropExit(ExitId),
    /// Records that an echo server saw an address of an exit. If there is a row for this address, the counter and the
    /// times in the row are updated.
    Saw(Observed),
    PutVerdict(Verdict),
    /// Adds one check to the history.
    Check(Check),
    /// Stores the status of a source.
    PutSource(Source),
    PutPublic(Public),
    /// Deletes the public proxy with its checks.
    DropPublic(PublicId),
    /// Stores a single value by name.
    PutMeta(&'static str, String),
    DropMeta(&'static str),
}

/// The row that a write replaces or deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowKey<'a> {
    Route(&'a str),
    Key(&'a str),
    Pin(&'a Holder),
    Session(&'a Holder),
    Meta(&'a str),
}

impl Write {
    /// Returns the key of the row that this write replaces or deletes. Returns `None` for a write that is only ever
    /// noted, and never part of a commit.
    pub(super) fn row(&self) -> Option<RowKey<'_>> {
        Some(match self {
            Self::PutRoute(route) => RowKey::Route(&route.name),
            Self::DropRoute(name) => RowKey::Route(name),
            Self::PutKey(key) => RowKey::Key(&key.name),
            Self::DropKey(name) => RowKey::Key(name),
            Self::PutPin(pin) => RowKey::Pin(&pin.holder),
            Self::DropPin(holder) => RowKey::Pin(holder),
            Self::PutSession(session) => RowKey::Session(&session.holder),
            Self::DropSession(holder) => RowKey::Session(holder),
            Self::PutMeta(key, _) | Self::DropMeta(key) => RowKey::Meta(key),
            Self::PutKeyUsage(_)
            | Self::DropKeyUsage(..)
            | Self::PutBan(_)
            | Self::PutExit(_)
            | Self::DropExit(_)
            | Self::Saw(_)
            | Self::PutVerdict(_)
            | Self::Check(_)
            | Self::PutSource(_)
            | Self::PutPublic(_)
            | Self::DropPublic(_) => return None,
        })
    }
}

/// Returns the write that would undo `write`: it restores the present content of the row. Returns `None` for rows other
/// than routes, keys and single values, because users change only these.
pub(super) fn before(db: &Connection, write: &Write) -> rusqlite::Result<Option<Write>> {
    Ok(match write {
        Write::PutRoute(Route { name, .. }) | Write::DropRoute(name) => {
            Some(routes::get(db, name)?.map_or_else(|| Write::DropRoute(name.clone()), Write::PutRoute))
        }
        Write::PutKey(Key { name, .. }) | Write::DropKey(name) => {
            Some(keys::get(db, name)?.map_or_else(|| Write::DropKey(name.clone()), Write::PutKey))
        }
        Write::PutMeta(key, _) | Write::DropMeta(key) => {
            Some(meta::get(db, key)?.map_or(Write::DropMeta(key), |value| Write::PutMeta(key, value)))
        }
        _ => None,
    })
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

/// Makes one write inside the open transaction.
pub(super) fn apply(db: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::PutRoute(route) => routes::put(db, route),
        Write::DropRoute(name) => routes::drop(db, name),
        Write::PutKey(key) => keys::put(db, key),
        Write::DropKey(name) => keys::drop(db, name),
        Write::PutKeyUsage(rows) => rows.iter().try_for_each(|usage| keys::put_usage(db, usage)),
        Write::DropKeyUsage(key, created) => keys::drop_usage(db, key, *created),
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
        Write::DropMeta(key) => meta::drop(db, key),
    }
}
