//! Numbers of tor's reasons for the end of a stream.

/// No more is said; how a refused connection shows.
pub(crate) const MISC: u8 = 1;
/// The name did not resolve.
pub(crate) const RESOLVE_FAILED: u8 = 2;
/// The exit does not let it out.
pub(crate) const EXIT_POLICY: u8 = 4;
/// The circuit is gone.
pub(crate) const DESTROY: u8 = 5;
/// As it should.
pub(crate) const DONE: u8 = 6;
/// Nobody answered.
pub(crate) const TIMEOUT: u8 = 7;
/// There is no route.
pub(crate) const NO_ROUTE: u8 = 8;
/// The exit hibernates.
pub(crate) const HIBERNATING: u8 = 9;
/// What a relay says that is no exit.
pub(crate) const INTERNAL: u8 = 10;
/// The exit is out of something.
pub(crate) const RESOURCE_LIMIT: u8 = 11;
/// The connection was reset.
pub(crate) const RESET: u8 = 12;
