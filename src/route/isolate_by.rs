//! The words that say which streams of one client may share circuits.
//!
//! Next: `route/isolation.rs` applies them.

/// Which streams of one client may share circuits. Streams that a variant keeps on separate circuits are on separate
/// circuits with every later variant too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IsolateBy {
    /// All streams of one client to one exit may share circuits.
    #[default]
    Key,
    /// Streams share circuits only if they belong to the same route (or selector) and the same session.
    Session,
    /// As [`IsolateBy::Session`], and the streams must go to the same target host.
    Target,
}

impl IsolateBy {
    pub(super) const ALL: [Self; 3] = [Self::Key, Self::Session, Self::Target];

    /// The keyword in usernames, the configuration and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::Target => "target",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}
