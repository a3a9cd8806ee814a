//! Public proxies: the lists that name them.

use tokio::sync::mpsc;

use super::exits::{Parts, Started};
use super::settings;
use crate::app::StartError;
use crate::source::fetch::{Client, Direct};
use crate::source::list::Bounds;
use crate::source::public::{GIVEN_UP, Publics};

/// Starts them.
pub(super) fn start(parts: &mut Parts<'_>, started: &mut Started) -> Result<(), StartError> {
    let config = parts.config;
    let (_give_up, given_up) = mpsc::channel(GIVEN_UP);
    let publics = Publics {
        sources: config.sources.clone(),
        bounds: Bounds { most: config.check.public.most.get() as usize, private: config.gateway.allow_private_targets },
        removed_for: config.check.public.removed_for,
        client: Client::new(Direct::new(parts.rules.clone()), settings::trust()?),
        geoip: parts.geoip.clone(),
        known: parts.known.clone(),
        state: parts.state.clone(),
        store: Some(parts.store.clone()),
        given_up,
    };
    let lists = publics.start(parts.tasks);
    started.lists = lists.statuses().into_iter().map(|list| list.name).collect();
    started.sources.extend(lists);
    Ok(())
}
