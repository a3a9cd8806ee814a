//! The owner of a pin, session or rotation: a client's key, the route or selector that it uses, and its session, if any.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Isolation;
use super::selector::SessionId;

/// The owner of a pin, session or rotation. Its scope is a route's name or a canonical selector; the two differ, because
/// no route has a name that reads as a selector (but for old ones, whose name is their own selector).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The name of the client's key; empty where no key is needed.
    pub key: Arc<str>,
    /// The route's name with the tokens that narrow it, or the canonical selector; without the session.
    pub scope: Arc<str>,
    pub session: Option<SessionId>,
}

/// A borrowed [`Holder`], with an equal hash: connections look tables up with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderRef<'a> {
    pub key: &'a str,
    pub scope: &'a str,
    pub session: Option<&'a SessionId>,
}

impl Holder {
    pub fn as_ref(&self) -> HolderRef<'_> {
        HolderRef { key: &self.key, scope: &self.scope, session: self.session.as_ref() }
    }

    pub(super) fn is(&self, other: HolderRef<'_>) -> bool {
        self.as_ref() == other
    }
}

impl Hash for Holder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl HolderRef<'_> {
    pub(super) fn to_owned(self) -> Holder {
        Holder { key: self.key.into(), scope: self.scope.into(), session: self.session.cloned() }
    }

    /// A hash of the holder that is the same at every start.
    pub(super) fn seed(&self) -> u64 {
        super::balance::seed(self)
    }

    /// Streams of two holders never share a circuit.
    pub(super) fn isolation(&self) -> Isolation {
        Isolation(self.seed())
    }
}
