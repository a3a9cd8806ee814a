//! The errands of `http://exit.gate/`: for clients that cannot read the headers of a CONNECT answer, or want another exit.
//!
//! Each acts on the caller's own username and key. What it is told is what the caller may know anyway: which route,
//! session and exit serve it. The key itself is never shown. What they do is done in `outbound/rotate.rs`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::failure::{ClientFault, Failure, NoExit};
use super::super::gate::{BuiltinRequest, Refusal};
use super::pass::Pass;
use super::rotate::{RotateFault, bound};
use super::{Outbound, Wish};
use crate::exit::{Exit, Moment};
use crate::net::Host;

/// How long a client waits for another exit at most: some tests of exits, each of which builds a circuit.
const ROTATE_DEADLINE: Duration = Duration::from_secs(60);

/// What a scraper reports of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    /// The site that refused.
    site: String,
    /// The exit, by fingerprint or address; the one that serves this username where it is left out.
    exit: Option<String>,
    /// What it did: `blocked`, `captcha`, … Kept for people.
    outcome: Option<String>,
}

impl Outbound {
    pub(super) async fn run_builtin(
        &self,
        pass: &Pass,
        wish: &Wish,
        builtin: BuiltinRequest<'_>,
    ) -> Result<String, Refusal> {
        let answer = match builtin {
            BuiltinRequest::WhoAmI => self.who_am_i(pass, wish),
            BuiltinRequest::Rotate => self.turn(pass, wish).await?,
            BuiltinRequest::Report(body) => self.take_report(pass, wish, body).await?,
        };
        Ok(answer.to_string())
    }

    fn who_am_i(&self, pass: &Pass, wish: &Wish) -> Value {
        let state = &self.parts.state;
        let (said, snapshot) = (self.explained(pass.key(), wish), state.load());
        let only = said.pool.first().filter(|_| said.pool.len() == 1);
        let exit = bound(&said).or(only).and_then(|id| snapshot.catalog.get(id));
        json!({
            "route": wish.label(),
            "selector": wish.selector.to_string(),
            "session": wish.selector.session.as_ref().map(ToString::to_string),
            "key": pass.key(),
            "pool": said.pool.len(),
            "exit": exit.map(|exit| describe(exit, state.now())),
            "refused": said.why.as_ref().map(ToString::to_string),
        })
    }

    async fn turn(&self, pass: &Pass, wish: &Wish) -> Result<Value, Refusal> {
        let turned = self.rotate(pass.key(), wish, Instant::now() + ROTATE_DEADLINE).await;
        let turned = turned.map_err(|fault| match fault {
            RotateFault::NoOther(refusal) => self.refused(&refusal, wish),
            fault => Refusal::because(Failure::NoExit(NoExit::NoneUsable), fault.to_string()),
        })?;
        let (now, snapshot) = (self.parts.state.now(), self.parts.state.load());
        let show = |id| snapshot.catalog.get(id).map(|exit| describe(exit, now));
        let after = show(turned.after.id()).unwrap_or_else(|| describe(&turned.after, now));
        Ok(json!({ "before": turned.before.as_ref().and_then(show), "after": after }))
    }

    async fn take_report(&self, pass: &Pass, wish: &Wish, body: &[u8]) -> Result<Value, Refusal> {
        let wrong = |why: String| Refusal::because(Failure::Client(ClientFault::Body), why);
        let reported: Reported = serde_json::from_slice(body)
            .map_err(|error| wrong(format!("{error}; send {{\"site\": \"shop.example\"}}")))?;
        let host = Host::parse(&reported.site).map_err(|why| wrong(format!("`site`: {why}")))?;
        let (exit, outcome) = (reported.exit.as_deref(), reported.outcome.as_deref());
        let banned = self.report(pass.key(), wish, &host, exit, outcome).await;
        let banned = banned.map_err(|fault| wrong(fault.to_string()))?;
        Ok(json!({ "site": banned.site.as_str(), "exit": banned.exit.to_string() }))
    }
}

fn describe(exit: &Exit, now: Moment) -> Value {
    json!({
        "id": exit.id().to_string(),
        "ip": exit.ip(),
        "country": exit.country().is_known().then(|| exit.country().to_string()),
        "checked_seconds_ago": exit.known().good.map(|at| now.since(at).as_secs()),
    })
}
