//! `/explain`: what a username would use, and where all other exits went.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Wiring;
use super::ask::{Asked, bad_query};
use super::error::ApiError;
use super::exits::Shown;
use crate::exit::{ExitId, Moment};
use crate::net::{Host, Target};
use crate::route::explain::Funnel;
use crate::route::{self, Ask, Memory};
use crate::state::Snapshot;

/// The host of a question that names none: no site bans anybody there.
const NOWHERE: &str = "exit.gate";

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    username: String,
    port: Option<u16>,
    host: Option<String>,
    key: Option<String>,
}

/// `GET /explain?username=…&port=…&host=…&key=…`.
pub(super) async fn explain(
    State(wiring): State<Wiring>,
    Asked(question): Asked<Question>,
) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    Ok(Json(answer(&snapshot, wiring.state.memory(), &question, now)?).into_response())
}

fn answer(snapshot: &Snapshot, memory: &Memory, question: &Question, now: Moment) -> Result<Value, ApiError> {
    let field = |field: &str, why: String| bad_query(why).with(json!({ "field": field }));
    let wish = snapshot
        .routes
        .resolve(&question.username, None)
        .map_err(|bad| field("username", bad.to_string()).with(json!({ "field": "username", "token": bad.token })))?;
    let host = Host::parse(question.host.as_deref().unwrap_or(NOWHERE))
        .map_err(|why| field("host", format!("`host`: {why}")))?;
    let target =
        Target::new(host, question.port.unwrap_or(443)).map_err(|why| field("port", format!("`port`: {why}")))?;
    let key = question.key.as_deref().unwrap_or_default();
    let ask = Ask { wish: &wish, key, target: &target, now, avoid: &[], plain: false };
    let said = route::explain(snapshot.view(), memory, &ask);
    let show = |id: &ExitId| snapshot.catalog.get(id).map(|exit| Shown::of(exit));
    Ok(json!({
        "username": question.username,
        "selector": wish.selector.to_string(),
        "route": wish.label(),
        "funnel": funnel(&said.funnel),
        "text": said.funnel.to_string(),
        "refused": said.why.as_ref().map(ToString::to_string),
        "pool": said.pool.iter().filter_map(show).collect::<Vec<_>>(),
        "session": said.session.as_ref().map(ToString::to_string),
        "pin": said.pin.as_ref().map(|pin| json!({ "exit": pin.exit.to_string(), "ip": pin.ip })),
    }))
}

/// The counts, step by step.
pub(super) fn funnel(funnel: &Funnel) -> Value {
    let steps = funnel.steps.iter().map(|(step, left)| json!({ "step": step.to_string(), "left": left }));
    steps.collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::route::memory::Bounds;

    fn ask(username: &str, port: Option<u16>) -> Result<Value, ApiError> {
        let snapshot = fixture::snapshot(&["US", "US", "DE", "US"]);
        let question = Question { username: username.to_owned(), port, host: None, key: None };
        answer(&snapshot, &Memory::new(Bounds::default()), &question, Moment(1))
    }

    #[test]
    fn the_funnel_is_told_and_nothing_is_made() {
        let said = ask("us", Some(443)).unwrap();
        assert_eq!(said["text"], "4 known -> 3 in us -> 3 up -> 3 allow 443 -> 2 tested");
        assert_eq!(said["funnel"][1], json!({ "step": "in us", "left": 3 }));
        assert_eq!((&said["refused"], &said["route"]), (&Value::Null, &json!("implicit")));
        let said = ask("fr-strict", None).unwrap();
        assert_eq!(said["refused"], "no exit is what was asked for");
    }

    #[test]
    fn a_wrong_question_names_its_field() {
        let said = ask("us-strcit", None).unwrap_err();
        assert!(said.code() == "bad_query" && said.message().contains("strcit"), "{}", said.message());
        assert!(ask("us", Some(0)).unwrap_err().message().contains("port"));
    }
}
