//! Decides whether a client may use the gateway. First the client's key is checked, unless the route needs no key. Then
//! the client's address and the limits are checked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use super::super::failure::{AuthFault, Denial, Failure, Limited};
use super::super::gate::{Caller, Refusal};
use super::{Parts, Wish};
use crate::exit::load::InFlight;
use crate::exit::{Exit, Source};
use crate::limit::{Admission, Denied, Identity, KeyRefusal, Spend, Spent, subscriber};
use crate::route::Tenant;
use crate::route::policy::Auth;

/// A client that may use the gateway. The value holds the client's key and counts one connection for the limits: one
/// tunnel, or one HTTP request. Dropping this value ends the count of this connection.
pub struct AdmittedClient {
    identity: Identity,
    /// The address under which the client is counted: for IPv6, the /64 prefix.
    address: IpAddr,
    admission: Admission,
    /// True after the request of this client was counted in a budget.
    counted: AtomicBool,
}

impl AdmittedClient {
    /// Returns the name of the client's key. The text is empty if the client needed no key.
    pub fn key(&self) -> &str {
        self.identity.key().map_or("", |name| name)
    }

    /// Returns the client's key and address. They are part of the rule that decides which streams share circuits.
    pub(super) fn tenant(&self) -> Tenant<'_> {
        Tenant { key: self.key(), address: self.address }
    }

    pub(super) fn key_name(&self) -> Option<&Arc<str>> {
        self.identity.key()
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns true if the request of this client was counted in a budget.
    pub(super) fn is_counted(&self) -> bool {
        self.counted.load(Relaxed)
    }

    pub(super) fn set_counted(&self) {
        self.counted.store(true, Relaxed);
    }

    /// Returns the counter of the bytes of a stream through this source. `None` if the client needed no key.
    pub(super) fn spend(&self, source: Source) -> Option<Spend> {
        self.identity.account().map(|account| account.spend(source.as_str()))
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

/// Counts one open stream in the load of its exit. Dropping this value ends the count. The field is `None` for a stream
/// without an exit.
pub struct Lease {
    of: Option<(Arc<Exit>, InFlight)>,
    /// The meaning of the username, if the answers on this stream show whether the site refuses a source of the route.
    /// This is so for plain HTTP and routes with sources in order.
    wish: Option<Box<Wish>>,
}

impl Lease {
    pub(super) fn new(exit: Arc<Exit>, flight: InFlight, wish: Option<Box<Wish>>) -> Self {
        Self { of: Some((exit, flight)), wish }
    }

    /// Returns a lease for a stream to an onion service. Such a stream has no exit.
    pub(super) fn without_exit() -> Self {
        Self { of: None, wish: None }
    }

    pub(super) fn exit(&self) -> Option<&Arc<Exit>> {
        self.of.as_ref().map(|(exit, _)| exit)
    }

    pub(super) fn wish(&self) -> Option<&Wish> {
        self.wish.as_deref()
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
    if let Some(spent) = identity.account().and_then(|account| account.spent(SystemTime::now().into())) {
        return Err(over_budget(spent));
    }
    Ok(AdmittedClient { identity, address: subscriber(client), admission, counted: AtomicBool::new(false) })
}

/// Applies the rules of a route's own port. Refuses clients whose address may not use the route, and returns true if
/// the route needs no key.
fn is_open_route(parts: &Parts, caller: &Caller<'_>) -> Result<bool, Refusal> {
    let Some(name) = &caller.listener.route else { return Ok(false) };
    let snapshot = parts.state.load();
    // The route is looked up by name and not by port. Otherwise a connection of a deleted route would belong to the
    // next route that gets the same port.
    let Some(entry) = snapshot.routes.get(name) else { return Err(Failure::Draining.into()) };
    let policy = &entry.route.policy;
    // This check uses the address of the socket's peer, and not the address in a PROXY header. The latter may be used
    // for counting but never for permissions.
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
        KeyRefusal::Expired => Refusal::because(Failure::Auth(AuthFault::Wrong), "its time is over"),
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
        Denied::Budget(spent) => over_budget(spent),
    }
}

/// Refuses a client because a budget of its key is used up.
pub(super) fn over_budget(spent: Spent) -> Refusal {
    let retry_after = Some(spent.wait(SystemTime::now().into()));
    Refusal { retry_after, ..Refusal::because(Failure::Limited(Limited::Budget), Denied::Budget(spent).to_string()) }
}
