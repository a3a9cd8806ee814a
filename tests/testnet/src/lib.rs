//! A private Tor network, a fake web and fake sources, all on loopback.
