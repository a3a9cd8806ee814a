//! The checks before any engine starts: tor is installed and new enough, the user's torrc lines do not conflict with
//! ours, and tor accepts the configuration.

use super::engine::Folder;
use super::engine::process::{self, BinaryError};
use super::engine_id::EngineId;
use super::settings::Settings;
use super::torrc::{self, EnginePaths, TorrcError, UserLines};
use super::version::Version;

/// The result of successful checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The version of tor. `None` if this gateway starts no engine.
    pub version: Option<Version>,
    /// tor's warnings about the configuration.
    pub warnings: Vec<String>,
}

/// Why the engines cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// The tor program is missing or too old.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// tor's configuration is wrong.
    #[error(transparent)]
    Torrc(#[from] TorrcError),
    /// The folder for engines cannot be used.
    #[error("{0}")]
    Folder(String),
}

/// Checks tor and its configuration as far as possible without starting an engine.
pub async fn preflight(settings: &Settings) -> Result<Preflight, PreflightError> {
    let user = UserLines::load(settings.torrc.as_deref(), &settings.extra).await?;
    if settings.started_engines() == 0 {
        return Ok(Preflight { version: None, warnings: Vec::new() });
    }
    let version = process::version(&settings.binary).await?;
    // The check uses its own folder, because running engines have locked their folders.
    let folder = Folder::open(&settings.data_dir, format!("check-{}", std::process::id())).await;
    let folder = folder.map_err(PreflightError::Folder)?;
    let place = EnginePaths {
        folder: folder.path(),
        sockets: folder.sockets(),
        owner: std::process::id(),
        guard: None,
        engine: (usize::from(EngineId(0).0), settings.started_engines()),
        geoip_file: settings.geoip_file.as_deref(),
        circuit_timeout: settings.circuit_timeout,
    };
    let path = folder.path().join("torrc");
    let written = tokio::fs::write(&path, torrc::render(&place, &user)).await;
    let verified = match written {
        Ok(()) => process::verify(&settings.binary, &path).await,
        Err(e) => Err(e.to_string()),
    };
    drop(tokio::fs::remove_dir_all(folder.path()).await); // if this fails, a small folder stays behind
    match verified {
        Ok(warnings) => Ok(Preflight { version: Some(version), warnings }),
        Err(why) => Err(TorrcError::Refused(why).into()),
    }
}
