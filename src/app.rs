//! Builds every part and wires them; the only file that knows all others.
//!
//! [`build`] binds first and starts second, so that a port that is taken is one clear error before anything runs, and
//! it returns the addresses that were really bound, so that tests start everything on port 0. [`serve`] is `build` with
//! the signals of a process around it.
//!
//! Next: `app/wire.rs` makes the parts; `app/serve.rs` is the life of the process; `app/reload.rs` changes it.

mod files;
mod reload;
pub mod secrets;
mod serve;
mod wire;

use std::net::SocketAddr;

pub use serve::{End, serve};
pub use wire::{Bound, Running, build};

/// Judges the text of a selector while a configuration is read; the error is a clause that says why not.
pub fn validate_selector(text: &str, groups: &crate::config::Groups) -> Result<(), String> {
    wire::routes::judge(text, groups)
}

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken or not ours to bind.
    #[error("{what} cannot listen on {addr}: {why}")]
    Port {
        /// Which part wanted it, with its key in the config.
        what: String,
        /// The address.
        addr: SocketAddr,
        /// What to do.
        why: String,
    },
    /// A secret could not be kept.
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// tor cannot be used.
    #[error(transparent)]
    Tor(#[from] crate::tor::PreflightError),
    /// Anything else that only the log can explain.
    #[error("{0}")]
    Other(String),
}
