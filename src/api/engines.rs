//! `/engines`: the tor processes that we drive.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Wiring;
use crate::tor::{EngineState, EngineStatus};

/// `GET /engines`.
pub(super) async fn list(State(wiring): State<Wiring>) -> Response {
    let engines = wiring.tor.as_ref().map(|tor| tor.status()).unwrap_or_default();
    let list: Vec<_> = engines.iter().map(shown).collect();
    Json(json!({ "enabled": wiring.tor.is_some(), "engines": list })).into_response()
}

/// One engine.
pub(super) fn shown(engine: &EngineStatus) -> Value {
    let (why, percent) = match &engine.state {
        EngineState::Bootstrapping { percent, phase } => (Some(&**phase), Some(*percent)),
        EngineState::Degraded { why } | EngineState::Restarting { why, .. } => (Some(&**why), None),
        EngineState::Stopped { why } => (why.as_deref(), None),
        EngineState::Absent | EngineState::Starting | EngineState::Ready => (None, None),
    };
    json!({
        "id": engine.id.0,
        "attached": engine.attached,
        "state": engine.state.as_str(),
        "usable": engine.state.usable(),
        "why": why,
        "bootstrap_percent": percent,
        "pid": engine.pid,
        "version": engine.version.as_ref().map(ToString::to_string),
        "guard": engine.guard.map(|guard| guard.to_string()),
        "circuits": engine.circuits,
        "building": engine.building,
        "spares": engine.spares,
        "streams": engine.streams,
        "restarts": engine.restarts,
    })
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
            assert_eq!((shown["state"].as_str(), shown["why"].as_str()), (Some(word), why));
            assert_eq!(shown["usable"], usable);
        }
    }
}
