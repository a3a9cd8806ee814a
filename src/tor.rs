//! Engines: tor processes that we start, watch and command; circuits: paths through them that we choose.

pub mod control;
pub mod event;
pub mod guard;
pub mod netdir;
pub mod path;
pub mod reply;
pub mod settings;
pub mod torrc;
pub mod version;
