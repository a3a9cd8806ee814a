//! Who a client is, and what it holds while it is here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::failure::{AuthFault, Denial, Failure, Limited};
use super::super::gate::{Caller, Refusal};
use super::Parts;
use crate::exit::Exit;
use crate::exit::load::InFlight;
use crate::limit::{Admission, Denied, Refused, Who};
use crate::route::policy::Auth;

/// A client that was let in: its key's name, and its place under the limits. Dropping it gives the place back.
pub struct Pass {
    who: Who,
    admission: Admission,
}

impl Pass {
    /// The name of the key; empty where none was needed.
    pub fn key(&self) -> &str {
        self.who.name()
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

/// What an open stream holds: its place in the exit's load.
pub struct Lease(Option<(Arc<Exit>, InFlight)>);

impl Lease {
    pub(super) fn new(exit: Arc<Exit>, flight: InFlight) -> Self {
        Self(Some((exit, flight)))
    }

    /// Of a stream to an onion service.
    pub(super) fn without_exit() -> Self {
        Self(None)
    }

    /// The exit that is used.
    pub(super) fn exit(&self) -> Option<&Arc<Exit>> {
        self.0.as_ref().map(|(exit, _)| exit)
    }
}

/// May this client come in? The key first, unless the route is open; then the address; then the limits.
pub(super) fn admit(parts: &Parts, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Pass, Refusal> {
    let (client, now) = (caller.client.ip().to_canonical(), Instant::now());
    let open = at_own_port(parts, caller)?;
    let who = match (open, password) {
        (true, None) => Who::nobody(),
        (true, Some(_)) => parts.limits.identify(client, password, now).unwrap_or_else(|_| Who::nobody()),
        (false, _) => parts.limits.identify(client, password, now).map_err(unknown)?,
    };
    let admission = parts.limits.admit(&who, client, now).map_err(over)?;
    Ok(Pass { who, admission })
}

/// The rules of a route's own port: who may reach it, and whether that is enough.
fn at_own_port(parts: &Parts, caller: &Caller<'_>) -> Result<bool, Refusal> {
    let Some(name) = &caller.listener.route else { return Ok(false) };
    let snapshot = parts.state.load();
    // By name and not by port: a connection of a route that is gone must not become the next one's.
    let Some(entry) = snapshot.routes.get(name) else { return Err(Failure::Draining.into()) };
    let policy = &entry.route.policy;
    // The socket's own peer, and not whom a PROXY header names: a header makes nobody more trusted.
    let peer: IpAddr = caller.peer.ip().to_canonical();
    if !policy.allow.is_empty() && !policy.allow.iter().any(|net| net.contains(&peer)) {
        return Err(Refusal::because(
            Failure::Denied(Denial::Address),
            format!("{peer} is not in the route's `allow`"),
        ));
    }
    Ok(policy.auth == Auth::Open)
}

fn unknown(refused: Refused) -> Refusal {
    match refused {
        Refused::NoKey => Failure::Auth(AuthFault::Missing).into(),
        Refused::WrongKey => Failure::Auth(AuthFault::Wrong).into(),
        Refused::Damped { retry_after } => {
            Refusal { retry_after: Some(retry_after), ..Failure::Limited(Limited::WrongKeys).into() }
        }
    }
}

fn over(denied: Denied) -> Refusal {
    let detail = denied.to_string();
    match denied {
        Denied::Connections { .. } => Refusal::because(Failure::Limited(Limited::Connections), detail),
        Denied::PerSecond { retry_after, .. } => {
            let said = Refusal::because(Failure::Limited(Limited::Rate), detail);
            Refusal { retry_after: Some(retry_after), ..said }
        }
    }
}
