//! Who holds on to an exit: a key of the config, the route or selector that it used, and its session, if any.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Isolation;
use super::selector::SessionId;

/// Whose pin, session or rotation something is. The scope is a route's name or a canonical selector; the two cannot be
/// mistaken for each other, because a name that reads as a selector is its own selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The name of the client's key; empty where nobody needs one.
    pub key: Arc<str>,
    /// The route's name or the canonical selector, with what narrows it, without the session.
    pub scope: Arc<str>,
    /// The client's sticky key.
    pub session: Option<SessionId>,
}

/// The same, borrowed: what a connection has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderRef<'a> {
    /// The name of the client's key.
    pub key: &'a str,
    /// The route's name or the canonical selector.
    pub scope: &'a str,
    /// The client's sticky key.
    pub session: Option<&'a SessionId>,
}

impl Holder {
    /// Borrows it.
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

    /// A number for it that is the same at every start.
    pub(super) fn seed(&self) -> u64 {
        super::balance::seed(self)
    }

    /// Streams of two holders must not be linked by whoever watches a circuit.
    pub(super) fn isolation(&self) -> Isolation {
        Isolation(self.seed())
    }
}
