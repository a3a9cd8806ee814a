//! The tester of public proxies: thousands of unknown operators' machines, most of them dead, some of them dishonest.
//!
//! A free proxy is never trusted. That it works is shown by an answer that repeats a random number of ours (a nonce). The
//! address that it leaves from is confirmed by two servers, one of them over TLS, where the proxy cannot forge the answer.
//! What it adds to requests is shown by a page that repeats the headers it received, and that it does
//! not change pages by one that is the same for all clients. A proxy that shows certificates of its own, or other pages
//! than all others show, is never used again. One that passes must answer twenty more requests before it counts as
//! reliable.
//!
//! There are many of them and they are slow, so this tester runs on a thread of its own, at a lower priority than the
//! threads that carry traffic.
//!
//! Next: `public/trial.rs` (one test, step by step), `public/schedule.rs` (which proxy is next), `public/evaluator.rs`
//! (what the results of other proxies show), `public/anonymity.rs` (what a proxy reveals about its client),
//! `public/exit_update.rs` (what is kept). The loop is `check/worker.rs`.

mod anonymity;
mod evaluator;
mod exit_update;
mod report;
mod schedule;
mod settings;
mod tester_state;
mod trial;

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::settings::Settings;
pub use self::trial::ProxyDialer;

use self::report::{Job, Report};
use self::tester_state::PublicTesterState;
use super::exit_update::Geo;
use super::results::Checked;
use super::worker::{Requests, TesterKind, Worker};
use crate::exit::ExitId;
use crate::lifecycle::Tasks;
use crate::state::State;

/// Asks the tester for a check. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Requests);

impl Handle {
    /// Checks a proxy now, ahead of everything else, and waits for the result: by then it is in the snapshot. `None` if
    /// it cannot be checked (it is unknown, has left its list, or is condemned), or if the tester has stopped.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        self.0.one(exit).await
    }
}

/// The tester of public proxies, one for the whole gateway.
pub type PublicTester = Worker<PublicProxies>;

/// How public proxies are tested.
pub struct PublicProxies {
    dialer: ProxyDialer,
    settings: Arc<Settings>,
    geo: Geo,
    give_up: mpsc::Sender<ExitId>,
}

impl Worker<PublicProxies> {
    /// A tester of the public proxies in `state`, and the handle to ask it by. `urgent` yields proxies that failed a live
    /// request, or that one waits for; those that failed too often are sent to `give_up`.
    pub fn new(
        dialer: ProxyDialer,
        settings: Settings,
        state: State,
        geo: Geo,
        urgent: mpsc::Receiver<ExitId>,
        give_up: mpsc::Sender<ExitId>,
    ) -> (Arc<Self>, Handle) {
        let kind = PublicProxies { dialer, settings: Arc::new(settings), geo, give_up };
        let (tester, requests) = Self::create(kind, state, urgent);
        (tester, Handle(requests))
    }

    /// Starts its thread, which tests until shutdown.
    pub fn start(self: Arc<Self>, tasks: &Tasks) -> io::Result<()> {
        let worker = tasks.clone();
        tasks.background("public-tester", move || self.clone().run(worker.clone()))
    }
}

impl TesterKind for PublicProxies {
    type State = PublicTesterState;
    const TASK: &'static str = "public check";

    fn new_state(&self) -> PublicTesterState {
        PublicTesterState::new(self.settings.clone(), self.geo.clone())
    }

    async fn check(&self, job: Job, mut found: impl FnMut(Box<Report>) + Send) {
        found(Box::new(trial::run(&self.dialer, &self.settings, job).await));
    }

    async fn published(&self, checks: &mut PublicTesterState, _: &State) {
        for exit in checks.given_up() {
            let _ = self.give_up.send(exit).await; // fails when the lists have stopped, at shutdown
        }
    }
}
