//! Public proxies: the lists that name them, and the judge that tests them.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::exits::{Parts, Started};
use super::settings;
use crate::app::{StartError, files};
use crate::check::public::{ProxyDialer, PublicTester, Settings};
use crate::exit::{ExitId, Source};
use crate::lifecycle::Tasks;
use crate::source::fetch::{Client, Direct};
use crate::source::list::Bounds;
use crate::source::public::{GIVEN_UP, Publics};

/// Exits that live requests wait for, on their way to a tester. Arbitrary: more than are tested at once for that reason.
const WISHES: usize = 256;

/// The share of open files that the judge may have: the rest is for clients, two each.
const FILES_SHARE: u32 = 2;

/// Starts them.
pub(super) fn start(parts: &mut Parts<'_>, started: &mut Started) -> Result<(), StartError> {
    let (config, private) = (parts.config, parts.config.gateway.allow_private_targets);
    let (give_up, given_up) = mpsc::channel(GIVEN_UP);
    let publics = Publics {
        sources: config.sources.clone(),
        bounds: Bounds { most: config.check.public.most.get() as usize, private },
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

    let wishes = part(parts);
    let room = (files::raise_limit() / FILES_SHARE) as usize;
    let settings = Settings::of(&config.check, room, private);
    let settings = settings.map_err(|error| StartError::Other(format!("check.public: {error}")))?;
    let line = ProxyDialer { rules: parts.rules.clone(), tor: parts.tor.cloned() };
    let geoip = parts.geoip.clone();
    let geo = Arc::new(move |ip| geoip.country(ip));
    let (judge, handle) = PublicTester::new(line, settings, parts.state.clone(), geo, wishes, give_up);
    judge.start(parts.tasks).map_err(|error| StartError::Other(format!("the judge's thread: {error}")))?;
    started.judge = Some(handle);
    Ok(())
}

/// Parts wishes for public proxies from those for Tor exits, which stay where they were.
fn part(parts: &mut Parts<'_>) -> mpsc::Receiver<ExitId> {
    let (to_tor, tor) = mpsc::channel(WISHES);
    let (to_public, public) = mpsc::channel(WISHES);
    let mut wished = std::mem::replace(&mut parts.wished, tor);
    let tasks: Tasks = parts.tasks.clone();
    parts.tasks.spawn("wishes", async move {
        loop {
            let exit = tokio::select! {
                () = tasks.stopping() => return,
                exit = wished.recv() => exit,
            };
            let Some(exit) = exit else { return };
            // A full queue means that its tester is busy with exactly such exits.
            let to = if exit.source() == Source::Public { &to_public } else { &to_tor };
            let _ = to.try_send(exit);
        }
    });
    public
}
