//! Starts the downloads of the lists of public proxies, and the tester of these proxies.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::settings;
use super::workers::{ExitWorkers, WorkerInputs};
use crate::app::{StartError, files};
use crate::check::public::{ProxyDialer, PublicTester, Settings};
use crate::config::{self, Through};
use crate::exit::{ExitId, Source};
use crate::lifecycle::Tasks;
use crate::source::fetch::Client;
use crate::source::list::Bounds;
use crate::source::outward::Outward;
use crate::source::public::{GIVEN_UP, PublicListInputs};

/// The largest number of exits in each queue. The queues contain exits that live requests wait for. Not tuned: a queue
/// has space for more exits than a tester checks at the same time.
const WISHES: usize = 256;

/// The tester of public proxies may use one connection in `FILES_SHARE` (2: one half) of those that the limit on open
/// files allows. The rest is for clients.
const FILES_SHARE: u32 = 2;

/// Starts the downloads and the tester, and adds their handles to `started`.
pub(super) fn start(inputs: &mut WorkerInputs<'_>, started: &mut ExitWorkers) -> Result<(), StartError> {
    let (config, private) = (inputs.config, inputs.config.gateway.allow_private_targets);
    let (give_up, given_up) = mpsc::channel(GIVEN_UP);
    let (rules, tor, state) = (inputs.rules.clone(), inputs.tor.cloned(), inputs.state.clone());
    let outward = Outward { rules, tor, state };
    let publics = PublicListInputs {
        sources: through_tor(config.sources.clone(), inputs.only_tor),
        bounds: Bounds { most: config.check.public.most.get() as usize, private },
        removed_for: config.check.public.removed_for,
        client: Client::new(outward, settings::trust()?),
        geoip: inputs.geoip.clone(),
        known: inputs.known.clone(),
        state: inputs.state.clone(),
        store: Some(inputs.store.clone()),
        given_up,
    };
    let lists = publics.start(inputs.tasks);
    started.lists = lists.statuses().into_iter().map(|list| list.name).collect();
    started.sources.extend(lists);

    let wishes = split_wishes(inputs, |source| source == Source::Public);
    let room = (files::raise_limit() / FILES_SHARE) as usize;
    let settings = Settings::of(&config.check, room, private);
    let settings = settings.map_err(|error| StartError::Other(format!("check.public: {error}")))?;
    let line = ProxyDialer { rules: inputs.rules.clone(), tor: inputs.tor.cloned() };
    let geoip = inputs.geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let (tester, handle) = PublicTester::new(line, settings, inputs.state.clone(), geo, wishes, give_up);
    tester.start(inputs.tasks).map_err(|error| StartError::Other(format!("the tester's thread: {error}")))?;
    started.public_tester = Some(handle);
    Ok(())
}

/// Returns the settings of the lists. If `only_tor` is true, the proxies of every list are reached through Tor.
fn through_tor(mut sources: config::Sources, only_tor: bool) -> config::Sources {
    if only_tor {
        sources.proxifly.through = Through::Tor;
        sources.lists.iter_mut().for_each(|list| list.through = Through::Tor);
    }
    sources
}

/// Starts a task that splits the queue `inputs.wished` of exits that live requests wait for. Returns a new queue with
/// the exits of the sources for which `belongs` returns true. All other exits stay in `inputs.wished`.
pub(super) fn split_wishes(inputs: &mut WorkerInputs<'_>, belongs: fn(Source) -> bool) -> mpsc::Receiver<ExitId> {
    let (to_others, others) = mpsc::channel(WISHES);
    let (to_split, split) = mpsc::channel(WISHES);
    let mut wished = std::mem::replace(&mut inputs.wished, others);
    let tasks: Tasks = inputs.tasks.clone();
    inputs.tasks.spawn("wishes", async move {
        loop {
            let exit = tokio::select! {
                () = tasks.stopping() => return,
                exit = wished.recv() => exit,
            };
            let Some(exit) = exit else { return };
            // If the queue is full, this exit is dropped, because the tester has enough other exits that requests wait
            // for.
            let to = if belongs(exit.source()) { &to_split } else { &to_others };
            let _ = to.try_send(exit);
        }
    });
    split
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn with_only_tor_every_list_is_reached_through_tor() {
        let sources = Config::default().sources;
        assert_eq!(through_tor(sources.clone(), false).proxifly.through, Through::Direct);
        assert_eq!(through_tor(sources, true).proxifly.through, Through::Tor);
    }

    #[tokio::test]
    async fn bridges_turn_only_tor_on() {
        let mut config = Config::default();
        assert!(!settings::wants_only_tor(&config).await);
        config.tor.extra = vec!["UseBridges 1".to_owned(), "Bridge 192.0.2.1:443".to_owned()];
        assert!(settings::wants_only_tor(&config).await);
        config.tor.enabled = false;
        assert!(!settings::wants_only_tor(&config).await, "without engines these lines have no effect");
        config.tor.only = true;
        assert!(settings::wants_only_tor(&config).await);
    }
}
