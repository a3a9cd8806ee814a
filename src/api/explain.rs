//! `/explain`: which exits a username can use, and why the others are excluded. The command `exitgate why` calls it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::exits::ExitView;
use super::extract::{Params, bad_query};
use super::timestamp::Timestamp;
use crate::admin::no_exit_reason;
use crate::exit::{ExitId, Moment};
use crate::net::{Host, Target};
use crate::route::no_plan::Funnel;
use crate::route::table::{RuleId, Wish};
use crate::route::{self, Ask, Memory};
use crate::state::Snapshot;

/// The target host if the query has no `host`. Each ban belongs to a site, and no site has this host, so no ban
/// excludes an exit.
const NO_SITE: &str = "exit.gate";

/// The query of `GET /explain`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// A username as a client would send it.
    #[param(example = "us-strict")]
    username: String,
    /// The target's port.
    #[param(minimum = 1, maximum = 65535, default = 443)]
    port: Option<u16>,
    /// The target's host; exits that its site refuses are excluded, and the rules of the route apply.
    host: Option<String>,
    /// The name of the client's key, where there are keys.
    key: Option<String>,
}

/// One condition, and the number of exits that fulfil it and all conditions before it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepShown {
    #[schema(example = "in us")]
    step: String,
    /// Exits that are left after this step.
    left: usize,
}

/// The exit that a strict username is pinned to.
#[derive(Debug, Serialize, ToSchema)]
struct PinShown {
    exit: String,
    #[schema(value_type = String)]
    ip: std::net::IpAddr,
}

/// A rule of a route that matches the target.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MatchedRule)]
pub(super) struct RuleShown {
    /// The route that has the rule.
    route: String,
    /// The place of the rule in the list of rules, from 1.
    number: usize,
    /// The rule in one line.
    #[schema(example = "*.shop.example use us-strict")]
    rule: String,
}

/// Which exits a username can use, and why the others are excluded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct Answer {
    username: String,
    /// The selector that the username means, in a standard form: usernames with the same meaning have the same text here.
    selector: String,
    /// The name of its route, or `implicit` for a username without a route.
    route: String,
    /// The rules that match the host and port, in the order in which they lead to each other; empty without a `host`.
    rules: Vec<RuleShown>,
    funnel: Vec<StepShown>,
    /// The funnel in one line.
    text: String,
    /// Why a request would be refused now; null if it would be served.
    refused: Option<String>,
    /// The exits that the username uses now.
    pool: Vec<ExitView>,
    /// The exit of its session.
    session: Option<String>,
    pin: Option<PinShown>,
    /// The later source with which requests to the host begin now, because the site refuses the earlier ones; null if
    /// requests begin with the first source.
    escalation: Option<EscalationShown>,
}

/// A later source of a route with which requests to a site begin.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Escalation)]
struct EscalationShown {
    #[schema(example = "acme")]
    source: &'static str,
    /// `banned`: the site has banned exits of the earlier source; `failed`: requests through it failed.
    because: &'static str,
    /// When requests begin with the first source again.
    until: Timestamp,
}

/// Explains which exits a username can use, and why the others are excluded.
#[utoipa::path(get, path = "/explain", tag = "exits", params(ExplainQuery),
    responses((status = 200, body = Answer), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn explain(
    State(wiring): State<Wiring>,
    Params(query): Params<ExplainQuery>,
) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    let tor = wiring.tor.is_some();
    Ok(Json(answer(&snapshot, wiring.state.memory(), &query, now, tor)?).into_response())
}

fn answer(
    snapshot: &Snapshot,
    memory: &Memory,
    query: &ExplainQuery,
    now: Moment,
    tor: bool,
) -> Result<Answer, ApiError> {
    let field = |field: &str, why: String| bad_query(why).with(json!({ "field": field }));
    let wish = snapshot
        .routes
        .resolve(&query.username, None)
        .map_err(|bad| field("username", bad.to_string()).with(json!({ "field": "username", "token": bad.token })))?;
    let host =
        Host::parse(query.host.as_deref().unwrap_or(NO_SITE)).map_err(|why| field("host", format!("`host`: {why}")))?;
    let target = Target::new(host, query.port.unwrap_or(443)).map_err(|why| field("port", format!("`port`: {why}")))?;
    let key = query.key.as_deref().unwrap_or_default();
    let (wish, rules, by_rule) = ruled(snapshot, wish, &target, query.host.is_some());
    let ask = Ask { wish: &wish, key, target: &target, now, avoid: &[], plain: false };
    let explained = route::explain(snapshot.view(), memory, &ask);
    let reason = |why| no_exit_reason(why, wish.policy.sources(&wish.selector), tor);
    let show = |id: &ExitId| snapshot.catalog.get(id).map(|exit| ExitView::of(exit));
    Ok(Answer {
        username: query.username.clone(),
        selector: wish.selector.to_string(),
        route: wish.label().to_owned(),
        funnel: funnel_steps(&explained.funnel),
        text: explained.funnel.to_string(),
        rules,
        refused: by_rule.or_else(|| explained.why.as_ref().map(reason)),
        pool: explained.pool.iter().filter_map(show).collect(),
        session: explained.session.as_ref().map(ToString::to_string),
        escalation: explained.escalation.map(|escalated| EscalationShown {
            source: escalated.source.as_str(),
            because: escalated.cause.as_str(),
            until: Timestamp(escalated.until),
        }),
        pin: explained.pin.as_ref().map(|pin| PinShown { exit: pin.exit.to_string(), ip: pin.ip }),
    })
}

/// Applies the rules of the username's route to the target, if `apply` is true. Returns the result, the rules that
/// match, and the reason if a rule refuses the connection. In that case the result is the username without the rule.
fn ruled(snapshot: &Snapshot, wish: Wish, target: &Target, apply: bool) -> (Wish, Vec<RuleShown>, Option<String>) {
    if !apply {
        return (wish, Vec::new(), None);
    }
    let routes = &snapshot.routes;
    let show = |id: &RuleId| {
        let rule = routes.get(id.route.as_str())?.route.policy.rules.as_slice().get(id.number - 1)?;
        Some(RuleShown { route: id.route.to_string(), number: id.number, rule: rule.to_string() })
    };
    match routes.for_target(wish.clone(), &target.host, Some(target.port)) {
        Ok(wish) => {
            let rules = wish.rules.iter().filter_map(show).collect();
            (wish, rules, None)
        }
        Err(refused) => (wish, show(&refused.rule).into_iter().collect(), Some(refused.to_string())),
    }
}

/// Converts the filter steps for the API: each step with the number of exits that are left after it.
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
        let query = ExplainQuery { username: username.to_owned(), port, host: None, key: None };
        answer(&snapshot, &Memory::new(Bounds::default()), &query, Moment(1), true).map(|answer| json!(answer))
    }

    #[test]
    fn the_funnel_is_shown_and_nothing_is_created() {
        let answer = ask("us", Some(443)).unwrap();
        assert_eq!(answer["text"], "4 known -> 3 in us -> 3 up -> 3 allow 443 -> 2 tested");
        assert_eq!(answer["funnel"][1], json!({ "step": "in us", "left": 3 }));
        assert_eq!((&answer["refused"], &answer["route"]), (&Value::Null, &json!("implicit")));
        let answer = ask("fr-strict", None).unwrap();
        assert_eq!(answer["refused"], "none of the known exits has the source, country, AS or address asked for");
    }

    #[test]
    fn with_tor_off_the_reason_is_that() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 20)]);
        let refused = |username: &str, tor| {
            let query = ExplainQuery { username: username.to_owned(), port: None, host: None, key: None };
            answer(&snapshot, &Memory::new(Bounds::default()), &query, Moment(1), tor).unwrap().refused
        };
        let says_so = |username, tor| refused(username, tor).unwrap().starts_with("Tor is off");
        assert!(says_so("us", false) && !says_so("us", true));
        assert!(!says_so("fr-source-public", false), "this asks for public proxies");
    }

    #[test]
    fn the_rule_that_matches_the_host_is_shown() {
        let mut snapshot = fixture::snapshot(&["US", "US", "DE", "US"]);
        fixture::add_route_with_rules(&mut snapshot);
        let answer = |host: Option<&str>| {
            let host = host.map(str::to_owned);
            let query = ExplainQuery { username: "shop".to_owned(), port: None, host, key: None };
            json!(answer(&snapshot, &Memory::new(Bounds::default()), &query, Moment(1), true).unwrap())
        };
        let ruled = answer(Some("www.shop.example"));
        assert_eq!(ruled["rules"], json!([{"route": "shop", "number": 1, "rule": "*.shop.example use us"}]));
        assert_eq!((&ruled["selector"], &ruled["refused"]), (&json!("us"), &Value::Null));
        assert_eq!(ruled["funnel"][1], json!({ "step": "in us", "left": 3 }));
        let refused = answer(Some("bad.example"));
        assert_eq!(refused["refused"], "rule 2 of the route `shop` refuses this target");
        assert_eq!(refused["rules"][0]["rule"], "bad.example refuse");
        for host in [None, Some("other.example")] {
            let plain = answer(host);
            assert_eq!((&plain["selector"], &plain["rules"]), (&json!("any"), &json!([])), "{host:?}");
        }
    }

    #[test]
    fn a_wrong_query_names_its_field() {
        let answer = ask("us-strcit", None).unwrap_err();
        assert!(answer.code() == "bad_query" && answer.message().contains("strcit"), "{}", answer.message());
        assert!(ask("us", Some(0)).unwrap_err().message().contains("port"));
    }
}
