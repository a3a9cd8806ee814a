//! Reads the configuration again while the gateway runs. Either all changes are applied or none.
//!
//! The steps that can fail are done first: the file is validated as at the start, new ports are bound, and tor verifies
//! its configuration lines. Changes are made only after all these steps have succeeded, and the changes themselves
//! cannot fail. Some keys determine a socket, a process or a file that is created only once. They keep their old values
//! until a restart, and the answer lists them.

use std::path::Path;
use std::sync::Arc;

use super::wire::{self, Running, settings};
use crate::admin::RouteRules;
use crate::api::ReloadAnswer;
use crate::config::{self, Changes, Config, Loaded};
use crate::exit::UpstreamName;

/// Reloads the configuration, and logs the outcome. `asked` is the path in the option `--config`, or `None` if the
/// option was not given.
pub(super) async fn reload(running: &mut Running, asked: Option<&Path>) -> ReloadAnswer {
    let sources = UpstreamName::all_configured();
    let loaded = match config::load(config::find(asked), Some(&wire::routes::validate_selector)) {
        Ok(loaded) => loaded,
        Err(faults) => {
            UpstreamName::restore_configured(&sources);
            return refused(&faults.to_string());
        }
    };
    let Loaded { config, warnings, .. } = loaded;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Changes { live, restart } = config::diff(&running.config, &config);
    match apply(running, config).await {
        Ok(()) => {
            tracing::info!(
                changed = live.join(", "),
                needs_restart = restart.join(", "),
                "the configuration was reloaded"
            );
            ReloadAnswer::Applied { changed: live, needs_restart: restart }
        }
        Err(error) => {
            UpstreamName::restore_configured(&sources);
            refused(&error.to_string())
        }
    }
}

fn refused(faults: &str) -> ReloadAnswer {
    tracing::error!("the configuration was not reloaded, and nothing was changed: {faults}");
    ReloadAnswer::Refused { faults: faults.to_owned() }
}

async fn apply(running: &mut Running, written: Config) -> anyhow::Result<()> {
    let mut config = running.config.clone();
    config.take_live(written);
    wire::make_secrets(&mut config)?;
    if let Some(tor) = &running.tor {
        tor.reload(settings::tor(&config)).await?;
    }
    let mut listeners = running.listeners.lock().await;
    // A route without a configured port got its port of the last run at the start. A reload does not look for such a
    // port (the map is empty): a route that is new since the start takes any free port.
    wire::open_routes(&config, &running.state, &mut listeners, &wire::routes::FormerPorts::new()).await?;
    if let Err(error) = running.telemetry.set_level(&config.log.level) {
        tracing::warn!(%error, "the log level could not be changed");
    }
    let (keys, each_client, damping) = settings::terms(&config);
    running.limits.replace(keys, each_client, damping);
    running.only_tor.set(settings::wants_only_tor(&config).await);
    running.outbound.change(settings::outbound_terms(&config, &running.own, &running.only_tor));
    running.cities.set_path(config.geo.mmdb.clone());
    listeners.refresh(&config);
    drop(listeners);
    running.routes.set_rules(RouteRules::of(&config));
    running.access.store(Arc::new(settings::access(&config)));
    running.config = config;
    Ok(())
}
