//! Opens streams to exits and targets; the only room that does.
