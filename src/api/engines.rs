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
    engines: Vec<EngineView>,
}

/// Lists the tor processes that this gateway drives.
#[utoipa::path(get, path = "/engines", tag = "engines",
    responses((status = 200, body = Engines), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let engines = wiring.tor.as_ref().map(|tor| tor.status()).unwrap_or_default();
    tagged(&headers, &Engines { enabled: wiring.tor.is_some(), engines: engines.iter().map(shown).collect() })
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
    use crate::tor::EngineId;

    #[test]
    fn a_state_that_is_not_ready_says_why() {
        let engine = |state| EngineStatus {
            id: EngineId(1),
            attached: false,
            state,
            pid: Some(7),
            version: None,
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
        }
    }
}
