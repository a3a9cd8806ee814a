//! Lets clients in: the key first, unless the route is open; then the address; then the limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::failure::{AuthFault, Denial, Failure, Limited};
use super::super::gate::{Caller, Refusal};
use super::Parts;
use crate::exit::Exit;
use crate::exit::load::InFlight;
use crate::limit::{Admission, Denied, Identity, KeyRefusal};
use crate::route::policy::Auth;

/// A client that was let in: its key, and its place under the limits, which ends when this is dropped.
pub struct AdmittedClient {
    identity: Identity,
    admission: Admission,
}

impl AdmittedClient {
    /// The name of its key; empty if it needed none.
    pub fn key(&self) -> &str {
        self.identity.key().map_or("", |name| name)
    }

    pub(super) fn key_name(&self) -> Option<&Arc<str>> {
        self.identity.key()
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

/// Counts an open stream in the load of its exit until it is dropped.
pub struct Lease(Option<(Arc<Exit>, InFlight)>);

impl Lease {
    pub(super) fn new(exit: Arc<Exit>, flight: InFlight) -> Self {
        Self(Some((exit, flight)))
    }

    /// For a stream to an onion service.
    pub(super) fn without_exit() -> Self {
        Self(None)
    }

    pub(super) fn exit(&self) -> Option<&Arc<Exit>> {
        self.0.as_ref().map(|(exit, _)| exit)
    }
}

pub(super) fn admit(parts: &Parts, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<AdmittedClient, Refusal> {
    let (client, now) = (caller.client.ip().to_canonical(), Instant::now());
    let open = is_open_route(parts, caller)?;
    let identity = match (open, password) {
        (true, None) => Identity::anonymous(),
        (true, Some(_)) => parts.limits.identify(client, password, now).unwrap_or_else(|_| Identity::anonymous()),
        (false, _) => parts.limits.identify(client, password, now).map_err(bad_key)?,
    };
    let admission = parts.limits.admit(&identity, client).map_err(over_limit)?;
    Ok(AdmittedClient { identity, admission })
}

/// Applies the rules of a route's own port: refuses addresses that may not use it, and says whether it needs no key.
fn is_open_route(parts: &Parts, caller: &Caller<'_>) -> Result<bool, Refusal> {
    let Some(name) = &caller.listener.route else { return Ok(false) };
    let snapshot = parts.state.load();
    // By name and not by port: a connection of a deleted route must not belong to the route that gets its port next.
    let Some(entry) = snapshot.routes.get(name) else { return Err(Failure::Draining.into()) };
    let policy = &entry.route.policy;
    // The socket's own peer and not the address in a PROXY header, which may count and never permit.
    let peer: IpAddr = caller.peer.ip().to_canonical();
    if !policy.allow.is_empty() && !policy.allow.iter().any(|net| net.contains(&peer)) {
        return Err(Refusal::because(
            Failure::Denied(Denial::Address),
            format!("{peer} is not in the route's `allow`"),
        ));
    }
    Ok(policy.auth == Auth::Open)
}

fn bad_key(refused: KeyRefusal) -> Refusal {
    match refused {
        KeyRefusal::NoKey => Failure::Auth(AuthFault::Missing).into(),
        KeyRefusal::WrongKey => Failure::Auth(AuthFault::Wrong).into(),
        KeyRefusal::Damped { retry_after } => {
            Refusal { retry_after: Some(retry_after), ..Failure::Limited(Limited::WrongKeys).into() }
        }
    }
}

fn over_limit(denied: Denied) -> Refusal {
    let detail = denied.to_string();
    match denied {
        Denied::Connections { .. } => Refusal::because(Failure::Limited(Limited::Connections), detail),
        Denied::PerSecond { retry_after, .. } => {
            let refusal = Refusal::because(Failure::Limited(Limited::Rate), detail);
            Refusal { retry_after: Some(retry_after), ..refusal }
        }
    }
}
