//! The reasons why a request to create, change or delete a key is refused.

use super::super::BadField;

/// Why a request about a key failed. After any of these errors, nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key `{0}`; see /keys")]
    Unknown(String),
    #[error("the key `{0}` belongs to the configuration: change it there, and reload")]
    ReadOnly(String),
    #[error("the name `{0}` is taken by a key of the configuration; choose another name")]
    NameOfConfig(String),
    #[error("the name `{0}` is taken by a key that another request created; choose another name, or delete that key")]
    NameTaken(String),
    #[error(transparent)]
    BadField(#[from] BadField),
    #[error(
        "`{0}` is the only key: without it the gateway needs no key, and everybody who can reach the port may use it. \
         Create another key first, or add open=true (--open) if that is what you want"
    )]
    LastKey(String),
    #[error(
        "the disk of the gateway does not answer: nothing was changed. Try again when it answers; the log and the alert \
         ExitgateStoreFailing say more"
    )]
    DiskHangs,
    /// The store failed, or the key file cannot be written. The cause is in the log.
    #[error("the key could not be stored; the log says why")]
    Internal,
}
