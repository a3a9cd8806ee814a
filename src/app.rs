//! Builds all parts of the gateway and connects them. This is the only room that uses all other rooms.
//!
//! [`serve`] builds the gateway and handles the signals of the process. All ports are bound before anything else
//! starts, so a port that is taken gives one clear error.
//!
//! Next: `app/wire.rs` (makes the parts), `app/serve.rs` (signals and shutdown), `app/reload.rs` (reloads the
//! configuration).

mod files;
mod reload;
pub mod secrets;
mod serve;
mod wire;

pub use serve::{End, serve};

/// Validates the text of a selector while a configuration is read. The error text is the rest of a sentence that begins
/// with the selector.
pub fn validate_selector(text: &str, groups: &crate::config::Groups) -> Result<crate::config::SelectorFacts, String> {
    wire::routes::validate_selector(text, groups)
}

/// The reasons why the gateway could not start.
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
