//! Builds every part and connects them; the only room that knows all others.
//!
//! [`build`] binds first and starts second, so that a port that is taken is one clear error before anything runs, and
//! it returns the addresses that were bound, so a test can start everything on port 0. [`serve`] runs [`build`] and
//! handles the signals of the process.
//!
//! Next: `app/wire.rs` (makes the parts), `app/serve.rs` (signals and shutdown), `app/reload.rs` (reloads the
//! configuration).

mod files;
mod reload;
pub mod secrets;
mod serve;
mod wire;

pub use serve::{End, serve};
pub use wire::{Bound, Running, build};

/// Validates the text of a selector while a configuration is read. The error completes a sentence about the selector.
pub fn validate_selector(text: &str, groups: &crate::config::Groups) -> Result<(), String> {
    wire::routes::validate_selector(text, groups)
}

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Port(#[from] crate::admin::PortError),
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Tor(#[from] crate::tor::PreflightError),
    #[error("{0}")]
    Other(String),
}
