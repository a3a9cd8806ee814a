//! Answers requests to `http://exit.gate/`. Clients use these requests to get another exit, or to see their exit if
//! they cannot read the headers of a CONNECT answer.
//!
//! Each request acts only on the username and the key of the client that sends it. The answers contain only what this
//! client may know: the route, session and exit that serve it. They never contain the secret of the key.
//! `outbound/rotate.rs` does the work.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::failure::{ClientFault, Failure, NoExit};
use super::super::gate::{BuiltinRequest, Refusal};
use super::admission::AdmittedClient;
use super::rotate::{RotateFault, bound_exit};
use super::{Outbound, Wish};
use crate::exit::{Exit, Moment};
use crate::net::Host;

/// The longest time that a client may wait for another exit. This is enough for a few tests, each of which builds a
/// circuit. Not tuned.
const ROTATE_DEADLINE: Duration = Duration::from_secs(60);

/// The body of `POST /report`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    /// The site that refused the exit.
    site: String,
    /// The exit's fingerprint or address. `None` means that the report is about the exit that serves this username.
    exit: Option<String>,
    /// What the site did, for example `blocked` or `captcha`. This text is for people.
    outcome: Option<String>,
}

impl Outbound {
    pub(super) async fn run_builtin(
        &self,
        client: &AdmittedClient,
        wish: &Wish,
        builtin: BuiltinRequest<'_>,
    ) -> Result<String, Refusal> {
        let answer = match builtin {
            BuiltinRequest::WhoAmI => self.who_am_i(client, wish),
            BuiltinRequest::Rotate => self.answer_rotate(client, wish).await?,
            BuiltinRequest::Report(body) => self.take_report(client, wish, body).await?,
        };
        Ok(answer.to_string())
    }

    fn who_am_i(&self, client: &AdmittedClient, wish: &Wish) -> Value {
        let state = &self.parts.state;
        let (explained, snapshot) = (self.explained(client.key(), wish), state.load());
        let only = explained.pool.first().filter(|_| explained.pool.len() == 1);
        let exit = bound_exit(&explained).or(only).and_then(|id| snapshot.catalog.get(id));
        json!({
            "route": wish.label(),
            "selector": wish.selector.to_string(),
            "session": wish.selector.session.as_ref().map(ToString::to_string),
            "key": client.key(),
            "pool": explained.pool.len(),
            "exit": exit.map(|exit| self.describe(exit, state.now())),
            "refused": explained.why.as_ref().map(ToString::to_string),
        })
    }

    async fn answer_rotate(&self, client: &AdmittedClient, wish: &Wish) -> Result<Value, Refusal> {
        let rotated = self.rotate(client.key(), wish, Instant::now() + ROTATE_DEADLINE).await;
        let rotated = rotated.map_err(|fault| match fault {
            RotateFault::NoOther(refusal) => self.refused(&refusal, wish),
            fault => Refusal::because(Failure::NoExit(NoExit::NoneUsable), fault.to_string()),
        })?;
        let (now, snapshot) = (self.parts.state.now(), self.parts.state.load());
        let show = |id| snapshot.catalog.get(id).map(|exit| self.describe(exit, now));
        let after = show(rotated.after.id()).unwrap_or_else(|| self.describe(&rotated.after, now));
        Ok(json!({ "before": rotated.before.as_ref().and_then(show), "after": after }))
    }

    async fn take_report(&self, client: &AdmittedClient, wish: &Wish, body: &[u8]) -> Result<Value, Refusal> {
        let wrong = |why: String| Refusal::because(Failure::Client(ClientFault::Body), why);
        let reported: Reported = serde_json::from_slice(body)
            .map_err(|error| wrong(format!("{error}; send {{\"site\": \"shop.example\"}}")))?;
        let host = Host::parse(&reported.site).map_err(|why| wrong(format!("`site`: {why}")))?;
        let (exit, outcome) = (reported.exit.as_deref(), reported.outcome.as_deref());
        // The rules of the route decide which exit served the site. If a rule refuses the site, the route itself
        // counts.
        let routes = self.parts.state.snapshot();
        let ruled = routes.routes.for_target(wish.clone(), &host, Some(443)).unwrap_or_else(|_| wish.clone());
        let banned = self.report(client.key(), &ruled, &host, exit, outcome).await;
        let banned = banned.map_err(|fault| wrong(fault.to_string()))?;
        Ok(json!({ "site": banned.site.as_str(), "exit": banned.exit.to_string() }))
    }

    fn describe(&self, exit: &Exit, now: Moment) -> Value {
        json!({
            "id": exit.id().to_string(),
            "ip": exit.ip(),
            "country": exit.country().is_known().then(|| exit.country().to_string()),
            "checked_seconds_ago": exit.known().good.map(|at| now.since(at).as_secs()),
            "identity": self.parts.identities.of(exit),
        })
    }
}
