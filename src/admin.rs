//! The administration of routes: creates, changes and closes them while the gateway runs.
//!
//! [`RouteAdmin`] is the one way to do this, for the HTTP API and for every later caller. It checks a [`RouteSpec`]
//! (what a caller asks for) against the [`RouteRules`] of the configuration, and queues it as an order. One worker,
//! `admin/service.rs`, carries out one order after the other, so two orders for the same name or port cannot both
//! succeed.
//!
//! The worker runs beside the relays and not on the API's thread, because a route's port must listen on the runtime that
//! carries its connections. [`Listeners`] owns these ports, and the shared port as well.
//!
//! Nothing here knows HTTP: `api/routes.rs` maps [`RouteError`] to a status.
//!
//! Next: `admin/spec.rs` (what a caller may ask for), `admin/service.rs` (the worker), `admin/listeners.rs` (the ports).

mod duration;
mod error;
mod listeners;
mod port;
mod restore;
mod service;
mod spec;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use duration::{DurationOrNever, HumanDuration};
pub use error::{BadField, RouteError};
pub use listeners::Listeners;
pub use port::{PortError, bind};
pub use restore::restored;
pub use spec::{RouteMode, RouteRules, RouteSpec};

use crate::lifecycle::Tasks;
use crate::route::selector::{RouteName, Selector, SourcePick};
use crate::route::{Policy, Why};
use crate::state::State;
use crate::store;

const TOR_IS_OFF: &str =
    "Tor is off (tor.enabled = false), and this asks for Tor exits; add `-source-public`, or `-source-any`";

/// Why a selector has no exit now, in words. `tor` is false where Tor is switched off, which then is the reason.
pub fn no_exit_reason(why: &Why, selector: &Selector, tor: bool) -> String {
    match why {
        Why::NoneMatch if !tor && selector.source == SourcePick::Tor => TOR_IS_OFF.to_owned(),
        why => why.to_string(),
    }
}

/// Orders that wait in the queue; the next caller waits for a place. Not tuned.
const QUEUE: usize = 64;

/// How long a caller waits for a place in the queue. A thousand orders take a few seconds.
const QUEUE_DEADLINE: Duration = Duration::from_secs(30);

/// One order for the worker, and the channel for its answer.
enum RouteOrder {
    /// Create all of these routes, or none.
    Create(Vec<ValidSpec>, oneshot::Sender<Result<Created, RouteError>>),
    /// Change one route by a JSON merge patch of the body that created it; `null` removes a field.
    Change { name: String, patch: Map<String, Value>, answer: oneshot::Sender<Result<RouteName, RouteError>> },
    /// Close one route; `force` ends its connections too.
    Close { name: String, force: bool, answer: oneshot::Sender<Result<(), RouteError>> },
}

/// A spec that passed validation, with the selector and policy that it comes to.
#[derive(Clone, Debug)]
struct ValidSpec {
    spec: RouteSpec,
    selector: Selector,
    policy: Policy,
}

/// What [`RouteAdmin::create`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub names: Vec<RouteName>,
    /// False if the routes existed already, created from equal specs.
    pub new: bool,
}

/// Creates, changes and closes routes. Cheap to clone.
#[derive(Clone)]
pub struct RouteAdmin {
    state: State,
    rules: Arc<ArcSwap<RouteRules>>,
    orders: mpsc::Sender<RouteOrder>,
    closed_ports: watch::Receiver<BTreeSet<String>>,
}

impl RouteAdmin {
    /// Starts the worker. `stored` are the API's routes as the store had them at the start; [`restored`] has put them
    /// into the route table already.
    pub fn start(
        tasks: &Tasks,
        state: State,
        listeners: Arc<Mutex<Listeners>>,
        rules: RouteRules,
        stored: Vec<store::Route>,
    ) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let (orders, queue) = mpsc::channel(QUEUE);
        let (report, closed_ports) = watch::channel(BTreeSet::new());
        let bodies = stored.into_iter().map(|route| (route.name, route.asked)).collect();
        let service = service::RouteService::new(state.clone(), listeners, bodies, rules.clone(), report);
        tasks.spawn("orders", service.run(queue, tasks.clone()));
        Self { state, rules, orders, closed_ports }
    }

    /// Creates a route, or several where `spec.count` says so: all or none. Equal specs under the same names again are
    /// no error and change nothing.
    pub async fn create(&self, spec: RouteSpec) -> Result<Created, RouteError> {
        let valid = {
            let (snapshot, rules) = (self.state.snapshot(), self.rules.load());
            let validate = |spec: RouteSpec| {
                let (selector, policy) = spec.validate(&snapshot.routes, &rules)?;
                Ok::<_, BadField>(ValidSpec { spec, selector, policy })
            };
            spec.expand()?.into_iter().map(validate).collect::<Result<Vec<_>, _>>()?
        };
        self.order(|answer| RouteOrder::Create(valid, answer)).await
    }

    /// Changes a route of the API by a JSON merge patch of the body that created it. Open connections stay as they are.
    pub async fn change(&self, name: String, patch: Map<String, Value>) -> Result<RouteName, RouteError> {
        self.order(|answer| RouteOrder::Change { name, patch, answer }).await
    }

    /// Closes a route of the API. Its port is free when this returns; its connections may finish, unless `force`.
    pub async fn close(&self, name: String, force: bool) -> Result<(), RouteError> {
        self.order(|answer| RouteOrder::Close { name, force, answer }).await
    }

    /// What the configuration says of all routes of the API.
    pub fn rules(&self) -> Guard<Arc<RouteRules>> {
        self.rules.load()
    }

    /// Replaces the rules after a reload; routes that exist keep what they were created with.
    pub fn set_rules(&self, rules: RouteRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Names of routes whose port does not listen, because another program has it.
    pub fn closed_ports(&self) -> BTreeSet<String> {
        self.closed_ports.borrow().clone()
    }

    async fn order<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, RouteError>>) -> RouteOrder,
    ) -> Result<T, RouteError> {
        let (answer, outcome) = oneshot::channel();
        // An order that is in the queue is carried out, so the deadline is for the place in the queue alone.
        let place = tokio::time::timeout(QUEUE_DEADLINE, self.orders.reserve()).await.map_err(|_| RouteError::Busy)?;
        place.map_err(|_| RouteError::Internal)?.send(make(answer));
        outcome.await.map_err(|_| RouteError::Internal)?
    }
}
