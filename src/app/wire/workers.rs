//! The workers that find and test exits: their parameters, and their handles after they were started.

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

/// The parameters with which the workers are started.
pub(super) struct WorkerInputs<'a> {
    pub(super) config: &'a Config,
    pub(super) tasks: &'a Tasks,
    pub(super) state: &'a State,
    pub(super) store: &'a Store,
    pub(super) tor: Option<&'a Tor>,
    pub(super) geoip: &'a Arc<GeoIp>,
    pub(super) rules: Rules,
    /// True if lists and public proxies are reached through Tor only.
    pub(super) only_tor: bool,
    /// The status of each source, as the last run stored it.
    pub(super) known: Vec<store::Source>,
    /// Receives exits that live requests wait for. They are tested first.
    pub(super) wished: mpsc::Receiver<ExitId>,
    /// Receives reports that a site refuses an exit. They come from the refusal detector, which reads plain HTTP
    /// answers.
    pub(super) reported: mpsc::Receiver<Report>,
}

/// The handles of the workers that were started.
#[derive(Default)]
pub(super) struct ExitWorkers {
    pub(super) sources: Sources,
    /// The names of the sources that are lists of public proxies.
    pub(super) lists: Vec<String>,
    /// Tests Tor exits. `None` if Tor is switched off.
    pub(super) tester: Option<check::Handle>,
    /// Tests public proxies. `None` if the configuration has no lists of them.
    pub(super) public_tester: Option<check::public::Handle>,
    /// Tests own addresses. `None` if the configuration has none.
    pub(super) own_tester: Option<check::Handle>,
    /// Tests exits of one's own. `None` if the configuration has no upstream source.
    pub(super) upstream_tester: Option<check::Handle>,
}
