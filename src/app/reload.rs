//! Reads the configuration again, while everything runs: all or nothing.
//!
//! What can refuse is asked first, and only when nobody refused is anything changed: the file is judged as at the start,
//! ports that it adds are bound, tor verifies its lines. Then the rest follows, none of which can fail. What shapes a
//! socket, a process or a file that is made once keeps its old value, and the answer names it.

use std::path::Path;
use std::sync::Arc;

use super::wire::{self, Running, settings};
use crate::api::ReloadAnswer;
use crate::config::{self, Changes, Config, Loaded};

/// Reloads, and says in the log what came of it.
pub(super) async fn reload(running: &mut Running, asked: Option<&Path>) -> ReloadAnswer {
    let loaded = match config::load(config::find(asked), Some(&wire::routes::judge)) {
        Ok(loaded) => loaded,
        Err(faults) => return refused(&faults.to_string()),
    };
    let Loaded { config, warnings, .. } = loaded;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Changes { live, restart } = config::diff(&running.config, &config);
    match take_over(running, config).await {
        Ok(()) => {
            tracing::info!(
                changed = live.join(", "),
                needs_restart = restart.join(", "),
                "the configuration was reloaded"
            );
            ReloadAnswer::Applied { changed: live, needs_restart: restart }
        }
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(faults: &str) -> ReloadAnswer {
    tracing::error!("the configuration was not reloaded, and nothing was changed: {faults}");
    ReloadAnswer::Refused { faults: faults.to_owned() }
}

async fn take_over(running: &mut Running, written: Config) -> anyhow::Result<()> {
    let mut config = running.config.clone();
    config.take_live(written);
    wire::make_secrets(&mut config)?;
    if let Some(tor) = &running.tor {
        tor.reload(settings::tor(&config)).await?;
    }
    let mut listeners = running.listeners.lock().await;
    // A route that is new to this run takes a port that is free now.
    wire::open_routes(&config, &running.state, &mut listeners, &wire::routes::Former::new()).await?;
    if let Err(error) = running.telemetry.set_level(&config.log.level) {
        tracing::warn!(%error, "the log keeps its level");
    }
    let (keys, each_client, damping) = settings::terms(&config);
    running.limits.replace(keys, each_client, damping);
    running.outbound.change(settings::outbound_terms(&config, &running.own));
    listeners.refresh(&config);
    drop(listeners);
    running.rules.store(Arc::new(wire::orders::rules(&config)));
    running.access.store(Arc::new(settings::access(&config)));
    running.config = config;
    Ok(())
}
