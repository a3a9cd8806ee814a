//! The workers that bring and test exits: what they are started with, and the handles that they leave.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::check;
use crate::config::Config;
use crate::exit::ExitId;
use crate::exit::country::GeoIp;
use crate::gateway::outbound::Report;
use crate::lifecycle::Tasks;
use crate::limit::target::Rules;
use crate::source::handle::Sources;
use crate::state::State;
use crate::store::{self, Store};
use crate::tor::Tor;

/// What the workers are started with.
pub(super) struct WorkerInputs<'a> {
    pub(super) config: &'a Config,
    pub(super) tasks: &'a Tasks,
    pub(super) state: &'a State,
    pub(super) store: &'a Store,
    pub(super) tor: Option<&'a Tor>,
    pub(super) geoip: &'a Arc<GeoIp>,
    pub(super) rules: Rules,
    /// The status of each source as the last run stored it.
    pub(super) known: Vec<store::Source>,
    /// Exits that live requests wait for: they are tested first.
    pub(super) wished: mpsc::Receiver<ExitId>,
    /// Sites that refuse exits, from the refusal detector of plain HTTP.
    pub(super) reported: mpsc::Receiver<Report>,
}

/// Handles of the workers.
#[derive(Default)]
pub(super) struct ExitWorkers {
    pub(super) sources: Sources,
    /// The names of the sources that are lists of public proxies.
    pub(super) lists: Vec<String>,
    /// Tests Tor exits; `None` without Tor.
    pub(super) tester: Option<check::Handle>,
    /// Tests public proxies; `None` without lists of them.
    pub(super) public_tester: Option<check::public::Handle>,
}
