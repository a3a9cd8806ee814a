//! `/engines`: the tor processes that this gateway drives.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use crate::tor::{EngineState, EngineStatus};

/// An engine: a tor process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Engine)]
pub(super) struct EngineView {
    id: u8,
    /// True if exitgate connected to this tor process and did not start it.
    attached: bool,
    /// `starting`, `bootstrapping`, `ready`, `degraded`, `restarting` or `stopped`.
    state: &'static str,
    usable: bool,
    /// Why the state is not `ready`.
    why: Option<String>,
    bootstrap_percent: Option<u8>,
    pid: Option<u32>,
    version: Option<String>,
    /// What the Tor network says of this version of tor: `recommended`, `new`, `outdated`, `lacks_recommended`,
    /// `lacks_required` (parts of Tor's protocol), or `unknown`.
    version_status: &'static str,
    /// What is wrong with this version and what to do. `null` if nothing is wrong.
    version_advice: Option<String>,
    /// The fingerprint of the primary guard.
    guard: Option<String>,
    /// True while the guard answers. False until it has answered once, and while it is silent.
    guard_answers: bool,
    circuits: usize,
    building: usize,
    spares: usize,
    streams: usize,
    restarts: u32,
}

/// All engines of this gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Engines {
    /// False if `tor.enabled` is false.
    enabled: bool,
    /// True if exitgate itself connects to nothing but Tor, because bridges are used or by `tor.only`. Lists are then
    /// fetched and public proxies are reached through Tor exits.
    only_tor: bool,
    engines: Vec<EngineView>,
}

/// Lists the tor processes that this gateway drives.
#[utoipa::path(get, path = "/engines", tag = "engines",
    responses((status = 200, body = Engines), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let engines = wiring.tor.as_ref().map(|tor| tor.status()).unwrap_or_default();
    let (enabled, only_tor) = (wiring.tor.is_some(), wiring.only_tor.is_on());
    tagged(&headers, &Engines { enabled, only_tor, engines: engines.iter().map(shown).collect() })
}

pub(super) fn shown(engine: &EngineStatus) -> EngineView {
    let (why, bootstrap_percent) = match &engine.state {
        EngineState::Bootstrapping { percent, phase } => (Some(&**phase), Some(*percent)),
        EngineState::Degraded { why } | EngineState::Restarting { why, .. } => (Some(&**why), None),
        EngineState::Stopped { why } => (why.as_deref(), None),
        EngineState::Absent | EngineState::Starting | EngineState::Ready => (None, None),
    };
    EngineView {
        id: engine.id.0,
        attached: engine.attached,
        state: engine.state.as_str(),
        usable: engine.state.usable(),
        why: why.map(str::to_owned),
        bootstrap_percent,
        pid: engine.pid,
        version: engine.version.as_ref().map(ToString::to_string),
        version_status: engine.recommendation.as_str(),
        version_advice: engine.version.and_then(|version| engine.recommendation.advice(version)),
        guard: engine.guard.map(|guard| guard.to_string()),
        guard_answers: engine.guard_answers,
        circuits: engine.circuits,
        building: engine.building,
        spares: engine.spares,
        streams: engine.streams,
        restarts: engine.restarts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tor::version::Version;
    use crate::tor::{EngineId, Recommendation};

    #[test]
    fn a_state_that_is_not_ready_says_why() {
        let engine = |state| EngineStatus {
            id: EngineId(1),
            attached: false,
            state,
            pid: Some(7),
            version: Some(Version([0, 4, 9, 11])),
            recommendation: Recommendation::Outdated { newest: Version([0, 4, 9, 14]) },
            guard: None,
            guard_answers: true,
            circuits: 3,
            building: 0,
            spares: 1,
            streams: 2,
            restarts: 0,
        };
        for (state, word, why, usable) in [
            (EngineState::Ready, "ready", None, true),
            (EngineState::Degraded { why: "slow".into() }, "degraded", Some("slow"), true),
            (
                EngineState::Bootstrapping { percent: 40, phase: "loading keys".into() },
                "bootstrapping",
                Some("loading keys"),
                false,
            ),
            (EngineState::Stopped { why: None }, "stopped", None, false),
        ] {
            let shown = shown(&engine(state));
            assert_eq!((shown.state, shown.why.as_deref(), shown.usable), (word, why, usable));
            assert_eq!((shown.version.as_deref(), shown.version_status), (Some("0.4.9.11"), "outdated"));
            assert!(shown.version_advice.unwrap().contains("0.4.9.14"));
        }
    }
}
