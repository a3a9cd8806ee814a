//! The tester of public proxies: thousands of machines of unknown operators. Most of these proxies are dead, and some
//! are dishonest.
//!
//! A free proxy is never trusted. A proxy works only if the answer that it returns repeats a random number of ours (a
//! nonce). Two servers confirm the address from which the proxy's traffic leaves. One of the two is reached over TLS,
//! so the proxy cannot forge the answer of this server.
//!
//! Two more pages show what a proxy does with traffic. A page that repeats the headers of its request shows what the
//! proxy adds to requests. A page that is the same for all clients shows whether the proxy changes pages.
//!
//! A proxy that shows certificates of its own, or pages that differ from what all other proxies show, is condemned: it
//! is not used for two weeks. A proxy that passes must answer twenty more requests before it counts as reliable.
//!
//! There are many proxies, and they are slow. So this tester runs on a thread of its own, at a lower priority than the
//! threads that carry traffic.
//!
//! Next: `public/trial.rs` (one test, step by step), `public/schedule.rs` (which proxy is tested next),
//! `public/evaluator.rs` (what the results of other proxies show), `public/anonymity.rs` (what a proxy reveals about
//! its client), `public/exit_update.rs` (which results are kept). The loop is in `check/worker.rs`.

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
use crate::exit::{Exit, ExitId, Moment};
use crate::lifecycle::Tasks;
use crate::state::State;
use crate::store::Write;

/// A handle to request checks from the tester of public proxies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Requests);

impl Handle {
    /// Checks a proxy now, before all other checks, and waits for the result. When this returns, the result is also in
    /// the snapshot. Returns `None` if the proxy cannot be checked (it is unknown, has left its list, or is condemned),
    /// or if the tester has stopped.
    pub async fn force(&self, exit: ExitId) -> Option<Checked> {
        self.0.one(exit).await
    }
}

/// The tester of public proxies. There is one for the whole gateway.
pub type PublicTester = Worker<PublicProxies>;

/// How public proxies are tested.
pub struct PublicProxies {
    dialer: ProxyDialer,
    settings: Arc<Settings>,
    geo: Geo,
    give_up: mpsc::Sender<ExitId>,
}

impl Worker<PublicProxies> {
    /// Returns a tester of the public proxies in `state`, and the handle to request checks from it. `urgent` yields the
    /// proxies that failed a live request, or for which a live request waits. The proxies that failed too many times
    /// are sent to `give_up`.
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

    /// Starts the thread of this tester, which tests until shutdown.
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
            let _ = self.give_up.send(exit).await; // fails only at shutdown, when nobody receives any more
        }
    }
}
/// Returns the rows that end the condemnation of a proxy in the store.
pub(super) fn pardon_rows(exit: &Exit, now: Moment) -> Vec<Write> {
    exit_update::pardon(exit, now).writes
}
