//! The shipped binary on a real private Tor network.
