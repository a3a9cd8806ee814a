//! The holder of a pin, session or rotation: a client's key, the route or selector that the client uses, and the
//! session, if any.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::selector::SessionId;

/// The owner of a pin, session or rotation. The scope of a holder is the name of a route or a canonical selector. These
/// two cannot be confused, because no route has a name that reads as a selector. The only exceptions are old routes
/// whose name is their own selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The name of the client's key. Empty if no key is needed.
    pub key: Arc<str>,
    /// The username without its session. For a named route this is the name with further words (`shop-de`), otherwise
    /// the selector in its usual order of words (`us-strict`).
    pub scope: Arc<str>,
    pub session: Option<SessionId>,
}

/// A borrowed [`Holder`] with an equal hash. Connections use it to look up entries of tables.
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

    /// Returns a hash of the holder. The hash is the same at every start of the process.
    pub(super) fn seed(&self) -> u64 {
        super::balance::seed(self)
    }
}
