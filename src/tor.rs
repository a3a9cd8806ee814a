//! Engines: tor processes that we start, watch and command; circuits: paths through them that we choose.
