//! `/explain`: what a username would use, and where all other exits went.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::exits::ExitShown;
use super::extract::{Params, bad_query};
use crate::exit::{ExitId, Moment};
use crate::net::{Host, Target};
use crate::route::explain::Funnel;
use crate::route::{self, Ask, Memory};
use crate::state::Snapshot;

/// The host of a question that names none: no site bans anybody there.
const NOWHERE: &str = "exit.gate";

/// What may be asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// A username as a client would send it.
    #[param(example = "us-strict")]
    username: String,
    /// The target's port.
    #[param(minimum = 1, maximum = 65535, default = 443)]
    port: Option<u16>,
    /// The target's host: its site may refuse some exits.
    host: Option<String>,
    /// The name of the client's key, where there are keys.
    key: Option<String>,
}

/// One step on the way from all exits to those that would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepShown {
    #[schema(example = "in us")]
    step: String,
    /// Exits that are left.
    left: usize,
}

/// What a strict holder is pinned to.
#[derive(Debug, Serialize, ToSchema)]
struct PinShown {
    exit: String,
    #[schema(value_type = String)]
    ip: std::net::Ipv4Addr,
}

/// What a username would use, and where all other exits went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct Answer {
    username: String,
    /// What it comes to, in canonical words.
    selector: String,
    /// The route that it names, or `implicit`.
    route: String,
    funnel: Vec<StepShown>,
    /// The funnel in one line.
    text: String,
    /// Why a request would be refused now; null if it would not.
    refused: Option<String>,
    /// The exits that it uses now.
    pool: Vec<ExitShown>,
    /// The exit of its session.
    session: Option<String>,
    pin: Option<PinShown>,
}

/// Where all exits went that a username does not use.
#[utoipa::path(get, path = "/explain", tag = "exits", params(Question),
    responses((status = 200, body = Answer), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn explain(
    State(wiring): State<Wiring>,
    Params(question): Params<Question>,
) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    Ok(Json(answer(&snapshot, wiring.state.memory(), &question, now)?).into_response())
}

fn answer(snapshot: &Snapshot, memory: &Memory, question: &Question, now: Moment) -> Result<Answer, ApiError> {
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
    let show = |id: &ExitId| snapshot.catalog.get(id).map(|exit| ExitShown::of(exit));
    Ok(Answer {
        username: question.username.clone(),
        selector: wish.selector.to_string(),
        route: wish.label().to_owned(),
        funnel: funnel_steps(&said.funnel),
        text: said.funnel.to_string(),
        refused: said.why.as_ref().map(ToString::to_string),
        pool: said.pool.iter().filter_map(show).collect(),
        session: said.session.as_ref().map(ToString::to_string),
        pin: said.pin.as_ref().map(|pin| PinShown { exit: pin.exit.to_string(), ip: pin.ip }),
    })
}

/// The counts, step by step.
pub(super) fn funnel_steps(funnel: &Funnel) -> Vec<StepShown> {
    funnel.steps.iter().map(|(step, left)| StepShown { step: step.to_string(), left: *left }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use serde_json::Value;

    use super::*;
    use crate::route::memory::Bounds;

    fn ask(username: &str, port: Option<u16>) -> Result<Value, ApiError> {
        let snapshot = fixture::snapshot(&["US", "US", "DE", "US"]);
        let question = Question { username: username.to_owned(), port, host: None, key: None };
        answer(&snapshot, &Memory::new(Bounds::default()), &question, Moment(1)).map(|answer| json!(answer))
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
