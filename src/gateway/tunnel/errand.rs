//! The errands of `http://exit.gate/`: for clients that cannot read the headers of a CONNECT answer, or want another exit.
//!
//! Each acts on the caller's own username and key. What it is told is what the caller may know anyway: which route,
//! session and exit serve it. The key itself is never shown.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::failure::{ClientFault, Failure};
use super::super::gate::{Errand, Refusal};
use super::pass::Pass;
use super::{Tunnel, Wish};
use crate::exit::{Exit, ExitId, Moment};
use crate::net::{Host, Target};
use crate::route::ban::Site;
use crate::route::{Ask, Explanation, explain, rotate};

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

impl Tunnel {
    pub(super) async fn run_errand(&self, pass: &Pass, wish: &Wish, errand: Errand<'_>) -> Result<String, Refusal> {
        let answer = match errand {
            Errand::WhoAmI => self.who_am_i(pass, wish),
            Errand::Rotate => self.rotate(pass, wish)?,
            Errand::Report(body) => self.report(pass, wish, body)?,
        };
        Ok(answer.to_string())
    }

    fn who_am_i(&self, pass: &Pass, wish: &Wish) -> Value {
        let (state, target) = (&self.parts.state, nowhere());
        let now = state.now();
        let snapshot = state.load();
        let ask = Ask { wish, key: pass.key(), target: &target, now, avoid: &[], plain: false };
        let said = explain(snapshot.view(), state.memory(), &ask);
        let only = said.pool.first().filter(|_| said.pool.len() == 1);
        let exit = bound(&said).or(only).and_then(|id| snapshot.catalog.get(id));
        json!({
            "route": wish.label(),
            "selector": wish.selector.to_string(),
            "session": wish.selector.session.as_ref().map(ToString::to_string),
            "key": pass.key(),
            "pool": said.pool.len(),
            "exit": exit.map(|exit| describe(exit, now)),
            "refused": said.why.as_ref().map(ToString::to_string),
        })
    }

    fn rotate(&self, pass: &Pass, wish: &Wish) -> Result<Value, Refusal> {
        let (state, target) = (&self.parts.state, nowhere());
        let now = state.now();
        let snapshot = state.load();
        let ask = Ask { wish, key: pass.key(), target: &target, now, avoid: &[], plain: false };
        let rotated = rotate(snapshot.view(), state.memory(), &ask, &mut rand::rng())
            .map_err(|refusal| self.refused(&refusal, wish))?;
        let before = rotated.before.as_ref().and_then(|id| snapshot.catalog.get(id));
        let answer = json!({
            "before": before.map(|exit| describe(exit, now)),
            "after": describe(&rotated.after, now),
        });
        state.announce(rotated.events);
        Ok(answer)
    }

    fn report(&self, pass: &Pass, wish: &Wish, body: &[u8]) -> Result<Value, Refusal> {
        let wrong = |why: String| Refusal::because(Failure::Client(ClientFault::Body), why);
        let reported: Reported = serde_json::from_slice(body)
            .map_err(|error| wrong(format!("{error}; send {{\"site\": \"shop.example\"}}")))?;
        let host = Host::parse(&reported.site).map_err(|why| wrong(format!("`site`: {why}")))?;
        let (state, target) = (&self.parts.state, nowhere());
        let snapshot = state.load();
        let ask = Ask { wish, key: pass.key(), target: &target, now: state.now(), avoid: &[], plain: false };
        let exit = match reported.exit.as_deref() {
            Some(text) => self.named(text).ok_or_else(|| wrong(format!("`exit`: no exit {text:?} is known")))?,
            None => bound(&explain(snapshot.view(), state.memory(), &ask))
                .cloned()
                .ok_or_else(|| wrong("`exit` is missing, and no session or pin says which one it was".to_owned()))?,
        };
        let why = format!("reported: {}", reported.outcome.as_deref().unwrap_or("refused"));
        let answer = json!({ "site": Site::of(&host).as_str(), "exit": exit.to_string() });
        self.parts.witness.report(Site::of(&host), exit, why);
        Ok(answer)
    }

    /// An exit by its fingerprint or by the address that sites see.
    fn named(&self, text: &str) -> Option<ExitId> {
        let snapshot = self.parts.state.load();
        if let Ok(fingerprint) = text.parse() {
            return snapshot.catalog.get(&ExitId::Tor(fingerprint)).map(|exit| exit.id().clone());
        }
        let ip = text.parse().ok()?;
        snapshot.catalog.by_ip(ip).next().map(|exit| exit.id().clone())
    }
}

/// The one exit that a session or a pin is bound to.
fn bound(said: &Explanation) -> Option<&ExitId> {
    said.session.as_ref().or(said.pin.as_ref().map(|pin| &pin.exit))
}

/// Errands have no target; an exit that serves the web stands for all.
fn nowhere() -> Target {
    Target { host: Host::Name("exit.gate".into()), port: 443 }
}

fn describe(exit: &Exit, now: Moment) -> Value {
    json!({
        "id": exit.id().to_string(),
        "ip": exit.ip(),
        "country": exit.country().is_known().then(|| exit.country().to_string()),
        "checked_seconds_ago": exit.known().good.map(|at| now.since(at).as_secs()),
    })
}
